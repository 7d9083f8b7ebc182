//! Normalisation and activation on tensors.

#[cfg(feature = "flex")]
use burn::tensor::DType;
use burn::tensor::{Tensor, activation as burn_activation, module};

use crate::norm::Activation;
#[cfg(feature = "flex")]
use cpu::{Kind, Norm, Pointwise};

/// What [`batch_norm_train`] returns.
pub struct BatchNormTrain<const D: usize> {
    /// The normalised input, activation included.
    pub output: Tensor<D>,
    /// Mean of the batch, `[channels]`, without gradient.
    pub mean: Tensor<1>,
    /// Biased variance of the batch, `[channels]`, without gradient.
    pub variance: Tensor<1>,
}

/// Batch normalisation by the statistics of the batch, and the activation: [`crate::norm::batch_train`].
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`; `weight`, `bias`: `[channels]`.
pub fn batch_norm_train<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> BatchNormTrain<D> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        let device = x.device().inner();
        let norm = Norm::new(&x, Kind::BatchTrain, epsilon, activation);
        let output = super::glue::ternary(norm.clone(), x, weight, bias);
        let [mean, variance] = norm.statistics().map(|s| Tensor::from_data(s, (&device, DType::F32)));
        return BatchNormTrain { output, mean, variance };
    }
    let out = module::batch_norm_train(x, weight, bias, epsilon);
    let [mean, variance] = [out.mean, out.variance].map(|t| if t.is_autodiff() { t.inner() } else { t });
    BatchNormTrain { output: activate(out.output, activation), mean, variance }
}

/// Batch normalisation by given statistics (constants to the gradient), and the activation: [`crate::norm::batch_eval`].
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`; the others `[channels]`.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    mean: Tensor<1>,
    variance: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        let values = |t: Tensor<1>| -> Vec<f32> {
            t.into_data().convert::<f32>().try_into_vec().expect("converted to f32 just now")
        };
        let kind = Kind::BatchEval { mean: values(mean), variance: values(variance) };
        return super::glue::ternary(Norm::new(&x, kind, epsilon, activation), x, weight, bias);
    }
    let [mean, variance] = [mean, variance].map(Tensor::detach);
    activate(module::batch_norm(x, weight, bias, mean, variance, epsilon), activation)
}

/// Group normalisation with scale and shift by channel, and the activation: [`crate::norm::group`]. `groups` 1 is layer
/// normalisation over channels and positions, `groups == channels` instance normalisation.
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`; `weight`, `bias`: `[channels]`.
///
/// # Panics
/// Where `groups` does not divide the channels.
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    epsilon: f64,
    activation: Activation,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::ternary(
            Norm::new(&x, Kind::Group { groups }, epsilon, activation),
            x,
            weight,
            bias,
        );
    }
    let shape = x.dims();
    let rest: usize = shape[1..].iter().product();
    let rows = x.reshape([shape[0] * groups, rest / groups]);
    let centred = rows.clone() - rows.mean_dim(1);
    let rstd = (centred.clone().powi_scalar(2).mean_dim(1) + epsilon).sqrt().recip();
    let by_channel = |t: Tensor<1>| t.reshape([1, shape[1], 1]);
    let y = (centred * rstd).reshape([shape[0], shape[1], rest / shape[1]]);
    let y = y * by_channel(weight) + by_channel(bias);
    activate(y.reshape(shape), activation)
}

/// Layer normalisation over the last dimension, and the activation: [`crate::norm::layer`].
///
/// # Shapes
/// - `x`: `[..., len]`; `weight`, `bias`: `[len]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::ternary(Norm::new(&x, Kind::Layer, epsilon, activation), x, weight, bias);
    }
    activate(module::layer_norm(x, weight, Some(bias), epsilon), activation)
}

/// Layer normalisation over the channels at each position, and the activation: [`crate::norm::layer_channels`].
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`; `weight`, `bias`: `[channels]`.
pub fn layer_norm_channels<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::ternary(
            Norm::new(&x, Kind::LayerChannels, epsilon, activation),
            x,
            weight,
            bias,
        );
    }
    let shape = x.dims();
    let x = x.reshape([shape[0], shape[1], shape[2..].iter().product()]);
    let centred = x.clone() - x.mean_dim(1);
    let rstd = (centred.clone().powi_scalar(2).mean_dim(1) + epsilon).sqrt().recip();
    let by_channel = |t: Tensor<1>| t.reshape([1, shape[1], 1]);
    activate((centred * rstd * by_channel(weight) + by_channel(bias)).reshape(shape), activation)
}

/// The activation alone: [`crate::norm::activation`]. Any shape.
pub fn activation<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::unary(std::sync::Arc::new(Pointwise(activation)), x);
    }
    activate(x, activation)
}

fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Identity => x,
        Activation::Relu => burn_activation::relu(x),
        Activation::LeakyRelu(slope) => burn_activation::leaky_relu(x, f64::from(slope)),
    }
}

#[cfg(feature = "flex")]
mod cpu {
    use std::sync::{Arc, OnceLock};

    use burn::backend::flex::FlexTensor;
    use burn::tensor::{Tensor, TensorData};

    use super::super::glue::{Function, dims, of_vec, room, slice, tensor};
    use crate::norm::{self, Activation, Shape};

    #[derive(Debug)]
    pub(super) enum Kind {
        BatchTrain,
        BatchEval { mean: Vec<f32>, variance: Vec<f32> },
        Group { groups: usize },
        Layer,
        LayerChannels,
    }

    /// Of `x`, `weight` and `bias`.
    #[derive(Debug)]
    pub(super) struct Norm {
        kind: Kind,
        shape: Shape,
        epsilon: f32,
        activation: Activation,
        /// Mean and variance of the batch, once the forward has run.
        statistics: OnceLock<[Vec<f32>; 2]>,
    }

    impl Norm {
        pub(super) fn new<const D: usize>(
            x: &Tensor<D>,
            kind: Kind,
            epsilon: f64,
            activation: Activation,
        ) -> Arc<Self> {
            let shape = x.dims();
            assert!(D >= 2, "a norm takes [batch, channels, ...], not {shape:?}");
            let (batch, channels) = match kind {
                // Rows of the last dimension.
                Kind::Layer => (shape[..D - 1].iter().product(), shape[D - 1]),
                _ => (shape[0], shape[1]),
            };
            let inner = match kind {
                Kind::Layer => 1,
                _ => shape[2..].iter().product(),
            };
            let shape = Shape { batch, channels, inner };
            Arc::new(Self { kind, shape, epsilon: epsilon as f32, activation, statistics: OnceLock::new() })
        }

        /// Mean and variance of the batch, after the forward.
        pub(super) fn statistics(&self) -> [TensorData; 2] {
            let statistics = self.statistics.get().expect("the forward has run");
            statistics.clone().map(|s| TensorData::new(s, [self.shape.channels]))
        }

        /// Number of means that are saved.
        fn rows(&self) -> usize {
            match self.kind {
                Kind::BatchTrain => self.shape.channels,
                Kind::BatchEval { .. } => 0,
                Kind::Group { groups } => self.shape.batch * groups,
                Kind::Layer => self.shape.batch,
                Kind::LayerChannels => self.shape.batch * self.shape.inner,
            }
        }
    }

    impl Function<3> for Norm {
        fn forward(
            &self,
            [x, weight, bias]: [&FlexTensor; 3],
            tracked: bool,
        ) -> (FlexTensor, Vec<FlexTensor>) {
            let (s, e, a) = (self.shape, self.epsilon, self.activation);
            let (w, b) = (slice(weight), slice(bias));
            let (mut first, mut second) = (room(self.rows()), room(self.rows()));
            let (m, v) = (&mut first[..], &mut second[..]);
            let output = tensor(dims(x), |y| {
                let x = slice(x);
                match &self.kind {
                    Kind::BatchTrain => norm::batch_train(s, e, a, x, w, b, y, m, v),
                    Kind::BatchEval { mean, variance } => {
                        norm::batch_eval(s, e, a, x, w, b, mean, variance, y);
                    }
                    Kind::Group { groups } => norm::group(s, *groups, e, a, x, Some(w), Some(b), y, m, v),
                    Kind::Layer => norm::layer(s.batch, s.channels, e, a, x, w, b, y, m, v),
                    Kind::LayerChannels => norm::layer_channels(s, e, a, x, w, b, y, m, v),
                }
            });
            if matches!(self.kind, Kind::BatchTrain) {
                let _ = self.statistics.set([first.clone(), second.clone()]);
            }
            if !tracked {
                return (output, Vec::new());
            }
            let rows = self.rows();
            (output, vec![of_vec(first, [rows]), of_vec(second, [rows])])
        }

        fn keeps(&self, _needed: [bool; 3]) -> [bool; 3] {
            [true; 3]
        }

        fn backward(
            &self,
            [x, weight, bias]: [Option<FlexTensor>; 3],
            saved: Vec<FlexTensor>,
            gradient: FlexTensor,
            needed: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let (Some(x), Some(weight), Some(bias)) = (x, weight, bias) else { unreachable!("all are kept") };
            let (s, e, a) = (self.shape, self.epsilon, self.activation);
            let (w, b, dy) = (slice(&weight), slice(&bias), slice(&gradient));
            let (m, v) = (slice(&saved[0]), slice(&saved[1]));
            let (mut dweight, mut dbias) = (room(s.channels), room(s.channels));
            let (dw, db) = (&mut dweight[..], &mut dbias[..]);
            let mut dx = needed[0].then(|| room(dy.len()));
            let (rows, out) = (slice(&x), dx.as_deref_mut());
            match &self.kind {
                Kind::BatchTrain => norm::batch_train_backward(s, e, a, rows, w, b, m, v, dy, out, dw, db),
                Kind::BatchEval { mean, variance } => {
                    norm::batch_eval_backward(s, e, a, rows, w, b, mean, variance, dy, out, dw, db);
                }
                Kind::Group { groups } => {
                    norm::group_backward(
                        s,
                        *groups,
                        a,
                        rows,
                        Some(w),
                        Some(b),
                        m,
                        v,
                        dy,
                        out,
                        Some(dw),
                        Some(db),
                    );
                }
                Kind::Layer => {
                    norm::layer_backward(s.batch, s.channels, a, rows, w, b, m, v, dy, out, dw, db)
                }
                Kind::LayerChannels => norm::layer_channels_backward(s, a, rows, w, b, m, v, dy, out, dw, db),
            }
            [
                dx.map(|dx| of_vec(dx, dims(&x))),
                needed[1].then(|| of_vec(dweight, [s.channels])),
                needed[2].then(|| of_vec(dbias, [s.channels])),
            ]
        }
    }

    /// The activation alone. Its output decides what the gradient passes, so the input is not kept.
    #[derive(Debug)]
    pub(super) struct Pointwise(pub(super) Activation);

    impl Function<1> for Pointwise {
        fn forward(&self, [x]: [&FlexTensor; 1], _tracked: bool) -> (FlexTensor, Vec<FlexTensor>) {
            let output = tensor(dims(x), |y| norm::activation(self.0, slice(x), y));
            let saved = vec![output.clone()];
            (output, saved)
        }

        fn keeps(&self, _needed: [bool; 1]) -> [bool; 1] {
            [false]
        }

        fn backward(
            &self,
            _inputs: [Option<FlexTensor>; 1],
            saved: Vec<FlexTensor>,
            gradient: FlexTensor,
            needed: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            let y = &saved[0];
            [needed[0].then(|| {
                tensor(dims(y), |dx| norm::activation_backward(self.0, slice(y), slice(&gradient), dx))
            })]
        }
    }
}
