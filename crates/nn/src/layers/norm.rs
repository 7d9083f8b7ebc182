//! Normalisation with PyTorch's names, epsilon and momentum, each with the activation that follows it.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use trimtab_kernels::norm::Activation;
use trimtab_kernels::tensor::{batch_norm, batch_norm_train, group_norm, layer_norm_channels};

/// Added to the variance, as PyTorch.
const EPSILON: f64 = 1e-5;
/// Share of the newest batch in the running statistics, as PyTorch.
const MOMENTUM: f64 = 0.1;

/// Batch normalisation over `[b, c, h, w]`, Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167>.
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

    /// Normalises by the running statistics, then applies `activation`.
    pub fn forward(&self, x_bchw: Tensor<4>, activation: Activation) -> Tensor<4> {
        batch_norm(
            x_bchw,
            self.weight.val(),
            self.bias.val(),
            self.running_mean.val(),
            self.running_var.val(),
            EPSILON,
            activation,
        )
    }

    /// Normalises by the statistics of the batch and folds them into the running ones (unless [`Self::frozen`]), then
    /// applies `activation`.
    pub fn forward_train(&mut self, x_bchw: Tensor<4>, activation: Activation) -> Tensor<4> {
        if self.frozen {
            return self.forward(x_bchw, activation);
        }
        let [b, _, h, w] = x_bchw.dims();
        let count = (b * h * w) as f64;
        if count == 0.0 {
            // Nothing is no reason to change the running statistics.
            return self.forward(x_bchw, activation);
        }
        let out = batch_norm_train(x_bchw, self.weight.val(), self.bias.val(), EPSILON, activation);
        let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        fold(&mut self.running_mean, out.mean, 1.0);
        fold(&mut self.running_var, out.variance, unbiased);
        out.output
    }
}

fn fold(running: &mut Param<Tensor<1>>, batch: Tensor<1>, scale: f64) {
    let updated = |old: Tensor<1>| {
        let tracked = old.is_autodiff();
        let old = if tracked { old.inner() } else { old };
        let new = old.mul_scalar(1.0 - MOMENTUM) + batch.mul_scalar(MOMENTUM * scale);
        if tracked { Tensor::from_inner(new) } else { new }
    };
    *running = running.clone().map(updated);
}

/// Group normalisation over `[b, c, ...]`, Wu & He 2018, <https://arxiv.org/abs/1803.08494>; instance normalisation where
/// there are as many groups as channels.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale, `[c]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[c]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
}

impl GroupNorm {
    /// Scale 1, shift 0.
    ///
    /// # Panics
    /// Where `groups` does not divide `channels`.
    pub fn init(groups: usize, channels: usize, device: &Device) -> Self {
        assert!(channels.is_multiple_of(groups), "{groups} groups do not divide {channels} channels");
        Self {
            weight: Param::from_tensor(Tensor::ones([channels], device)),
            bias: Param::from_tensor(Tensor::zeros([channels], device)),
            groups,
        }
    }

    /// Normalises each group of each sample, then applies `activation`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, activation: Activation) -> Tensor<D> {
        group_norm(x, self.weight.val(), self.bias.val(), self.groups, EPSILON, activation)
    }
}

/// Layer normalisation over the channels of `[b, c, ...]` at each position, as ConvNeXt and EdgeNeXt use it;
/// Ba et al. 2016, <https://arxiv.org/abs/1607.06450>.
#[derive(Module, Debug)]
pub struct LayerNormChannels {
    /// Scale, `[c]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[c]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNormChannels {
    /// Scale 1, shift 0. `epsilon` is added to the variance; ConvNeXt and EdgeNeXt use 1e-6.
    pub fn init(channels: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::ones([channels], device)),
            bias: Param::from_tensor(Tensor::zeros([channels], device)),
            epsilon,
        }
    }

    /// Normalises the channels at each position of each sample.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm_channels(x, self.weight.val(), self.bias.val(), self.epsilon, Activation::Identity)
    }
}
