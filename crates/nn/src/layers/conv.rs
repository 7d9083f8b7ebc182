//! Convolutions with PyTorch's names, shapes and initial distribution.

use burn::module::{Module, Param};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{DType, Device, Tensor};
use rand::Rng;
use trimtab_kernels::tensor::{conv_transpose2d, conv_transpose3d, conv2d, conv3d};

use super::init::{normal, uniform};

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
        let kernel = [self.kernel; 3];
        let (weight, bias) = self.draw(self.weight3d(kernel), device, rng);
        Conv3d { weight, bias, geometry: self.geometry3d(), half: false }
    }

    /// As [`Self::init3d`] with kernel and stride by axis (depth, height, width), for volumes whose voxels are no cubes.
    /// `kernel`, `stride` and `padding` of `self` are not used: the padding is `dilation (kernel - 1) / 2`.
    pub fn init3d_by_axis(
        &self,
        kernel: [usize; 3],
        stride: [usize; 3],
        device: &Device,
        rng: &mut impl Rng,
    ) -> Conv3d {
        let (weight, bias) = self.draw(self.weight3d(kernel), device, rng);
        let padding = kernel.map(|k| self.dilation * (k.max(1) - 1) / 2);
        Conv3d { weight, bias, geometry: Geometry3d { stride, padding, ..self.geometry3d() }, half: false }
    }

    /// As [`Self::init3d`] with weights from N(0, sqrt(2 / (output kernel^3))), `kaiming_normal_` with `fan_out` (He et al.
    /// 2015, <https://arxiv.org/abs/1502.01852>): the start of residual networks. The bias, if any, is 0.
    pub fn init3d_fan_out(&self, device: &Device, rng: &mut impl Rng) -> Conv3d {
        let shape = self.weight3d([self.kernel; 3]);
        let deviation = (2.0 / (self.output * self.kernel.pow(3)).max(1) as f64).sqrt();
        Conv3d {
            weight: normal(shape, deviation, device, rng),
            bias: self.bias.then(|| Param::from_tensor(Tensor::zeros([self.output], device))),
            geometry: self.geometry3d(),
            half: false,
        }
    }

    fn weight3d(&self, [d, h, w]: [usize; 3]) -> [usize; 5] {
        [self.output, self.input / self.groups, d, h, w]
    }

    fn geometry3d(&self) -> Geometry3d {
        Geometry3d {
            stride: [self.stride; 3],
            padding: [self.padding; 3],
            dilation: [self.dilation; 3],
            groups: self.groups,
        }
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
    /// `[output, input / groups, kernel...]`.
    pub weight: Param<Tensor<5>>,
    /// `[output]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    geometry: Geometry3d,
    /// Whether to compute in bf16; weights, gradients and the result are f32 all the same.
    #[module(skip)]
    pub half: bool,
}

/// What a [`Conv3d`] needs beside its weights, by axis: depth, height, width.
#[derive(Debug, Clone, Copy)]
struct Geometry3d {
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
}

impl Conv3d {
    /// # Shapes
    /// - `x_bcdhw`: `[b, input, d, h, w]`; returns `[b, output, d', h', w']`.
    pub fn forward(&self, x_bcdhw: Tensor<5>) -> Tensor<5> {
        let g = &self.geometry;
        let options = ConvOptions::new(g.stride, g.padding, g.dilation, g.groups);
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        if !self.half {
            return conv3d(x_bcdhw, weight, bias, options);
        }
        let y = conv3d(x_bcdhw.cast(DType::BF16), weight.cast(DType::BF16), None, options).cast(DType::F32);
        match bias {
            Some(bias) => y + bias.reshape([1, -1, 1, 1, 1]),
            None => y,
        }
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

/// Transposed convolution with bias whose kernel is its stride: enlarges depth, height and width by whole factors.
#[derive(Module, Debug)]
pub struct ConvTranspose3d {
    /// `[input, output, stride...]`.
    pub weight: Param<Tensor<5>>,
    /// `[output]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    stride: [usize; 3],
    /// As [`Conv3d::half`].
    #[module(skip)]
    pub half: bool,
}

impl ConvTranspose3d {
    /// `input` to `output` channels, twice the size; see [`ConvTranspose2d::init`].
    pub fn init(input: usize, output: usize, device: &Device, rng: &mut impl Rng) -> Self {
        Self::init_by_axis(input, output, [2; 3], device, rng)
    }

    /// As [`Self::init`] with a factor for each axis: depth, height, width.
    pub fn init_by_axis(
        input: usize,
        output: usize,
        stride: [usize; 3],
        device: &Device,
        rng: &mut impl Rng,
    ) -> Self {
        let [d, h, w] = stride;
        let fan_in = output * d * h * w;
        Self {
            weight: uniform([input, output, d, h, w], fan_in, device, rng),
            bias: uniform([output], fan_in, device, rng),
            stride,
            half: false,
        }
    }

    /// # Shapes
    /// - `x_bcdhw`: `[b, input, d, h, w]`; returns `[b, output, ...]`, each axis times its factor.
    pub fn forward(&self, x_bcdhw: Tensor<5>) -> Tensor<5> {
        let options = ConvTransposeOptions::new(self.stride, [0; 3], [0; 3], [1; 3], 1);
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !self.half {
            return conv_transpose3d(x_bcdhw, weight, Some(bias), options);
        }
        let (x, weight) = (x_bcdhw.cast(DType::BF16), weight.cast(DType::BF16));
        conv_transpose3d(x, weight, None, options).cast(DType::F32) + bias.reshape([1, -1, 1, 1, 1])
    }
}
