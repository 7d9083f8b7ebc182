//! Convolutions with PyTorch's names, shapes and initial distribution.

use burn::module::{Module, Param};
use burn::tensor::module::{conv_transpose2d, conv2d};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};

/// Size and geometry of a [`Conv2d`] with a square kernel.
#[derive(Debug, Clone, Copy)]
pub struct Conv2dConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the kernel, in pixels.
    pub kernel: usize,
    /// Zeros added at each border, in pixels.
    pub padding: usize,
    /// Distance between two outputs, in pixels.
    pub stride: usize,
    /// Distance between two kernel taps, in pixels.
    pub dilation: usize,
}

impl Conv2dConfig {
    /// A "same" convolution of stride 1 with an odd kernel.
    pub fn same(input: usize, output: usize, kernel: usize) -> Self {
        Self { input, output, kernel, padding: kernel / 2, stride: 1, dilation: 1 }
    }

    /// A convolution with weights and bias drawn as PyTorch draws them.
    pub fn init(&self, device: &Device, rng: &mut impl Rng) -> Conv2d {
        let fan_in = self.input * self.kernel * self.kernel;
        Conv2d {
            weight: uniform([self.output, self.input, self.kernel, self.kernel], fan_in, device, rng),
            bias: uniform([self.output], fan_in, device, rng),
            geometry: *self,
        }
    }
}

/// 2-D convolution with bias.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[output, input, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    geometry: Conv2dConfig,
}

impl Conv2d {
    /// # Shapes
    /// - `x_bchw`: `[b, input, h, w]`; returns `[b, output, h', w']`.
    pub fn forward(&self, x_bchw: Tensor<4>) -> Tensor<4> {
        let g = &self.geometry;
        conv2d(
            x_bchw,
            self.weight.val(),
            Some(self.bias.val()),
            ConvOptions::new([g.stride; 2], [g.padding; 2], [g.dilation; 2], 1),
        )
    }
}

/// Transposed 2x2 convolution of stride 2 with bias: doubles height and width.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// `[input, output, 2, 2]`.
    pub weight: Param<Tensor<4>>,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
}

impl ConvTranspose2d {
    /// `input` to `output` channels; PyTorch takes the *output* channels as fan-in of a transposed convolution.
    pub fn init(input: usize, output: usize, device: &Device, rng: &mut impl Rng) -> Self {
        let fan_in = output * 4;
        Self {
            weight: uniform([input, output, 2, 2], fan_in, device, rng),
            bias: uniform([output], fan_in, device, rng),
        }
    }

    /// # Shapes
    /// - `x_bchw`: `[b, input, h, w]`; returns `[b, output, 2h, 2w]`.
    pub fn forward(&self, x_bchw: Tensor<4>) -> Tensor<4> {
        conv_transpose2d(
            x_bchw,
            self.weight.val(),
            Some(self.bias.val()),
            ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1),
        )
    }
}

/// U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for convolutions (`kaiming_uniform_` with a = sqrt 5). Drawn on the
/// host, so that a seed gives the same network on every device.
fn uniform<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    device: &Device,
    rng: &mut impl Rng,
) -> Param<Tensor<D>> {
    let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect();
    Param::from_data(TensorData::new(values, shape), device)
}
