//! Convolutions with PyTorch's names, shapes and initial distribution.

use burn::module::{Module, Param};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use trimtab_kernels::tensor::{conv_transpose2d, conv_transpose3d, conv2d, conv3d};

/// Size and geometry of a [`Conv2d`] or [`Conv3d`], the same along each dimension.
#[derive(Debug, Clone, Copy)]
pub struct ConvConfig {
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
    /// Groups of channels that share no weights; `input` for a depthwise convolution.
    pub groups: usize,
    /// Whether a bias is added; a norm that follows makes it idle.
    pub bias: bool,
}

impl ConvConfig {
    /// A "same" convolution of stride 1 with an odd kernel, one group, with bias.
    pub fn same(input: usize, output: usize, kernel: usize) -> Self {
        Self { input, output, kernel, padding: kernel / 2, stride: 1, dilation: 1, groups: 1, bias: true }
    }

    /// A 2-D convolution with weights and bias drawn as PyTorch draws them.
    pub fn init2d(&self, device: &Device, rng: &mut impl Rng) -> Conv2d {
        let input = self.input / self.groups;
        let weight = [self.output, input, self.kernel, self.kernel];
        let (weight, bias) = self.draw(weight, device, rng);
        Conv2d { weight, bias, geometry: *self }
    }

    /// A 3-D convolution with weights and bias drawn as PyTorch draws them.
    pub fn init3d(&self, device: &Device, rng: &mut impl Rng) -> Conv3d {
        let input = self.input / self.groups;
        let weight = [self.output, input, self.kernel, self.kernel, self.kernel];
        let (weight, bias) = self.draw(weight, device, rng);
        Conv3d { weight, bias, geometry: *self }
    }

    fn draw<const D: usize>(
        &self,
        shape: [usize; D],
        device: &Device,
        rng: &mut impl Rng,
    ) -> (Param<Tensor<D>>, Option<Param<Tensor<1>>>) {
        let fan_in = shape[1..].iter().product();
        let weight = uniform(shape, fan_in, device, rng);
        (weight, self.bias.then(|| uniform([self.output], fan_in, device, rng)))
    }
}

/// 2-D convolution.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[output, input / groups, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[output]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    geometry: ConvConfig,
}

impl Conv2d {
    /// # Shapes
    /// - `x_bchw`: `[b, input, h, w]`; returns `[b, output, h', w']`.
    pub fn forward(&self, x_bchw: Tensor<4>) -> Tensor<4> {
        let g = &self.geometry;
        let options = ConvOptions::new([g.stride; 2], [g.padding; 2], [g.dilation; 2], g.groups);
        conv2d(x_bchw, self.weight.val(), self.bias.as_ref().map(Param::val), options)
    }
}

/// 3-D convolution.
#[derive(Module, Debug)]
pub struct Conv3d {
    /// `[output, input / groups, kernel, kernel, kernel]`.
    pub weight: Param<Tensor<5>>,
    /// `[output]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    geometry: ConvConfig,
}

impl Conv3d {
    /// # Shapes
    /// - `x_bcdhw`: `[b, input, d, h, w]`; returns `[b, output, d', h', w']`.
    pub fn forward(&self, x_bcdhw: Tensor<5>) -> Tensor<5> {
        let g = &self.geometry;
        let options = ConvOptions::new([g.stride; 3], [g.padding; 3], [g.dilation; 3], g.groups);
        conv3d(x_bcdhw, self.weight.val(), self.bias.as_ref().map(Param::val), options)
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
        let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
        conv_transpose2d(x_bchw, self.weight.val(), Some(self.bias.val()), options)
    }
}

/// Transposed 2x2x2 convolution of stride 2 with bias: doubles depth, height and width.
#[derive(Module, Debug)]
pub struct ConvTranspose3d {
    /// `[input, output, 2, 2, 2]`.
    pub weight: Param<Tensor<5>>,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
}

impl ConvTranspose3d {
    /// `input` to `output` channels; see [`ConvTranspose2d::init`].
    pub fn init(input: usize, output: usize, device: &Device, rng: &mut impl Rng) -> Self {
        let fan_in = output * 8;
        Self {
            weight: uniform([input, output, 2, 2, 2], fan_in, device, rng),
            bias: uniform([output], fan_in, device, rng),
        }
    }

    /// # Shapes
    /// - `x_bcdhw`: `[b, input, d, h, w]`; returns `[b, output, 2d, 2h, 2w]`.
    pub fn forward(&self, x_bcdhw: Tensor<5>) -> Tensor<5> {
        let options = ConvTransposeOptions::new([2; 3], [0; 3], [0; 3], [1; 3], 1);
        conv_transpose3d(x_bcdhw, self.weight.val(), Some(self.bias.val()), options)
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
