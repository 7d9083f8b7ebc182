//! 3-D residual networks against PyTorch (`goldens/resnet3d.py`): parameters, logits, gradients, running statistics; their
//! heads, dropout, start and freezing.

mod common;
#[path = "common/summary.rs"]
mod summary;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{Lcg, fill};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Deserialize;
use summary::{Summary, check_gradients, values};
use trimtab_nn::layers::{NormedLinear, dropout};
use trimtab_nn::models::resnet3d::{Depth, GROUPS, ResNet3d, ResNet3dConfig, group_of};
use trimtab_nn::params;

#[derive(Deserialize)]
struct Golden {
    backbones: BTreeMap<u32, u64>,
    cases: Vec<Case>,
}
#[derive(Deserialize)]
struct Case {
    depth: u32,
    input: usize,
    classes: usize,
    width: usize,
    dilated: bool,
    cosine: bool,
    size: [usize; 3],
    eval: Vec<f64>,
    train: Vec<f64>,
    gradients: BTreeMap<String, Summary>,
    running: BTreeMap<String, Vec<f64>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../goldens/resnet3d.json")).unwrap()
}

fn depth(layers: u32) -> Depth {
    match layers {
        10 => Depth::D10,
        18 => Depth::D18,
        34 => Depth::D34,
        50 => Depth::D50,
        101 => Depth::D101,
        _ => panic!("{layers} layers"),
    }
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn small(normalised_head: bool, device: &Device) -> ResNet3d {
    let config = ResNet3dConfig { width: 2, normalised_head, ..ResNet3dConfig::new(Depth::D10, 1, 2) };
    config.init(device, &mut rng())
}

#[test]
fn resnet_50_has_46_155_072_parameters_and_its_plain_head_4_098() {
    let config = ResNet3dConfig { normalised_head: false, ..ResNet3dConfig::new(Depth::D50, 1, 2) };
    assert_eq!(config.features(), 2048);
    let counts = params::parameter_counts(&config.init(&Device::flex(), &mut rng()), group_of);
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [("backbone".to_owned(), 46_155_072), ("head".to_owned(), 4_098)]
    );
    let cosine = ResNet3dConfig { normalised_head: true, ..config };
    let counts = params::parameter_counts(&cosine.init(&Device::flex(), &mut rng()), group_of);
    assert_eq!(counts["head"], 4_096);
}

#[test]
fn the_other_depths_have_as_many_parameters_as_pytorchs() {
    for (layers, expected) in golden().backbones.into_iter().filter(|(layers, _)| ![50, 101].contains(layers))
    {
        let net = ResNet3dConfig::new(depth(layers), 1, 2).init(&Device::flex(), &mut rng());
        assert_eq!(params::parameter_counts(&net, group_of)["backbone"], expected, "{layers} layers");
    }
}

#[test]
fn logits_gradients_and_running_statistics_equal_pytorchs() {
    for case in golden().cases {
        let config = ResNet3dConfig {
            width: case.width,
            dilated: case.dilated,
            dropout: 0.0,
            normalised_head: case.cosine,
            ..ResNet3dConfig::new(depth(case.depth), case.input, case.classes)
        };
        let name = format!("ResNet-{}, {:?}", case.depth, case.size);
        let [d, h, w] = case.size;
        let shape = [2, case.input, d, h, w];
        let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
        let close = |ours: Vec<f64>, theirs: &[f64], what: &str| {
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!(
                    (ours - theirs).abs() < 1e-4 * theirs.abs().max(1.0),
                    "{name}, {what}: {ours} against {theirs}"
                );
            }
        };
        let net = fill(config.init(&plain, &mut rng()), 1);
        close(values(net.forward(Lcg(2).tensor(shape, &plain))), &case.eval, "inference");

        let mut net = fill(config.init(&tracked, &mut rng()), 1);
        let logits = net.forward_train(Lcg(2).tensor(shape, &tracked), &mut rng());
        let weights = Lcg(3).tensor(logits.dims(), &tracked);
        close(values(logits.clone().inner()), &case.train, "training");
        check_gradients(&params::gradients(&net, (logits * weights).sum().backward()), &case.gradients);
        let flat = params::flat(&net);
        for (path, expected) in &case.running {
            close(values(flat[path].clone()), expected, path);
        }
    }
}

#[test]
fn paths_are_those_of_medicalnet_with_a_classifier() {
    let config = ResNet3dConfig { width: 1, normalised_head: false, ..ResNet3dConfig::new(Depth::D50, 1, 2) };
    let flat = params::flat(&config.init(&Device::flex(), &mut rng()));
    for path in [
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_mean",
        "layer3.5.bn3.bias",
        "layer4.2.conv3.weight",
        "fc.weight",
        "fc.bias",
    ] {
        assert!(flat.contains_key(path), "{path}");
        assert!(GROUPS.contains(&group_of(path)));
    }
    assert!(!flat.contains_key("layer1.1.downsample.0.weight") && !flat.contains_key("conv1.bias"));
    let cosine = params::flat(&small(true, &Device::flex()));
    assert_eq!(cosine.keys().filter(|path| group_of(path) == "head").collect::<Vec<_>>(), ["cosine.weight"]);
}

#[test]
fn dilated_layers_keep_an_eighth_of_the_size_and_few_voxels_are_enough() {
    for dilated in [true, false] {
        let config = ResNet3dConfig { width: 1, dilated, ..ResNet3dConfig::new(Depth::D10, 3, 4) };
        let net = config.init(&Device::flex(), &mut rng());
        assert_eq!(net.forward(Tensor::ones([2, 3, 1, 5, 9], &Device::flex())).dims(), [2, 4]);
    }
}

#[test]
fn convolutions_start_from_a_normal_distribution_by_fan_out() {
    let config = ResNet3dConfig { width: 16, ..ResNet3dConfig::new(Depth::D10, 1, 2) };
    let flat = params::flat(&config.init(&Device::flex(), &mut rng()));
    let found = values(flat["layer3.0.conv2.weight"].clone());
    let n = found.len() as f64;
    let mean = found.iter().sum::<f64>() / n;
    let deviation = (found.iter().map(|v| v * v).sum::<f64>() / n - mean * mean).sqrt();
    let expected = (2.0 / (64.0 * 27.0f64)).sqrt();
    assert!((deviation / expected - 1.0).abs() < 0.02, "{deviation} against {expected}");
    assert!(mean.abs() < 3.0 * expected / n.sqrt(), "{mean}");
    // 68.3 % of a normal distribution lie within one deviation.
    let within = found.iter().filter(|v| v.abs() < expected).count() as f64 / n;
    assert!((within - 0.683).abs() < 0.01, "{within}");
}

#[test]
fn cosine_logits_know_no_lengths_and_stay_finite_at_zero() {
    let device = Device::flex().autodiff();
    let head = NormedLinear::init(5, 3, &device, &mut rng());
    let columns = values(head.weight.val().inner());
    for column in 0..3 {
        let squares: f64 = columns.iter().skip(column).step_by(3).map(|v| v * v).sum();
        assert!((squares - 1.0).abs() < 1e-5, "column {column} of length {}", squares.sqrt());
    }
    let x = Lcg(1).tensor([4, 5], &device);
    let [one, long] = [x.clone(), x * 1e3].map(|x| values(head.forward(x).inner()));
    for (a, b) in one.iter().zip(&long) {
        assert!((a - b).abs() < 1e-5 && a.abs() <= 1.0 + 1e-6, "{a} and {b}");
    }
    let zero = head.forward(Tensor::zeros([1, 5], &device));
    assert_eq!(values(zero.clone().inner()), [0.0; 3]);
    let gradient = head.weight.grad(&zero.sum().backward()).unwrap();
    assert!(values(gradient).iter().all(|v| v.is_finite()));
}

#[test]
fn dropout_follows_its_generator_and_keeps_the_mean() {
    let device = Device::flex();
    let drop = |seed: u64, rate: f64| {
        values(dropout(Tensor::<2>::ones([50, 40], &device), rate, &mut ChaCha8Rng::seed_from_u64(seed)))
    };
    assert_eq!(drop(1, 0.4), drop(1, 0.4));
    assert_ne!(drop(1, 0.4), drop(2, 0.4));
    let kept = drop(1, 0.4);
    let dropped = kept.iter().filter(|v| **v == 0.0).count();
    assert!((740..860).contains(&dropped), "{dropped} of 2000");
    assert!(kept.iter().all(|v| *v == 0.0 || (v - 1.0 / 0.6).abs() < 1e-6));
    assert_eq!(drop(1, 0.0), vec![1.0; 2000]);
    assert_eq!(drop(1, 1.0), vec![0.0; 2000]);
}

#[test]
fn a_frozen_backbone_neither_learns_nor_moves_its_statistics() {
    let device = Device::flex().autodiff();
    let mut net = small(false, &device).set_backbone_frozen(true);
    let before = params::flat(&net);
    let x = Lcg(5).tensor([2, 1, 16, 16, 16], &device);
    let step = |net: &mut ResNet3d| {
        let loss = net.forward_train(x.clone(), &mut rng()).powf_scalar(2.0).mean();
        params::gradients(net, loss.backward())
    };
    assert_eq!(step(&mut net).keys().collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
    for (path, value) in params::flat(&net) {
        assert_eq!(values(value), values(before[&path].clone()), "{path}");
    }
    let mut net = net.set_backbone_frozen(false);
    let trained = step(&mut net);
    assert!(trained.contains_key("conv1.weight") && trained.contains_key("layer4.0.downsample.1.bias"));
    assert!(trained.keys().all(|path| !params::is_buffer(path)));
    assert_ne!(
        values(params::flat(&net)["bn1.running_mean"].clone()),
        values(before["bn1.running_mean"].clone())
    );
}
