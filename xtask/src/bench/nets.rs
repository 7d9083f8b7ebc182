//! The networks of the benchmark: those of `benches/kernels_torch.py`, on Trimtab's layers.

use burn::module::{Module, Param};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use trimtab_kernels::tensor::{gelu, join_channels, max_pool2d, max_pool3d, scaled_residual};
use trimtab_nn::layers::Activation::{Identity, Relu};
use trimtab_nn::layers::{
    BatchNorm2d, Conv2d, Conv3d, ConvConfig, ConvTranspose3d, GroupNorm, LayerNormChannels, activation,
};

/// Three-dimensional U-Net with instance norm: items e and E.
#[derive(Module, Debug)]
pub struct UNet3d {
    encoder: Vec<DoubleConv3d>,
    up: Vec<ConvTranspose3d>,
    decoder: Vec<DoubleConv3d>,
    head: Conv3d,
}

#[derive(Module, Debug)]
struct DoubleConv3d {
    conv1: Conv3d,
    norm1: GroupNorm,
    conv2: Conv3d,
    norm2: GroupNorm,
}

impl DoubleConv3d {
    fn init(input: usize, output: usize, device: &Device, rng: &mut ChaCha8Rng) -> Self {
        Self {
            conv1: ConvConfig::same(input, output, 3).init3d(device, rng),
            norm1: GroupNorm::init(output, output, device),
            conv2: ConvConfig::same(output, output, 3).init3d(device, rng),
            norm2: GroupNorm::init(output, output, device),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let x = self.norm1.forward(self.conv1.forward(x), Relu);
        self.norm2.forward(self.conv2.forward(x), Relu)
    }
}

impl UNet3d {
    pub fn init(base: usize, depth: usize, device: &Device, rng: &mut ChaCha8Rng) -> Self {
        let width: Vec<usize> = (0..=depth).map(|level| base << level).collect();
        let input = |l: usize| if l == 0 { 1 } else { width[l - 1] };
        Self {
            encoder: (0..=depth).map(|l| DoubleConv3d::init(input(l), width[l], device, rng)).collect(),
            up: (0..depth).map(|l| ConvTranspose3d::init(width[l + 1], width[l], device, rng)).collect(),
            decoder: (0..depth).map(|l| DoubleConv3d::init(width[l + 1], width[l], device, rng)).collect(),
            head: ConvConfig::same(base, 1, 1).init3d(device, rng),
        }
    }

    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let mut levels = vec![self.encoder[0].forward(x)];
        for block in &self.encoder[1..] {
            let x = max_pool3d(levels[levels.len() - 1].clone(), MaxPoolOptions::new([2; 3]));
            levels.push(block.forward(x));
        }
        let mut y = levels.pop().expect("at least one level");
        for (level, skip) in levels.into_iter().enumerate().rev() {
            y = self.decoder[level].forward(join_channels(skip, self.up[level].forward(y)));
        }
        self.head.forward(y)
    }
}

/// Three blocks of EdgeNeXt's convolutional encoder: item X.
#[derive(Module, Debug)]
pub struct EdgeNext {
    blocks: Vec<EdgeNextBlock>,
}

#[derive(Module, Debug)]
struct EdgeNextBlock {
    depthwise: Conv2d,
    norm: LayerNormChannels,
    widen: Conv2d,
    narrow: Conv2d,
    gamma: Param<Tensor<1>>,
}

impl EdgeNext {
    pub fn init(channels: usize, kernels: &[usize], device: &Device, rng: &mut ChaCha8Rng) -> Self {
        let block = |&kernel: &usize| EdgeNextBlock {
            depthwise: ConvConfig { groups: channels, ..ConvConfig::same(channels, channels, kernel) }
                .init2d(device, rng),
            norm: LayerNormChannels::init(channels, 1e-6, device),
            widen: ConvConfig::same(channels, 4 * channels, 1).init2d(device, rng),
            narrow: ConvConfig::same(4 * channels, channels, 1).init2d(device, rng),
            gamma: Param::from_tensor(Tensor::full([channels], 1e-6, device)),
        };
        Self { blocks: kernels.iter().map(block).collect() }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.blocks.iter().fold(x, |x, block| {
            let y = block.norm.forward(block.depthwise.forward(x.clone()));
            let y = block.narrow.forward(gelu(block.widen.forward(y)));
            scaled_residual(x, y, block.gamma.val())
        })
    }
}

/// Stem and four bottlenecks of a dilated ResNet: item R.
#[derive(Module, Debug)]
pub struct DilatedResNet {
    stem: Conv2d,
    norm: BatchNorm2d,
    blocks: Vec<Bottleneck>,
}

#[derive(Module, Debug)]
struct Bottleneck {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
    conv3: Conv2d,
    norm3: BatchNorm2d,
    shortcut: Option<Conv2d>,
    shortcut_norm: Option<BatchNorm2d>,
}

impl DilatedResNet {
    pub fn init(device: &Device, rng: &mut ChaCha8Rng) -> Self {
        let stem = ConvConfig { stride: 2, bias: false, ..ConvConfig::same(3, 64, 7) }.init2d(device, rng);
        let blocks = [(64, 64, 1, 1), (256, 128, 2, 1), (512, 128, 1, 2), (512, 128, 1, 4)];
        Self {
            stem,
            norm: BatchNorm2d::init(64, device),
            blocks: blocks.map(|(i, w, s, d)| Bottleneck::init(i, w, s, d, device, rng)).into(),
        }
    }

    pub fn forward_train(&mut self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm.forward_train(self.stem.forward(x), Relu);
        let x = max_pool2d(
            x,
            MaxPoolOptions { stride: [2; 2], padding: [(1, 1); 2], ..MaxPoolOptions::new([3; 2]) },
        );
        self.blocks.iter_mut().fold(x, |x, block| block.forward_train(x))
    }
}

impl Bottleneck {
    fn init(
        input: usize,
        width: usize,
        stride: usize,
        dilation: usize,
        device: &Device,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let output = 4 * width;
        let mut conv = |config: ConvConfig| ConvConfig { bias: false, ..config }.init2d(device, rng);
        let norm = |channels| BatchNorm2d::init(channels, device);
        let changes = input != output || stride != 1;
        Self {
            conv1: conv(ConvConfig::same(input, width, 1)),
            norm1: norm(width),
            conv2: conv(ConvConfig {
                stride,
                padding: dilation,
                dilation,
                ..ConvConfig::same(width, width, 3)
            }),
            norm2: norm(width),
            conv3: conv(ConvConfig::same(width, output, 1)),
            norm3: norm(output),
            shortcut: changes.then(|| conv(ConvConfig { stride, ..ConvConfig::same(input, output, 1) })),
            shortcut_norm: changes.then(|| norm(output)),
        }
    }

    fn forward_train(&mut self, x: Tensor<4>) -> Tensor<4> {
        let y = self.norm1.forward_train(self.conv1.forward(x.clone()), Relu);
        let y = self.norm2.forward_train(self.conv2.forward(y), Relu);
        let y = self.norm3.forward_train(self.conv3.forward(y), Identity);
        let x = match (&self.shortcut, &mut self.shortcut_norm) {
            (Some(conv), Some(norm)) => norm.forward_train(conv.forward(x), Identity),
            _ => x,
        };
        activation(x + y, Relu)
    }
}
