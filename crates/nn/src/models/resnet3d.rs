//! 3-D residual networks, He et al. 2016, <https://arxiv.org/abs/1512.03385>, as MedicalNet has them (Chen et al. 2019,
//! <https://arxiv.org/abs/1904.00625>, <https://github.com/Tencent/MedicalNet>), so that its weights load by name: stem 7^3 of
//! stride 2, batch norm, ReLU, max pool 3^3 of stride 2, four layers of blocks with shortcuts of type B and the stride in the
//! 3^3 convolution, then global average pooling, dropout and a classifier.
//!
//! Axes: b = batch, c = channel, d/h/w = depth/rows/columns, k = class.

use burn::module::Module;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use rand::Rng;
use trimtab_kernels::tensor::{adaptive_avg_pool3d, max_pool3d};

use crate::layers::Activation::{Identity, Relu};
use crate::layers::{BatchNorm, Conv3d, ConvConfig, Linear, NormedLinear, activation, dropout};
use crate::params::set_trainable;

/// Number of layers with weights, in the manner of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Basic blocks 1, 1, 1, 1.
    D10,
    /// Basic blocks 2, 2, 2, 2.
    D18,
    /// Basic blocks 3, 4, 6, 3.
    D34,
    /// Bottlenecks 3, 4, 6, 3.
    D50,
    /// Bottlenecks 3, 4, 23, 3.
    D101,
}

impl Depth {
    /// Blocks of each layer, and whether they are bottlenecks.
    fn blocks(self) -> ([usize; 4], bool) {
        match self {
            Self::D10 => ([1, 1, 1, 1], false),
            Self::D18 => ([2, 2, 2, 2], false),
            Self::D34 => ([3, 4, 6, 3], false),
            Self::D50 => ([3, 4, 6, 3], true),
            Self::D101 => ([3, 4, 23, 3], true),
        }
    }
}

/// What a [`ResNet3d`] is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResNet3dConfig {
    /// Number of layers.
    pub depth: Depth,
    /// Input channels (modalities).
    pub input: usize,
    /// Classes.
    pub classes: usize,
    /// Channels of the stem; 64 in all published networks.
    pub width: usize,
    /// Layers 3 and 4 with stride 1 and dilation 2 and 4, as MedicalNet was trained (an eighth of the input's size at the
    /// end); otherwise with stride 2 (a thirty-second).
    pub dilated: bool,
    /// Share of the pooled features that training drops, in 0..1.
    pub dropout: f64,
    /// Cosine logits in -1..=1 ([`NormedLinear`]) rather than those of a plain [`Linear`].
    pub normalised_head: bool,
}

impl ResNet3dConfig {
    /// Width 64, dilated, dropout 0.4, normalised head.
    pub fn new(depth: Depth, input: usize, classes: usize) -> Self {
        Self { depth, input, classes, width: 64, dilated: true, dropout: 0.4, normalised_head: true }
    }

    /// Length of the pooled features, the classifier's input.
    pub fn features(&self) -> usize {
        let expansion = if self.depth.blocks().1 { EXPANSION } else { 1 };
        self.width * 8 * expansion
    }

    /// A network with convolutions drawn from N(0, sqrt(2 / fan_out)), as MedicalNet, and the classifier as PyTorch's
    /// default or, normalised, as LDAM's authors; all from `rng`.
    pub fn init(&self, device: &Device, rng: &mut impl Rng) -> ResNet3d {
        let (blocks, bottleneck) = self.depth.blocks();
        let width = self.width;
        let stem = ConvConfig { stride: 2, bias: false, ..ConvConfig::same(self.input, width, 7) };
        let conv1 = stem.init3d_fan_out(device, rng);
        let mut input = width;
        let mut layer = |index: usize, rng: &mut _| {
            let (stride, dilation) = match (index, self.dilated) {
                (0, _) => (1, 1),
                (2, true) => (1, 2),
                (3, true) => (1, 4),
                _ => (2, 1),
            };
            let width = width << index;
            let blocks = (0..blocks[index]).map(|block| {
                let stride = if block == 0 { stride } else { 1 };
                let block = Block::init(input, width, stride, dilation, bottleneck, device, rng);
                input = block.output();
                block
            });
            blocks.collect()
        };
        let (layer1, layer2, layer3, layer4) = (layer(0, rng), layer(1, rng), layer(2, rng), layer(3, rng));
        let (features, classes) = (self.features(), self.classes);
        ResNet3d {
            conv1,
            bn1: BatchNorm::init(width, device),
            layer1,
            layer2,
            layer3,
            layer4,
            fc: (!self.normalised_head).then(|| Linear::init(features, classes, device, rng)),
            cosine: self.normalised_head.then(|| NormedLinear::init(features, classes, device, rng)),
            dropout: self.dropout,
        }
    }
}

/// Channels out of a bottleneck over those within.
const EXPANSION: usize = 4;

/// See the module's head. Parameter paths are MedicalNet's (`layer1.0.conv1.weight`, `layer1.0.downsample.0.weight`), with
/// the classifier as `fc` or, normalised, `cosine`.
#[derive(Module, Debug)]
pub struct ResNet3d {
    conv1: Conv3d,
    bn1: BatchNorm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    fc: Option<Linear>,
    cosine: Option<NormedLinear>,
    #[module(skip)]
    dropout: f64,
}

impl ResNet3d {
    /// Inference, with the running statistics of the norms and without dropout.
    ///
    /// # Shapes
    /// - `x_bcdhw`: `[b, input, d, h, w]`; returns logits (cosines, if the head is normalised) `[b, k]`.
    pub fn forward(&self, x_bcdhw: Tensor<5>) -> Tensor<2> {
        let mut x = pool(self.bn1.forward(self.conv1.forward(x_bcdhw), Relu));
        for block in [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten() {
            x = block.forward(x);
        }
        self.classify(features(x))
    }

    /// Training: the norms use the batch's statistics and update their running ones; the pooled features are dropped by
    /// `rng`. Shapes as [`Self::forward`].
    pub fn forward_train(&mut self, x_bcdhw: Tensor<5>, rng: &mut impl Rng) -> Tensor<2> {
        let mut x = pool(self.bn1.forward_train(self.conv1.forward(x_bcdhw), Relu));
        for block in self.backbone() {
            x = block.forward_train(x);
        }
        self.classify(dropout(features(x), self.dropout, rng))
    }

    /// Freezes or thaws all but the classifier: no gradients, and its norms neither use nor change by the batch.
    pub fn set_backbone_frozen(mut self, frozen: bool) -> Self {
        self.bn1.frozen = frozen;
        for block in self.backbone() {
            block.set_frozen(frozen);
        }
        self.conv1 = set_trainable(self.conv1, !frozen);
        self.bn1 = set_trainable(self.bn1, !frozen);
        self.layer1 = set_trainable(self.layer1, !frozen);
        self.layer2 = set_trainable(self.layer2, !frozen);
        self.layer3 = set_trainable(self.layer3, !frozen);
        self.layer4 = set_trainable(self.layer4, !frozen);
        self
    }

    /// Whether convolutions compute in bf16. Weights, norms, gradients and logits are f32 all the same.
    pub fn with_half(mut self, half: bool) -> Self {
        self.conv1.half = half;
        for block in self.backbone() {
            let downsample = block.downsample.as_mut().map(|(conv, _)| conv);
            let convs =
                [&mut block.conv1, &mut block.conv2].into_iter().chain(&mut block.conv3).chain(downsample);
            convs.for_each(|conv| conv.half = half);
        }
        self
    }

    fn backbone(&mut self) -> impl Iterator<Item = &mut Block> {
        [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4].into_iter().flatten()
    }

    fn classify(&self, features_bi: Tensor<2>) -> Tensor<2> {
        match (&self.fc, &self.cosine) {
            (Some(plain), _) => plain.forward(features_bi),
            (None, Some(cosine)) => cosine.forward(features_bi),
            (None, None) => features_bi,
        }
    }
}

/// Group of the parameter at `path`: `backbone` or `head`.
pub fn group_of(path: &str) -> &'static str {
    match path.split('.').next() {
        Some("fc" | "cosine") => "head",
        _ => "backbone",
    }
}

/// The groups [`group_of`] tells apart.
pub const GROUPS: [&str; 2] = ["backbone", "head"];

/// A basic block (two 3^3 convolutions) or a bottleneck (1^3, 3^3, 1^3).
#[derive(Module, Debug)]
struct Block {
    conv1: Conv3d,
    bn1: BatchNorm,
    conv2: Conv3d,
    bn2: BatchNorm,
    conv3: Option<Conv3d>,
    bn3: Option<BatchNorm>,
    downsample: Option<(Conv3d, BatchNorm)>,
}

impl Block {
    fn init(
        input: usize,
        width: usize,
        stride: usize,
        dilation: usize,
        bottleneck: bool,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Self {
        let output = if bottleneck { EXPANSION * width } else { width };
        let mut conv = |config: ConvConfig| ConvConfig { bias: false, ..config }.init3d_fan_out(device, rng);
        let norm = |channels| BatchNorm::init(channels, device);
        let wide = |input| ConvConfig { padding: dilation, dilation, ..ConvConfig::same(input, width, 3) };
        let strided = |config| ConvConfig { stride, ..config };
        let (conv1, conv2) = if bottleneck {
            (conv(ConvConfig::same(input, width, 1)), conv(strided(wide(width))))
        } else {
            (conv(strided(wide(input))), conv(wide(width)))
        };
        let changes = stride != 1 || input != output;
        Self {
            conv1,
            bn1: norm(width),
            conv2,
            bn2: norm(width),
            conv3: bottleneck.then(|| conv(ConvConfig::same(width, output, 1))),
            bn3: bottleneck.then(|| norm(output)),
            downsample: changes.then(|| (conv(strided(ConvConfig::same(input, output, 1))), norm(output))),
        }
    }

    /// Channels out.
    fn output(&self) -> usize {
        self.conv3.as_ref().unwrap_or(&self.conv2).weight.shape()[0]
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let y = self.bn1.forward(self.conv1.forward(x.clone()), Relu);
        let y = self.conv2.forward(y);
        let y = match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => bn3.forward(conv3.forward(self.bn2.forward(y, Relu)), Identity),
            _ => self.bn2.forward(y, Identity),
        };
        let x = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x), Identity),
            None => x,
        };
        activation(x + y, Relu)
    }

    fn forward_train(&mut self, x: Tensor<5>) -> Tensor<5> {
        let y = self.bn1.forward_train(self.conv1.forward(x.clone()), Relu);
        let y = self.conv2.forward(y);
        let y = match (&self.conv3, &mut self.bn3) {
            (Some(conv3), Some(bn3)) => {
                bn3.forward_train(conv3.forward(self.bn2.forward_train(y, Relu)), Identity)
            }
            _ => self.bn2.forward_train(y, Identity),
        };
        let x = match &mut self.downsample {
            Some((conv, norm)) => norm.forward_train(conv.forward(x), Identity),
            None => x,
        };
        activation(x + y, Relu)
    }

    fn set_frozen(&mut self, frozen: bool) {
        let shortcut = self.downsample.as_mut().map(|(_, norm)| norm);
        let norms = [&mut self.bn1, &mut self.bn2].into_iter().chain(&mut self.bn3).chain(shortcut);
        norms.for_each(|norm| norm.frozen = frozen);
    }
}

fn pool(x: Tensor<5>) -> Tensor<5> {
    max_pool3d(x, MaxPoolOptions { stride: [2; 3], padding: [(1, 1); 3], ..MaxPoolOptions::new([3; 3]) })
}

/// Mean over all positions: `[b, c, d, h, w]` to `[b, c]`.
fn features(x: Tensor<5>) -> Tensor<2> {
    let [b, c, ..] = x.dims();
    adaptive_avg_pool3d(x, [1; 3]).reshape([b, c])
}
