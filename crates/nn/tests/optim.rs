//! Optimizers and the plateau against `torch.optim` (`goldens/optimizers.py`), their states and the sizes of their updates.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;
use trimtab_nn::optim::{AdamConfig, AdamWConfig, Optimizer, SgdConfig};
use trimtab_nn::params::{self, Flat};
use trimtab_nn::plateau::{Better, Plateau, PlateauConfig, PlateauState};

#[derive(Deserialize)]
struct Golden {
    updates: BTreeMap<String, Updates>,
    plateau: Vec<PlateauCase>,
}
#[derive(Deserialize)]
struct Updates {
    constants: serde_json::Value,
    after: Vec<Vec<f64>>,
}
#[derive(Deserialize)]
struct PlateauCase {
    mode: String,
    factor: f64,
    patience: u64,
    threshold: f64,
    min: f64,
    metrics: Vec<f64>,
    rates: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../goldens/optimizers.json")).unwrap()
}

#[derive(Module, Debug)]
struct Net {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

/// As `goldens/optimizers.py` begins, with the numbers of `goldens/unet2d.py`.
fn net() -> Net {
    let mut state = 1u64;
    let mut next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let bias: Vec<f32> = (0..3).map(&mut next).collect();
    let weight: Vec<f32> = (0..162).map(&mut next).collect();
    Net {
        weight: Param::from_data(TensorData::new(weight, [3, 54]), &Device::flex()),
        bias: Param::from_data(TensorData::new(bias, [3]), &Device::flex()),
    }
}

fn optimizer(name: &str, c: &serde_json::Value) -> Optimizer {
    let number = |key: &str, otherwise: f64| c[key].as_f64().unwrap_or(otherwise);
    let beta = |i: usize, otherwise: f64| c["betas"][i].as_f64().unwrap_or(otherwise);
    let (beta1, beta2, epsilon) = (beta(0, 0.9), beta(1, 0.999), number("eps", 1e-8));
    match name.split(' ').next() {
        Some("adam") => {
            let weight_decay = number("weight_decay", AdamConfig::default().weight_decay);
            Optimizer::adam(AdamConfig { beta1, beta2, epsilon, weight_decay })
        }
        Some("adamw") => {
            let weight_decay = number("weight_decay", AdamWConfig::default().weight_decay);
            Optimizer::adamw(AdamWConfig { beta1, beta2, epsilon, weight_decay })
        }
        _ => Optimizer::sgd(SgdConfig {
            momentum: number("momentum", 0.0),
            dampening: number("dampening", 0.0),
            nesterov: c["nesterov"].as_bool().unwrap_or(false),
            weight_decay: number("weight_decay", 0.0),
        }),
    }
}

fn gradients(net: &Net) -> Flat {
    let slope = |p: Tensor<1>| (p.clone() * 3.0).sin() + p / 2.0;
    params::flat(net).into_iter().map(|(path, value)| (path, slope(value))).collect()
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().try_into_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn group_of(path: &str) -> &'static str {
    if path == "bias" { "bias" } else { "weight" }
}

#[test]
fn twenty_updates_equal_pytorchs_and_are_measured_right() {
    for (name, case) in golden().updates {
        let rate = case.constants["lr"].as_f64().unwrap();
        let rate_of = |path: &str| if path == "bias" { 10.0 * rate } else { rate };
        let mut optimizer = optimizer(&name, &case.constants);
        let mut net = net();
        for (step, expected) in case.after.iter().enumerate() {
            let before = params::flat(&net);
            let sizes;
            // Measured now and then: the update must not depend on it.
            let measured = step % 3 == 0;
            let slopes = gradients(&net);
            (net, sizes) = optimizer.step(net, slopes, rate_of, measured.then_some(group_of as _));
            let after = params::flat(&net);
            assert_eq!(sizes.len(), if measured { 2 } else { 0 });
            for (group, size) in sizes {
                let (old, new) = (values(before[group].clone()), values(after[group].clone()));
                let change: Vec<f64> = new.iter().zip(&old).map(|(new, old)| new - old).collect();
                assert!((size.update - length(&change)).abs() < 1e-5 * length(&change), "{name}, {group}");
                assert!((size.parameter - length(&old)).abs() < 1e-5 * length(&old), "{name}, {group}");
            }
            let mut found = vec![length(&values(after["weight"].clone()))];
            found.extend(values(after["bias"].clone()));
            for (ours, theirs) in found.iter().zip(expected) {
                assert!(
                    (ours - theirs).abs() < 1e-4 * theirs.abs().max(1.0),
                    "{name}, update {}: {ours} against {theirs}",
                    step + 1
                );
            }
        }
    }
}

#[test]
fn an_optimizer_goes_on_from_its_state_as_if_it_had_not_stopped() {
    let device = Device::flex();
    for (name, case) in golden().updates {
        let mut straight = optimizer(&name, &case.constants);
        let mut net = net();
        for _ in 0..3 {
            let slopes = gradients(&net);
            net = straight.step(net, slopes, |_| 0.05, None).0;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), params::flat_to_safetensors(&straight.state(), &BTreeMap::new()))
            .unwrap();
        let mut resumed = optimizer(&name, &case.constants);
        let restored =
            resumed.restore(params::WeightsFile::read(file.path()).unwrap().flat(&device), &device);
        assert_eq!(restored, if name == "sgd" { 0 } else { 2 }, "{name}");
        let step = |optimizer: &mut Optimizer| {
            let next = optimizer.step(net.clone(), gradients(&net), |_| 0.05, None).0;
            params::to_safetensors(&next, &BTreeMap::new())
        };
        assert_eq!(step(&mut straight), step(&mut resumed), "{name}");
    }
}

#[test]
fn the_state_of_another_optimizer_restores_nothing() {
    let device = Device::flex();
    let mut adam = Optimizer::adam(AdamConfig::default());
    adam.step(net(), gradients(&net()), |_| 0.1, None);
    let mut sgd =
        Optimizer::sgd(SgdConfig { momentum: 0.9, dampening: 0.0, nesterov: true, weight_decay: 0.0 });
    assert_eq!(sgd.restore(adam.state(), &device), 0);
    sgd.step(net(), gradients(&net()), |_| 0.1, None);
    assert_eq!(adam.restore(sgd.state(), &device), 0);
}

#[test]
fn parameters_without_gradients_stay() {
    for mut optimizer in [
        Optimizer::adam(AdamConfig { weight_decay: 0.5, ..AdamConfig::default() }),
        Optimizer::sgd(SgdConfig { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.5 }),
    ] {
        let mut slopes = gradients(&net());
        slopes.remove("weight");
        let (after, sizes) = optimizer.step(net(), slopes, |_| 0.1, Some(group_of));
        assert_eq!(sizes.keys().collect::<Vec<_>>(), [&"bias"]);
        let (before, after) = (params::flat(&net()), params::flat(&after));
        assert_eq!(values(before["weight"].clone()), values(after["weight"].clone()));
        assert_ne!(values(before["bias"].clone()), values(after["bias"].clone()));
    }
}

#[test]
fn a_plateau_lowers_the_rate_when_pytorch_does_also_after_a_restart() {
    for case in golden().plateau {
        let config = PlateauConfig {
            better: if case.mode == "max" { Better::Larger } else { Better::Smaller },
            factor: case.factor,
            patience: case.patience,
            threshold: case.threshold,
            min: case.min,
        };
        let mut plateau = Plateau::new(0.1, config);
        for (i, (metric, expected)) in case.metrics.iter().zip(&case.rates).enumerate() {
            let rate = plateau.observe(*metric);
            assert!((rate - expected).abs() < 1e-12, "evaluation {i}: {rate} against {expected}");
            assert_eq!(plateau.rate(), rate);
            let saved = serde_json::to_string(&plateau.state()).unwrap();
            plateau = Plateau::new(7.0, config);
            plateau.restore(serde_json::from_str(&saved).unwrap());
        }
        assert!(case.rates.last() < case.rates.first());
    }
}

#[test]
fn what_is_no_number_is_no_improvement() {
    let config = PlateauConfig { patience: 1, factor: 0.5, ..PlateauConfig::default() };
    let mut plateau = Plateau::new(1.0, config);
    assert_eq!(plateau.observe(f64::NAN), 1.0);
    assert_eq!(plateau.observe(f64::NAN), 0.5);
    assert_eq!(plateau.state(), PlateauState { rate: 0.5, best: None, waited: 0 });
    assert_eq!(plateau.observe(0.3), 0.5);
    assert_eq!(plateau.state().best, Some(0.3));
}

proptest::proptest! {
    #[test]
    fn a_plateaus_rate_never_rises_nor_falls_below_its_least(metrics in proptest::collection::vec(-1.0f64..1.0, 0..60), patience in 0u64..4) {
        let config = PlateauConfig { patience, min: 1e-3, ..PlateauConfig::default() };
        let mut plateau = Plateau::new(1.0, config);
        for metric in metrics {
            let before = plateau.rate();
            let rate = plateau.observe(metric);
            proptest::prop_assert!(rate <= before && rate >= 1e-3);
        }
    }
}
