//! Normalisation with PyTorch's names, epsilon and momentum, each with the activation that follows it.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use trimtab_kernels::norm::Activation;
use trimtab_kernels::tensor::{batch_norm, batch_norm_train, group_norm, layer_norm_channels};

/// Added to the variance, as PyTorch.
const EPSILON: f64 = 1e-5;
/// Share of the newest batch in the running statistics, as PyTorch.
const MOMENTUM: f64 = 0.1;

/// Batch normalisation over `[b, c, ...]`, Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167>.
///
/// Training takes `&mut self` and updates the running statistics at once; the running variance is the unbiased one, as
/// PyTorch's (Burn keeps the biased one).
#[derive(Module, Debug)]
pub struct BatchNorm {
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

/// [`BatchNorm`] as PyTorch names it in two dimensions.
pub type BatchNorm2d = BatchNorm;

impl BatchNorm {
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
    pub fn forward<const D: usize>(&self, x: Tensor<D>, activation: Activation) -> Tensor<D> {
        batch_norm(
            x,
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
    pub fn forward_train<const D: usize>(&mut self, x: Tensor<D>, activation: Activation) -> Tensor<D> {
        if self.frozen {
            return self.forward(x, activation);
        }
        let shape = x.dims();
        let count = (shape[0] * shape[2..].iter().product::<usize>()) as f64;
        if count == 0.0 {
            // Nothing is no reason to change the running statistics.
            return self.forward(x, activation);
        }
        let out = batch_norm_train(x, self.weight.val(), self.bias.val(), EPSILON, activation);
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

/// Instance normalisation over `[b, c, ...]`: each channel of each sample by itself, with or without scale and shift;
/// Ulyanov et al. 2016, <https://arxiv.org/abs/1607.08022>. A channel of one value becomes 0 (PyTorch refuses it).
#[derive(Module, Debug)]
pub struct InstanceNorm {
    /// Scale, `[c]`; none where the norm is not affine (PyTorch's default).
    pub weight: Option<Param<Tensor<1>>>,
    /// Shift, `[c]`; none where the norm is not affine.
    pub bias: Option<Param<Tensor<1>>>,
}

impl InstanceNorm {
    /// Scale 1, shift 0, both trained if `affine`.
    pub fn init(channels: usize, affine: bool, device: &Device) -> Self {
        let filled = |value: f32| Param::from_tensor(Tensor::<1>::full([channels], value, device));
        Self { weight: affine.then(|| filled(1.0)), bias: affine.then(|| filled(0.0)) }
    }

    /// Normalises each channel of each sample, then applies `activation`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, activation: Activation) -> Tensor<D> {
        let channels = x.dims()[1];
        let device = x.device();
        let value = |param: &Option<Param<Tensor<1>>>, otherwise: f32| match param {
            Some(param) => param.val(),
            None => Tensor::full([channels], otherwise, &device),
        };
        let (weight, bias) = (value(&self.weight, 1.0), value(&self.bias, 0.0));
        group_norm(x, weight, bias, channels, EPSILON, activation)
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
