//! 3-D U-Net, Çiçek et al. 2016, <https://arxiv.org/abs/1606.06650>, with instance norm and leaky ReLU as nnU-Net has them
//! (Isensee et al. 2021, <https://www.nature.com/articles/s41592-020-01008-z>): (Conv3^3, InstanceNorm, LeakyReLU) x n a level,
//! max pooling or strided convolutions down, transposed convolutions up, 1^3 heads.
//!
//! Axes: b = batch, c = channel, d/h/w = depth/rows/columns.

use burn::module::Module;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use trimtab_kernels::tensor::{join_channels, max_pool3d};

use crate::layers::{Activation, Conv3d, ConvConfig, ConvTranspose3d, InstanceNorm};
use crate::params::set_trainable;

/// How a [`UNet3d`] gets from a level to the next smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Max pooling by the stride.
    MaxPool,
    /// The first convolution of the smaller level has the stride, as nnU-Net's.
    Strided,
}

/// What a [`UNet3d`] is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct UNet3dConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels (logits).
    pub output: usize,
    /// Channels of the first level; doubled at each downsampling.
    pub base: usize,
    /// Channels at most (nnU-Net: 320).
    pub most_channels: usize,
    /// Stride (depth, rows, columns) of each downsampling, the first one first: `[1, 2, 2]` leaves thin volumes their depth.
    pub strides: Vec<[usize; 3]>,
    /// Convolutions of a block, at least 1.
    pub convolutions: usize,
    /// Whether the norms have scale and shift.
    pub affine: bool,
    /// Whether the convolutions of the blocks have a bias (which the norm after them makes idle). Transposed convolutions
    /// and heads always have one.
    pub bias: bool,
    /// Slope of the leaky ReLU below 0, in 0..=1.
    pub slope: f32,
    /// Downsampling.
    pub down: Down,
    /// Heads at further decoder levels, from the second largest; fewer than the downsamplings.
    pub deep_supervision: usize,
}

impl UNet3dConfig {
    /// Two convolutions a block, halving by max pooling, bias, norms that are not affine, slope 0.01, no limit of channels,
    /// no deep supervision: with base 32 and depth 5, 90,474,209 parameters at 1 in, 1 out (depth 4: 22,575,329).
    pub fn new(input: usize, output: usize, base: usize, depth: usize) -> Self {
        Self {
            input,
            output,
            base,
            most_channels: usize::MAX,
            strides: vec![[2; 3]; depth],
            convolutions: 2,
            affine: false,
            bias: true,
            slope: 0.01,
            down: Down::MaxPool,
            deep_supervision: 0,
        }
    }

    /// Depth, rows and columns of an input must be multiples of these.
    pub fn divisors(&self) -> [usize; 3] {
        let product = |axis: usize| self.strides.iter().map(|stride| stride[axis]).product();
        [product(0), product(1), product(2)]
    }

    /// Channels of a level, 0 being the largest.
    fn channels(&self, level: usize) -> usize {
        let doubled = u32::try_from(level).ok().and_then(|level| 2usize.checked_pow(level));
        doubled.and_then(|factor| self.base.checked_mul(factor)).unwrap_or(usize::MAX).min(self.most_channels)
    }

    /// A network with weights drawn as PyTorch's defaults, from `rng`.
    pub fn init(&self, device: &Device, rng: &mut impl Rng) -> UNet3d {
        let depth = self.strides.len();
        let block = |input, output, stride, rng: &mut _| self.block(input, output, stride, device, rng);
        let mut encoder = vec![block(self.input, self.channels(0), [1; 3], rng)];
        for (level, stride) in self.strides.iter().enumerate() {
            let stride = if self.down == Down::Strided { *stride } else { [1; 3] };
            encoder.push(block(self.channels(level), self.channels(level + 1), stride, rng));
        }
        let up = (0..depth).map(|l| {
            ConvTranspose3d::init_by_axis(
                self.channels(l + 1),
                self.channels(l),
                self.strides[l],
                device,
                rng,
            )
        });
        let up = up.collect();
        let decoder =
            (0..depth).map(|l| block(2 * self.channels(l), self.channels(l), [1; 3], rng)).collect();
        let mut head = |l| ConvConfig::same(self.channels(l), self.output, 1).init3d(device, rng);
        UNet3d {
            encoder,
            up,
            decoder,
            head: head(0),
            deep: (1..depth).take(self.deep_supervision).map(head).collect(),
            pools: if self.down == Down::MaxPool { self.strides.clone() } else { Vec::new() },
        }
    }

    fn block(
        &self,
        input: usize,
        output: usize,
        stride: [usize; 3],
        device: &Device,
        rng: &mut impl Rng,
    ) -> Block {
        let conv = (0..self.convolutions).map(|i| {
            let (input, stride) = if i == 0 { (input, stride) } else { (output, [1; 3]) };
            let config = ConvConfig { bias: self.bias, ..ConvConfig::same(input, output, 3) };
            config.init3d_by_axis([3; 3], stride, device, rng)
        });
        Block {
            conv: conv.collect(),
            norm: (0..self.convolutions).map(|_| InstanceNorm::init(output, self.affine, device)).collect(),
            slope: self.slope,
        }
    }
}

/// See the module's head. The last of `encoder` is the bottleneck; `up.l` and `decoder.l` lead from level `l + 1` to level
/// `l`; `head` reads level 0, `deep.i` level `i + 1`.
#[derive(Module, Debug)]
pub struct UNet3d {
    encoder: Vec<Block>,
    up: Vec<ConvTranspose3d>,
    decoder: Vec<Block>,
    head: Conv3d,
    deep: Vec<Conv3d>,
    /// Of each downsampling by pooling; empty where convolutions do it.
    #[module(skip)]
    pools: Vec<[usize; 3]>,
}

impl UNet3d {
    /// # Shapes
    /// - `x_bcdhw`: `[b, input, d, h, w]`, sizes multiples of [`UNet3dConfig::divisors`]; returns logits
    ///   `[b, output, d, h, w]`.
    pub fn forward(&self, x_bcdhw: Tensor<5>) -> Tensor<5> {
        self.head.forward(self.decode(x_bcdhw, |_, _| ()))
    }

    /// The logits of every head, the full resolution first, then those of deep supervision, each smaller than the one before
    /// by the stride between them. Otherwise as [`Self::forward`].
    pub fn forward_deep(&self, x_bcdhw: Tensor<5>) -> Vec<Tensor<5>> {
        let mut logits = Vec::new();
        let finest = self.decode(x_bcdhw, |level, y| {
            logits.extend(self.deep.get(level.wrapping_sub(1)).map(|head| head.forward(y.clone())));
        });
        logits.push(self.head.forward(finest));
        logits.reverse();
        logits
    }

    /// The decoder's features of level 0; `each(level, features)` sees those of every level on the way, the smallest first.
    fn decode(&self, x_bcdhw: Tensor<5>, mut each: impl FnMut(usize, &Tensor<5>)) -> Tensor<5> {
        let mut y = self.encoder[0].forward(x_bcdhw);
        let mut skips = Vec::new();
        for (level, block) in self.encoder[1..].iter().enumerate() {
            skips.push(y.clone());
            if let Some(pool) = self.pools.get(level) {
                y = max_pool3d(y, MaxPoolOptions { stride: *pool, ..MaxPoolOptions::new(*pool) });
            }
            y = block.forward(y);
        }
        for (level, skip) in skips.into_iter().enumerate().rev() {
            y = self.decoder[level].forward(join_channels(skip, self.up[level].forward(y)));
            each(level, &y);
        }
        y
    }

    /// Whether convolutions compute in bf16. Weights, norms, gradients and logits are f32 all the same.
    pub fn with_half(mut self, half: bool) -> Self {
        let blocks = self.encoder.iter_mut().chain(&mut self.decoder).flat_map(|block| &mut block.conv);
        blocks.chain(&mut self.deep).chain([&mut self.head]).for_each(|conv| conv.half = half);
        self.up.iter_mut().for_each(|up| up.half = half);
        self
    }

    /// Freezes or thaws the encoder: no gradients.
    pub fn set_encoder_frozen(mut self, frozen: bool) -> Self {
        self.encoder = set_trainable(self.encoder, !frozen);
        self
    }
}

/// Group of the parameter at `path`: `encoder`, `decoder` (with the upsampling) or `head`.
pub fn group_of(path: &str) -> &'static str {
    match path.split('.').next() {
        Some("encoder") => "encoder",
        Some("head" | "deep") => "head",
        _ => "decoder",
    }
}

/// The groups [`group_of`] tells apart.
pub const GROUPS: [&str; 3] = ["encoder", "decoder", "head"];

/// (Convolution, norm, leaky ReLU) several times.
#[derive(Module, Debug)]
struct Block {
    conv: Vec<Conv3d>,
    norm: Vec<InstanceNorm>,
    #[module(skip)]
    slope: f32,
}

impl Block {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let layers = self.conv.iter().zip(&self.norm);
        layers.fold(x, |x, (conv, norm)| norm.forward(conv.forward(x), Activation::LeakyRelu(self.slope)))
    }
}
