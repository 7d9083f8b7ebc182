//! Losses against PyTorch (`goldens/losses.py`), on degenerate inputs, and their properties.

use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use serde::Deserialize;
use trimtab_nn::losses::{bce_with_logits, dice_loss, focal_loss, probability_mse};

#[derive(Deserialize)]
struct Golden {
    logits: Vec<f64>,
    target: Vec<f64>,
    valid: Vec<f64>,
    teacher: Vec<f64>,
    cases: std::collections::BTreeMap<String, Case>,
}
#[derive(Deserialize)]
struct Case {
    value: f64,
    gradient: Vec<f64>,
}

fn tensor(values: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::from_floats(values.as_slice(), device)
}

#[test]
fn values_and_gradients_equal_pytorch() {
    let golden: Golden = serde_json::from_str(include_str!("../../../goldens/losses.json")).unwrap();
    let device = Device::flex().autodiff();
    for (name, case) in &golden.cases {
        let logits = tensor(&golden.logits, &device).require_grad();
        let (t, v) = (tensor(&golden.target, &device), tensor(&golden.valid, &device));
        let mut parts = name.split('/');
        let kind = parts.next().unwrap();
        let p: Vec<f64> = parts.map(|x| x.parse().unwrap()).collect();
        let loss = match kind {
            "bce" => bce_with_logits(logits.clone(), t, v, p[0]),
            "focal" => focal_loss(logits.clone(), t, v, p[0], p[1], p[2]),
            "dice" => dice_loss(logits.clone(), t, v, p[0]),
            "consistency" => probability_mse(logits.clone(), tensor(&golden.teacher, &device)),
            other => panic!("no such case: {other}"),
        };
        let gradient = logits
            .grad(&loss.backward())
            .unwrap()
            .into_data()
            .convert::<f64>()
            .try_into_vec::<f64>()
            .unwrap();
        let value = f64::from(loss.into_scalar::<f32>());
        assert!(
            (value - case.value).abs() <= 1e-5 * case.value.abs().max(1.0),
            "{name}: {value} against {}",
            case.value
        );
        for (i, (ours, theirs)) in gradient.iter().zip(&case.gradient).enumerate() {
            assert!(
                (ours - theirs).abs() <= 1e-5 * theirs.abs().max(0.1),
                "{name}[{i}]: {ours} against {theirs}"
            );
        }
    }
}

#[test]
fn a_batch_without_a_valid_pixel_gives_zero_and_finite_gradients() {
    let device = Device::flex().autodiff();
    let make = || {
        let z = Tensor::<1>::from_floats([-3.0, 0.0, 90.0], &device).require_grad();
        (z, Tensor::<1>::from_floats([1.0, 0.0, 1.0], &device), Tensor::<1>::zeros([3], &device))
    };
    let check = |z: Tensor<1>, loss: Tensor<1>| {
        let gradient: Vec<f32> = z.grad(&loss.backward()).unwrap().into_data().try_into_vec().unwrap();
        assert_eq!(loss.into_scalar::<f32>(), 0.0);
        assert!(gradient.iter().all(|g| *g == 0.0), "{gradient:?}");
    };
    let (z, t, v) = make();
    check(z.clone(), focal_loss(z, t, v, 0.7, 2.0, 1.0));
    let (z, t, v) = make();
    check(z.clone(), bce_with_logits(z, t, v, 2.0));
    let (z, t, v) = make();
    check(z.clone(), dice_loss(z, t, v, 1.0));
}

#[test]
fn an_empty_mask_still_gives_finite_losses() {
    let device = Device::flex();
    let z = Tensor::<1>::from_floats([-200.0, 200.0, 0.0], &device);
    let (t, v) = (Tensor::<1>::zeros([3], &device), Tensor::<1>::ones([3], &device));
    for loss in [
        focal_loss(z.clone(), t.clone(), v.clone(), 0.7, 2.0, 1.0),
        dice_loss(z.clone(), t.clone(), v.clone(), 1.0),
        bce_with_logits(z, t, v, 1.0),
    ] {
        assert!(loss.into_scalar::<f32>().is_finite());
    }
}

proptest! {
    #[test]
    fn losses_do_not_depend_on_the_order_of_pixels_or_on_ignored_ones(
        pixels in proptest::collection::vec((-20f32..20.0, any::<bool>(), any::<bool>()), 1..40), junk in -50f32..50.0,
    ) {
        let device = Device::flex();
        let of = |pixels: &[(f32, bool, bool)]| {
            let col = |f: &dyn Fn(&(f32, bool, bool)) -> f32| Tensor::<1>::from_floats(pixels.iter().map(f).collect::<Vec<f32>>().as_slice(), &device);
            let (z, t, v) = (col(&|p| p.0), col(&|p| f32::from(p.1)), col(&|p| f32::from(p.2)));
            [
                focal_loss(z.clone(), t.clone(), v.clone(), 0.7, 2.0, 1.0).into_scalar::<f32>(),
                dice_loss(z.clone(), t.clone(), v.clone(), 1.0).into_scalar::<f32>(),
                bce_with_logits(z, t, v, 1.5).into_scalar::<f32>(),
            ]
        };
        let straight = of(&pixels);
        let mut other: Vec<_> = pixels.iter().rev().copied().collect();
        for p in other.iter_mut().filter(|p| !p.2) {
            *p = (junk, !p.1, false);
        }
        for (a, b) in straight.iter().zip(of(&other)) {
            prop_assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{a} {b}");
        }
        prop_assert!((-1e-6..=1.0 + 1e-6).contains(&straight[1]));
        prop_assert!(straight.iter().all(|l| *l >= -1e-6));
    }
}
