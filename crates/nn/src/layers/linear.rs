//! Linear layers and dropout.   Axes: b = batch, i = input, o = output.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};

use super::init::uniform;

/// `x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[output, input]`.
    pub weight: Param<Tensor<2>>,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Weights and bias drawn as PyTorch draws them.
    pub fn init(input: usize, output: usize, device: &Device, rng: &mut impl Rng) -> Self {
        Self {
            weight: uniform([output, input], input, device, rng),
            bias: uniform([output], input, device, rng),
        }
    }

    /// # Shapes
    /// - `x_bi`: `[b, input]`; returns `[b, output]`.
    pub fn forward(&self, x_bi: Tensor<2>) -> Tensor<2> {
        x_bi.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// The cosine of each input with each class's direction, in -1..=1: the classifier that LDAM is made for (Cao et al. 2019,
/// <https://arxiv.org/abs/1906.07413>; `NormedLinear` of <https://github.com/kaidic/LDAM-DRW>). Its margins are distances on
/// the unit sphere, and mean nothing to logits of any length.
#[derive(Module, Debug)]
pub struct NormedLinear {
    /// `[input, output]`, as in the authors' code; only the directions of its columns matter.
    pub weight: Param<Tensor<2>>,
}

impl NormedLinear {
    /// Columns of length 1, their entries drawn from U(-1, 1) before that.
    pub fn init(input: usize, output: usize, device: &Device, rng: &mut impl Rng) -> Self {
        let mut values: Vec<f32> = (0..input * output).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
        for column in 0..output {
            let squares: f32 = values.iter().skip(column).step_by(output).map(|v| v * v).sum();
            let length = squares.sqrt().max(NORM_AT_LEAST);
            values.iter_mut().skip(column).step_by(output).for_each(|v| *v /= length);
        }
        Self { weight: Param::from_data(TensorData::new(values, [input, output]), device) }
    }

    /// # Shapes
    /// - `x_bi`: `[b, input]`; returns cosines `[b, output]`.
    pub fn forward(&self, x_bi: Tensor<2>) -> Tensor<2> {
        normalise(x_bi, 1).matmul(normalise(self.weight.val(), 0))
    }
}

/// Least length that [`normalise`] divides by, as PyTorch's `normalize`.
const NORM_AT_LEAST: f32 = 1e-12;

/// `x` over its length along `dim`.
fn normalise(x: Tensor<2>, dim: usize) -> Tensor<2> {
    // The root is taken of no zero: its gradient there would be NaN.
    let squares = (x.clone() * x.clone()).sum_dim(dim).clamp_min(NORM_AT_LEAST * NORM_AT_LEAST);
    x / squares.sqrt()
}

/// Sets a share `rate` (0..1) of the values to 0 and scales the others by `1 / (1 - rate)`; Srivastava et al. 2014. The mask
/// comes from `rng` alone, so that a run resumed at a step, with the generator of that step, drops the same values.
pub fn dropout<const D: usize>(x: Tensor<D>, rate: f64, rng: &mut impl Rng) -> Tensor<D> {
    if rate <= 0.0 {
        return x;
    }
    let shape = x.dims();
    let kept = if rate < 1.0 { (1.0 / (1.0 - rate)) as f32 } else { 0.0 };
    let mask: Vec<f32> =
        (0..shape.iter().product()).map(|_| if rng.random::<f64>() < rate { 0.0 } else { kept }).collect();
    let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device());
    x * mask
}
