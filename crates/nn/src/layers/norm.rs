//! Batch normalisation, Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167>.

use burn::module::{Module, Param};
use burn::tensor::module::{batch_norm, batch_norm_train};
use burn::tensor::{Device, Tensor};

/// Added to the variance, as PyTorch.
const EPSILON: f64 = 1e-5;
/// Share of the newest batch in the running statistics, as PyTorch.
const MOMENTUM: f64 = 0.1;

/// Batch normalisation over `[b, c, h, w]` with PyTorch's names, epsilon and momentum.
///
/// Training takes `&mut self` and updates the running statistics at once; the running variance is the unbiased one, as
/// PyTorch's (Burn keeps the biased one).
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    /// Scale, `[c]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[c]`.
    pub bias: Param<Tensor<1>>,
    /// Buffer, `[c]`; not trained.
    pub running_mean: Param<Tensor<1>>,
    /// Buffer, `[c]`; not trained.
    pub running_var: Param<Tensor<1>>,
    /// Frozen: training uses, and does not change, the running statistics.
    #[module(skip)]
    pub frozen: bool,
}

impl BatchNorm2d {
    /// Scale 1, shift 0, running mean 0, running variance 1.
    pub fn init(channels: usize, device: &Device) -> Self {
        let filled = |value: f32| Tensor::<1>::full([channels], value, device);
        let buffer = |value: f32| Param::from_tensor(filled(value)).set_require_grad(false);
        Self {
            weight: Param::from_tensor(filled(1.0)),
            bias: Param::from_tensor(filled(0.0)),
            running_mean: buffer(0.0),
            running_var: buffer(1.0),
            frozen: false,
        }
    }

    /// Normalises by the running statistics.
    pub fn forward(&self, x_bchw: Tensor<4>) -> Tensor<4> {
        batch_norm(
            x_bchw,
            self.weight.val(),
            self.bias.val(),
            self.running_mean.val(),
            self.running_var.val(),
            EPSILON,
        )
    }

    /// Normalises by the statistics of the batch and folds them into the running ones (unless [`Self::frozen`]).
    pub fn forward_train(&mut self, x_bchw: Tensor<4>) -> Tensor<4> {
        if self.frozen {
            return self.forward(x_bchw);
        }
        let [b, _, h, w] = x_bchw.dims();
        let count = (b * h * w) as f64;
        let out = batch_norm_train(x_bchw, self.weight.val(), self.bias.val(), EPSILON);
        let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        fold(&mut self.running_mean, out.mean, 1.0);
        fold(&mut self.running_var, out.variance, unbiased);
        out.output
    }
}

fn fold(running: &mut Param<Tensor<1>>, batch: Tensor<1>, scale: f64) {
    let batch = if batch.is_autodiff() { batch.inner() } else { batch };
    let updated = |old: Tensor<1>| {
        let tracked = old.is_autodiff();
        let old = if tracked { old.inner() } else { old };
        let new = old.mul_scalar(1.0 - MOMENTUM) + batch.mul_scalar(MOMENTUM * scale);
        if tracked { Tensor::from_inner(new) } else { new }
    };
    *running = running.clone().map(updated);
}
