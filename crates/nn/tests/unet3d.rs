//! The 3-D U-Net against PyTorch (`goldens/unet3d.py`): parameters, logits of all heads, gradients; its geometry.

mod common;
#[path = "common/summary.rs"]
mod summary;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{Lcg, fill};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Deserialize;
use summary::{Summary, check_gradients, values};
use trimtab_nn::layers::Activation::Identity;
use trimtab_nn::layers::InstanceNorm;
use trimtab_nn::models::unet3d::{Down, GROUPS, UNet3dConfig, group_of};
use trimtab_nn::params;

#[derive(Deserialize)]
struct Golden {
    base_32: BTreeMap<usize, u64>,
    cases: Vec<Case>,
}
#[derive(Deserialize)]
struct Case {
    input: usize,
    output: usize,
    base: usize,
    strides: Vec<[usize; 3]>,
    cap: usize,
    convolutions: usize,
    affine: bool,
    bias: bool,
    slope: f32,
    strided: bool,
    deep: usize,
    size: [usize; 3],
    parameters: u64,
    logits: Vec<Logits>,
    gradients: BTreeMap<String, Summary>,
}
#[derive(Deserialize)]
struct Logits {
    shape: [usize; 5],
    #[serde(flatten)]
    summary: Summary,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../goldens/unet3d.json")).unwrap()
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

#[test]
fn base_32_and_depth_5_have_90_474_209_parameters() {
    for (depth, expected) in [(5, 90_474_209), (4, 22_575_329)] {
        let net = UNet3dConfig::new(1, 1, 32, depth).init(&Device::flex(), &mut rng());
        let counts = params::parameter_counts(&net, group_of);
        assert_eq!(counts.values().sum::<u64>(), expected, "depth {depth}");
        assert_eq!(golden().base_32[&depth], expected, "PyTorch's, depth {depth}");
        assert!(GROUPS.iter().all(|group| counts.contains_key(*group)));
    }
}

#[test]
fn logits_of_all_heads_and_gradients_equal_pytorchs() {
    for case in golden().cases {
        let config = UNet3dConfig {
            most_channels: case.cap,
            strides: case.strides.clone(),
            convolutions: case.convolutions,
            affine: case.affine,
            bias: case.bias,
            slope: case.slope,
            down: if case.strided { Down::Strided } else { Down::MaxPool },
            deep_supervision: case.deep,
            ..UNet3dConfig::new(case.input, case.output, case.base, 0)
        };
        let device = Device::flex().autodiff();
        let net = fill(config.init(&device, &mut rng()), 1);
        assert_eq!(params::parameter_counts(&net, group_of).values().sum::<u64>(), case.parameters);
        let [d, h, w] = case.size;
        let x = Lcg(2).tensor([2, case.input, d, h, w], &device);
        let logits = net.forward_deep(x.clone());
        assert_eq!(values(net.forward(x).inner()), values(logits[0].clone().inner()));
        assert_eq!(logits.len(), case.logits.len());
        let mut weights = Lcg(3);
        let mut loss = Tensor::zeros([1], &device);
        for (level, (ours, theirs)) in logits.into_iter().zip(&case.logits).enumerate() {
            assert_eq!(ours.dims(), theirs.shape);
            theirs.summary.check(ours.clone().inner(), 1e-4, &format!("logits of head {level}"));
            loss = loss + (ours * weights.tensor(theirs.shape, &device)).sum();
        }
        check_gradients(&params::gradients(&net, loss.backward()), &case.gradients);
    }
}

#[test]
fn thin_volumes_keep_their_depth_where_the_strides_say_so() {
    let config = UNet3dConfig {
        strides: vec![[1, 2, 2], [1, 2, 2], [2, 2, 2]],
        most_channels: 7,
        deep_supervision: 9,
        ..UNet3dConfig::new(1, 2, 2, 0)
    };
    assert_eq!(config.divisors(), [2, 8, 8]);
    for down in [Down::MaxPool, Down::Strided] {
        let net = UNet3dConfig { down, ..config.clone() }.init(&Device::flex(), &mut rng());
        let shapes: Vec<_> = net
            .forward_deep(Tensor::ones([1, 1, 2, 16, 8], &Device::flex()))
            .iter()
            .map(Tensor::dims)
            .collect();
        // Heads at the levels of the decoder only, however many are asked for.
        assert_eq!(shapes, [[1, 2, 2, 16, 8], [1, 2, 2, 8, 4], [1, 2, 2, 4, 2]]);
    }
}

#[test]
fn no_downsampling_is_a_chain_of_convolutions() {
    let config = UNet3dConfig { deep_supervision: 2, ..UNet3dConfig::new(1, 2, 2, 0) };
    assert_eq!(config.divisors(), [1; 3]);
    let net = config.init(&Device::flex(), &mut rng());
    let logits = net.forward_deep(Tensor::ones([1, 1, 3, 5, 7], &Device::flex()));
    assert_eq!(logits.iter().map(Tensor::dims).collect::<Vec<_>>(), [[1, 2, 3, 5, 7]]);
}

#[test]
fn instance_norm_without_scale_has_no_parameters_and_a_single_voxel_becomes_zero() {
    let device = Device::flex().autodiff();
    let plain = InstanceNorm::init(2, false, &device);
    assert!(params::flat(&plain).is_empty());
    let x = Tensor::<5>::ones([1, 2, 1, 1, 1], &device).require_grad();
    let y = plain.forward(x.clone(), Identity);
    assert_eq!(values(y.clone().inner()), [0.0; 2]);
    assert_eq!(values(x.grad(&y.sum().backward()).unwrap()), [0.0; 2]);
    let affine = InstanceNorm::init(2, true, &device);
    assert_eq!(params::flat(&affine).keys().collect::<Vec<_>>(), ["bias", "weight"]);
}

#[test]
fn a_frozen_encoder_takes_no_gradients() {
    let device = Device::flex().autodiff();
    let net = UNet3dConfig::new(1, 1, 2, 1).init(&device, &mut rng()).set_encoder_frozen(true);
    let loss = net.forward(Lcg(1).tensor([1, 1, 4, 4, 4], &device)).powf_scalar(2.0).mean();
    let trained = params::gradients(&net, loss.backward());
    assert!(trained.keys().all(|path| group_of(path) != "encoder") && !trained.is_empty());
}
