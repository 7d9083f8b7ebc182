//! U-Net, Ronneberger et al. 2015, <https://arxiv.org/abs/1505.04597>, with padding and batch norm: four downsamplings,
//! (Conv3x3 + bias, BN, ReLU) x 2 a level, transposed 2x2 convolutions up, 1x1 head.

use burn::module::Module;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use trimtab_kernels::tensor::{join_channels, max_pool2d};

use crate::layers::Activation::Relu;
use crate::layers::{BatchNorm2d, Conv2d, ConvConfig, ConvTranspose2d};
use crate::params::set_trainable;

/// Number of downsamplings; inputs must be multiples of [`STRIDE`].
pub const DEPTH: usize = 4;
/// Height and width of an input must be multiples of this.
pub const STRIDE: usize = 1 << DEPTH;

/// Width of a [`UNet2d`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UNet2dConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels (logits).
    pub output: usize,
    /// Channels of the first level; doubled at each downsampling. 64 gives 31,042,369 parameters at 1 in, 1 out.
    pub base: usize,
}

impl UNet2dConfig {
    /// A network with weights drawn as PyTorch's defaults, from `rng`.
    pub fn init(&self, device: &Device, rng: &mut impl Rng) -> UNet2d {
        let width: Vec<usize> = (0..=DEPTH).map(|level| self.base << level).collect();
        let encoder = (0..=DEPTH)
            .map(|l| DoubleConv::init(if l == 0 { self.input } else { width[l - 1] }, width[l], device, rng))
            .collect();
        let up = (0..DEPTH).map(|l| ConvTranspose2d::init(width[l + 1], width[l], device, rng)).collect();
        let decoder = (0..DEPTH).map(|l| DoubleConv::init(width[l + 1], width[l], device, rng)).collect();
        let head = ConvConfig::same(self.base, self.output, 1).init2d(device, rng);
        UNet2d { encoder, up, decoder, head }
    }
}

/// See the module's head. `encoder.4` is the bottleneck; `up.l` and `decoder.l` lead from level `l + 1` to level `l`.
#[derive(Module, Debug)]
pub struct UNet2d {
    encoder: Vec<DoubleConv>,
    up: Vec<ConvTranspose2d>,
    decoder: Vec<DoubleConv>,
    head: Conv2d,
}

impl UNet2d {
    /// Inference, with the running statistics of the norms.
    ///
    /// # Shapes
    /// - `x_bchw`: `[b, input, h, w]`, h and w multiples of [`STRIDE`]; returns logits `[b, output, h, w]`.
    pub fn forward(&self, x_bchw: Tensor<4>) -> Tensor<4> {
        let mut levels = vec![self.encoder[0].forward(x_bchw)];
        for block in &self.encoder[1..] {
            levels.push(block.forward(halve(levels[levels.len() - 1].clone())));
        }
        let mut y = levels.pop().expect("the encoder has at least one level");
        for (level, skip) in levels.into_iter().enumerate().rev() {
            y = self.decoder[level].forward(join_channels(skip, self.up[level].forward(y)));
        }
        self.head.forward(y)
    }

    /// Training: the norms use the batch's statistics and update their running ones. Shapes as [`Self::forward`].
    pub fn forward_train(&mut self, x_bchw: Tensor<4>) -> Tensor<4> {
        let mut levels = vec![self.encoder[0].forward_train(x_bchw)];
        for block in &mut self.encoder[1..] {
            let x = halve(levels[levels.len() - 1].clone());
            levels.push(block.forward_train(x));
        }
        let mut y = levels.pop().expect("the encoder has at least one level");
        for (level, skip) in levels.into_iter().enumerate().rev() {
            let x = join_channels(skip, self.up[level].forward(y));
            y = self.decoder[level].forward_train(x);
        }
        self.head.forward(y)
    }

    /// Freezes or thaws the encoder: no gradients, and its norms neither use nor change by the batch.
    pub fn set_encoder_frozen(mut self, frozen: bool) -> Self {
        for block in &mut self.encoder {
            block.norm1.frozen = frozen;
            block.norm2.frozen = frozen;
        }
        self.encoder = set_trainable(self.encoder, !frozen);
        self
    }
}

/// Group of the parameter at `path`: `encoder`, `decoder` (with the upsampling) or `head`.
pub fn group_of(path: &str) -> &'static str {
    match path.split('.').next() {
        Some("encoder") => "encoder",
        Some("head") => "head",
        _ => "decoder",
    }
}

/// The groups [`group_of`] tells apart.
pub const GROUPS: [&str; 3] = ["encoder", "decoder", "head"];

#[derive(Module, Debug)]
struct DoubleConv {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
}

impl DoubleConv {
    fn init(input: usize, output: usize, device: &Device, rng: &mut impl Rng) -> Self {
        Self {
            conv1: ConvConfig::same(input, output, 3).init2d(device, rng),
            norm1: BatchNorm2d::init(output, device),
            conv2: ConvConfig::same(output, output, 3).init2d(device, rng),
            norm2: BatchNorm2d::init(output, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm1.forward(self.conv1.forward(x), Relu);
        self.norm2.forward(self.conv2.forward(x), Relu)
    }

    fn forward_train(&mut self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm1.forward_train(self.conv1.forward(x), Relu);
        self.norm2.forward_train(self.conv2.forward(x), Relu)
    }
}

fn halve(x: Tensor<4>) -> Tensor<4> {
    max_pool2d(x, MaxPoolOptions::new([2, 2]))
}
