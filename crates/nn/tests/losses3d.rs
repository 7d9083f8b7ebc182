//! Losses for volumes and classes against PyTorch (`goldens/volume_losses.py`, `goldens/ldam.py`), on degenerate inputs, by finite
//! differences, and their properties.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use serde::Deserialize;
use trimtab_kernels::resize::Mode;
use trimtab_kernels::tensor::interpolate3d;
use trimtab_nn::losses::*;

#[derive(Deserialize)]
struct Golden {
    binary: Vec<Inputs>,
    classes: Vec<Inputs>,
}
#[derive(Deserialize)]
struct Inputs {
    shape: Vec<usize>,
    logits: Vec<f64>,
    target: Vec<f64>,
    #[serde(default)]
    distance: Vec<f64>,
    valid: Vec<f64>,
    cases: BTreeMap<String, Case>,
}
#[derive(Deserialize)]
struct Case {
    value: f64,
    gradient: Vec<f64>,
}

fn cpu() -> Device {
    Device::flex().autodiff()
}

fn float<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    typed(values, shape, DType::F32)
}

fn typed<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape).convert_dtype(dtype), (&cpu(), dtype))
}

fn int<const D: usize>(values: &[i64], shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &cpu())
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().convert::<f64>().try_into_vec().unwrap()
}

/// Value of a loss and its gradient by its first argument.
fn measure<const D: usize>(x: Tensor<D>, loss: impl FnOnce(Tensor<D>) -> Tensor<1>) -> (f64, Vec<f64>) {
    let x = x.require_grad();
    let loss = loss(x.clone());
    let gradient = numbers(x.grad(&loss.backward()).unwrap());
    (numbers(loss)[0], gradient)
}

fn check_golden(name: &str, (value, gradient): (f64, Vec<f64>), case: &Case) {
    let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-5 * scale;
    assert!(close(value, case.value, case.value.abs().max(1e-2)), "{name}: {value} against {}", case.value);
    let largest = case.gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
    assert_eq!(gradient.len(), case.gradient.len());
    for (i, (ours, theirs)) in gradient.iter().zip(&case.gradient).enumerate() {
        assert!(close(*ours, *theirs, largest), "{name}[{i}]: {ours} against {theirs}");
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../goldens/volume_losses.json")).unwrap()
}

fn check_binary<const D: usize>(inputs: &Inputs, dtype: DType) {
    let shape: [usize; D] = inputs.shape.clone().try_into().unwrap();
    for (name, case) in &inputs.cases {
        let of = |values: &[f64]| typed(values, shape, dtype);
        let (t, phi, v) = (of(&inputs.target), of(&inputs.distance), of(&inputs.valid));
        let sigmoid = burn::tensor::activation::sigmoid::<D>;
        let mut parts = name.split('/');
        let kind = parts.next().unwrap();
        let p: Vec<f64> = parts.map(|x| x.parse().unwrap()).collect();
        let ours = measure(of(&inputs.logits), |z| match kind {
            "boundary_bce" => boundary_weighted_bce(z, t, phi, v, DistanceBand { full: p[0], zero: p[1] }),
            "boundary" => boundary_loss(sigmoid(z), phi, v),
            "connectivity" => connectivity_loss(sigmoid(z), t, v),
            "cldice" => cldice_loss(sigmoid(z), t, v, p[0] as usize, p[1]),
            "focal" => focal_loss(z, t, v, p[0], p[1], 1.0),
            other => panic!("no such case: {other}"),
        });
        check_golden(&format!("{name} at {shape:?} in {dtype:?}"), ours, case);
    }
}

#[test]
fn losses_of_a_foreground_equal_pytorch() {
    for inputs in &golden().binary {
        match inputs.shape.len() {
            4 => check_binary::<4>(inputs, DType::F32),
            _ => check_binary::<5>(inputs, DType::F32),
        }
    }
}

/// Other types and devices pool by Burn's own operators.
#[test]
fn losses_of_a_foreground_equal_pytorch_without_the_kernels() {
    for inputs in golden().binary.iter().filter(|inputs| inputs.shape.len() == 5) {
        check_binary::<5>(inputs, DType::F64);
    }
}

fn check_classes<const D: usize, const T: usize>(inputs: &Inputs) {
    let shape: [usize; D] = inputs.shape.clone().try_into().unwrap();
    let flat: Vec<usize> = [&shape[..1], &shape[2..]].concat();
    let flat: [usize; T] = flat.try_into().unwrap();
    let target: Vec<i64> = inputs.target.iter().map(|t| *t as i64).collect();
    let classes = shape[1];
    let weights: Vec<f64> = (0..classes).map(|k| 0.5 + 0.75 * k as f64).collect();
    for (name, case) in &inputs.cases {
        let (t, v) = (int(&target, flat), float(&inputs.valid, flat));
        let ours = measure(float(&inputs.logits, shape), |z| match name.split('/').collect::<Vec<_>>()[..] {
            ["dice", background, per_sample, smooth] => {
                let smooth = smooth.parse().unwrap();
                let options =
                    DiceOptions { background: background == "1", per_sample: per_sample == "1", smooth };
                multiclass_dice_loss(z, t, v, &options)
            }
            ["cross_entropy"] => cross_entropy(z, t, v, None),
            ["cross_entropy", "weighted"] => cross_entropy(z, t, v, Some(float(&weights, [classes]))),
            _ => panic!("no such case: {name}"),
        });
        check_golden(&format!("{name} at {shape:?}"), ours, case);
    }
}

#[test]
fn losses_of_classes_equal_pytorch() {
    for inputs in &golden().classes {
        match inputs.shape.len() {
            2 => check_classes::<2, 1>(inputs),
            4 => check_classes::<4, 3>(inputs),
            _ => check_classes::<5, 4>(inputs),
        }
    }
}

#[derive(Deserialize)]
struct Ldam {
    logits: Vec<f64>,
    target: Vec<i64>,
    cases: Vec<LdamCase>,
}
#[derive(Deserialize)]
struct LdamCase {
    counts: Vec<u64>,
    max_margin: f64,
    scale: f64,
    beta: Option<f64>,
    margins: Vec<f64>,
    weights: Option<Vec<f64>>,
    #[serde(flatten)]
    expected: Case,
}

#[test]
fn ldam_equals_pytorch() {
    let golden: Ldam = serde_json::from_str(include_str!("../../../goldens/ldam.json")).unwrap();
    let (b, k) = (golden.target.len(), golden.logits.len() / golden.target.len());
    let near = |ours: &[f64], theirs: &[f64]| {
        // PyTorch's 1 - beta^n loses digits; ours does not.
        let same = ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs());
        assert!(same && ours.len() == theirs.len(), "{ours:?} against {theirs:?}");
    };
    for (i, case) in golden.cases.iter().enumerate() {
        let margins = ldam_margins(&case.counts, case.max_margin);
        near(&margins, &case.margins);
        let weights = case.beta.map(|beta| drw_weights(&case.counts, beta, true));
        if let (Some(ours), Some(theirs)) = (&weights, &case.weights) {
            near(ours, theirs);
        }
        let ours = measure(float(&golden.logits, [b, k]), |z| {
            let weight = weights.map(|w| float(&w, [k]));
            ldam_loss(z, int(&golden.target, [b]), float(&margins, [k]), case.scale, weight)
        });
        check_golden(&format!("ldam {i}"), ours, &case.expected);
    }
}

#[test]
fn the_rarest_class_has_the_largest_margin_and_a_missing_one_disturbs_nobody() {
    let margins = ldam_margins(&[10_000, 1, 16, 0], 0.5);
    assert_eq!(margins, [0.05, 0.5, 0.25, 0.5]);
    assert_eq!(ldam_margins(&[0, 0], 0.5), [0.5, 0.5]);
    assert!(ldam_margins(&[], 0.5).is_empty());
}

#[test]
fn class_weights_have_mean_one_over_the_classes_there_are() {
    let weights = class_balanced_weights(&[900, 0, 100], 0.9999);
    assert_eq!(weights[1], 0.0);
    assert!((weights.iter().sum::<f64>() - 2.0).abs() < 1e-12);
    assert!(weights[2] > 8.0 * weights[0] && weights[2] < 9.0 * weights[0]);
    assert_eq!(class_balanced_weights(&[7, 3], 0.0), [1.0, 1.0]);
    assert!((class_balanced_weights(&[3, 1], 1.0)[1] - 1.5).abs() < 1e-12);
    assert_eq!(class_balanced_weights(&[0, 0], 0.9), [0.0, 0.0]);
    // In f64 1 - 0.9999999^n of few samples would keep 9 digits.
    let few = class_balanced_weights(&[1, u64::MAX], 1.0 - 1e-12);
    assert!(few.iter().all(|w| w.is_finite() && *w > 0.0) && (few[0] - 2.0).abs() < 1e-9);
    assert_eq!(drw_weights(&[900, 0, 100], 0.9999, false), [1.0; 3]);
    assert_eq!(drw_weights(&[900, 0, 100], 0.9999, true), weights);
}

const SHAPE: [usize; 5] = [2, 1, 3, 4, 5];
const LEN: usize = 2 * 3 * 4 * 5;

/// Every loss of a foreground as a function of logits, target, distance and mask.
type Binary = fn(Tensor<5>, Tensor<5>, Tensor<5>, Tensor<5>) -> Tensor<1>;
const BINARY: [(&str, Binary); 6] = [
    ("boundary_bce", |z, t, phi, v| boundary_weighted_bce(z, t, phi, v, DistanceBand::default())),
    ("boundary", |z, _, phi, v| boundary_loss(burn::tensor::activation::sigmoid(z), phi, v)),
    ("connectivity", |z, t, _, v| connectivity_loss(burn::tensor::activation::sigmoid(z), t, v)),
    ("cldice", |z, t, _, v| cldice_loss(burn::tensor::activation::sigmoid(z), t, v, 3, 1.0)),
    ("focal", |z, t, _, v| focal_loss(z, t, v, 0.25, 2.0, 1.0)),
    ("focal of a small power", |z, t, _, v| focal_loss(z, t, v, 0.25, 0.5, 1.0)),
];

/// Every loss of classes as a function of logits, target and mask.
type Classes = fn(Tensor<5>, Tensor<4, Int>, Tensor<4>) -> Tensor<1>;
const CLASSES: [(&str, Classes); 4] = [
    ("cross_entropy", |z, t, v| cross_entropy(z, t, v, None)),
    ("weighted", |z, t, v| cross_entropy(z, t, v, Some(float(&[0.0, 0.5, 3.0], [3])))),
    ("dice", |z, t, v| multiclass_dice_loss(z, t, v, &DiceOptions::default())),
    ("dice of each", |z, t, v| {
        multiclass_dice_loss(z, t, v, &DiceOptions { background: true, per_sample: true, smooth: 1.0 })
    }),
];

fn hash(seed: u64) -> impl Iterator<Item = f64> {
    (1..).map(move |i: u64| {
        let x = (i + seed * 7919).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11) as f64 / (1u64 << 53) as f64
    })
}

fn values(seed: u64, len: usize, f: impl Fn(f64) -> f64) -> Vec<f64> {
    hash(seed).take(len).map(f).collect()
}

#[test]
fn where_everything_is_ignored_losses_are_zero_without_gradient() {
    let zeros = [0.0; LEN];
    for (name, loss) in BINARY {
        let of = |values: &[f64]| float(values, SHAPE);
        let z = values(1, LEN, |x| (x - 0.5) * 200.0);
        let t = values(2, LEN, |x| x.round());
        let phi = values(3, LEN, |x| x * 14.0 - 7.0);
        let (value, gradient) = measure(of(&z), |z| loss(z, of(&t), of(&phi), of(&zeros)));
        assert!(value.abs() < 1e-7 && gradient.iter().all(|g| *g == 0.0), "{name}: {value} {gradient:?}");
    }
    let z = values(1, 3 * 24, |x| (x - 0.5) * 200.0);
    let shape = [2, 3, 2, 2, 3];
    for (name, loss) in CLASSES {
        for (target, valid) in [(1, 0.0), (255, 1.0), (-100, 1.0), (3, 0.0)] {
            let (t, v) = (int(&[target; 24], [2, 2, 2, 3]), float(&[valid; 24], [2, 2, 2, 3]));
            let (value, gradient) = measure(float(&z, shape), |z| loss(z, t, v));
            assert!(value.abs() < 1e-7 && gradient.iter().all(|g| *g == 0.0), "{name} of {target}: {value}");
        }
    }
    let (value, gradient) = measure(float(&[0.3, -0.2], [1, 2]), |z| {
        ldam_loss(z, int(&[-100], [1]), float(&[0.5, 0.1], [2]), 30.0, None)
    });
    assert_eq!((value, gradient), (0.0, vec![0.0; 2]));
}

#[test]
fn saturated_logits_give_finite_values_and_gradients() {
    let all = |seed| {
        values(seed, LEN, |x| [-1e4, -110.0, -100.0, -90.0, 0.0, 90.0, 100.0, 110.0, 1e4][(x * 9.0) as usize])
    };
    for (name, loss) in BINARY {
        for seed in 0..4 {
            let of = |values: &[f64]| float(values, SHAPE);
            let t = values(10 + seed, LEN, |x| if seed == 0 { 0.0 } else { x.round() });
            let phi = values(20 + seed, LEN, |x| x * 14.0 - 7.0);
            let (value, gradient) = measure(of(&all(seed)), |z| loss(z, of(&t), of(&phi), of(&[1.0; LEN])));
            assert!(
                value.is_finite() && gradient.iter().all(|g| g.is_finite()),
                "{name}: {value} {gradient:?}"
            );
        }
    }
    for (name, loss) in CLASSES {
        // Classes 1 and 2 absent, then all there.
        for classes in [1.0, 3.0] {
            let t: Vec<i64> = values(5, 40, |x| (x * classes).floor()).iter().map(|t| *t as i64).collect();
            let (t, v) = (int(&t, [2, 4, 5, 1]), float(&[1.0; 40], [2, 4, 5, 1]));
            let (value, gradient) = measure(float(&all(7), [2, 3, 4, 5, 1]), |z| loss(z, t, v));
            assert!(
                value.is_finite() && gradient.iter().all(|g| g.is_finite()),
                "{name}: {value} {gradient:?}"
            );
        }
    }
}

#[test]
fn an_empty_prediction_of_an_empty_mask_is_perfect() {
    let of = |value: f64| float(&[value; LEN], SHAPE);
    for (name, loss) in BINARY {
        let value = numbers(loss(of(-100.0), of(0.0), of(0.0), of(1.0)))[0];
        assert!((0.0..1e-6).contains(&value), "{name}: {value}");
    }
    assert!(numbers(cldice_loss(of(0.5), of(0.0), of(1.0), 3, 1.0))[0] >= 0.0);
}

#[test]
fn an_absent_class_costs_dice_nothing_unless_it_is_predicted() {
    let t = int(&[0, 1, 1, 0], [1, 4]);
    let loss = |third: f64| {
        let z: Vec<f64> =
            [9.0, -9.0, -9.0, 9.0, -9.0, 9.0, 9.0, -9.0].into_iter().chain([third; 4]).collect();
        let options = DiceOptions::default();
        numbers(multiclass_dice_loss(float(&z, [1, 3, 4]), t.clone(), float(&[1.0; 4], [1, 4]), &options))[0]
    };
    assert!(loss(-100.0) < 1e-5, "{}", loss(-100.0));
    assert!(loss(0.0) > 0.49, "{}", loss(0.0));
}

/// Gradients of piecewise smooth losses, by values of the loss itself: `x` keeps its order within `step`.
fn check_differences(name: &str, x: &[f64], step: f64, loss: impl Fn(Tensor<5>) -> Tensor<1>) {
    let of = |x: &[f64]| typed(x, SHAPE, DType::F64);
    let (_, gradient) = measure(of(x), &loss);
    for i in 0..x.len() {
        let at = |by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            numbers(loss(of(&x)))[0]
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        assert!((difference - gradient[i]).abs() < 1e-6, "{name}[{i}]: {} against {difference}", gradient[i]);
    }
}

#[test]
fn gradients_of_cldice_and_boundary_agree_with_finite_differences() {
    // Distinct probabilities, further apart than the step.
    let mut order: Vec<(f64, usize)> = hash(3).take(LEN).zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut p = vec![0.0; LEN];
    for (rank, (_, i)) in order.iter().enumerate() {
        p[*i] = (rank as f64 + 0.5) / LEN as f64;
    }
    let of = |values: &[f64]| typed(values, SHAPE, DType::F64);
    let t = values(8, LEN, |x| f64::from(x > 0.4));
    let phi = values(9, LEN, |x| x * 14.0 - 7.0);
    let v = values(10, LEN, |x| f64::from(x > 0.2));
    for iterations in [0, 1, 4] {
        check_differences("cldice", &p, 1e-4, |p| cldice_loss(p, of(&t), of(&v), iterations, 1.0));
    }
    check_differences("boundary", &p, 1e-4, |p| boundary_loss(p, of(&phi), of(&v)));
    check_differences("connectivity", &p, 1e-4, |p| connectivity_loss(p, of(&t), of(&v)));
    let z: Vec<f64> = p.iter().map(|p| (p - 0.5) * 20.0).collect();
    let band = DistanceBand::default();
    check_differences("band", &z, 1e-4, |z| boundary_weighted_bce(z, of(&t), of(&phi), of(&v), band));
}

#[test]
fn the_band_has_full_weight_to_three_and_none_from_five() {
    let phi = float(&[0.0, -3.0, 4.0, -4.5, 5.0, -100.0, f64::INFINITY], [7]);
    assert_eq!(numbers(DistanceBand::default().weights(phi.clone())), [1.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0]);
    let step = DistanceBand { full: 4.2, zero: 4.2 };
    assert_eq!(numbers(step.weights(phi)), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_small_sum_of_weights_is_still_a_mean() {
    // One voxel on the outer edge of the band: its cross-entropy, not a fifth of it.
    let t = float(&[1.0, 0.0], [2]);
    let v = float(&[1.0; 2], [2]);
    let phi = float(&[4.9, 9.0], [2]);
    let loss = boundary_weighted_bce(float(&[0.0; 2], [2]), t, phi, v, DistanceBand::default());
    assert!((numbers(loss)[0] - 2f64.ln()).abs() < 1e-6);
    let z = float(&[0.0; 4], [2, 2]);
    let weight = float(&[1e-6, 2e-6], [2]);
    let loss = cross_entropy(z, int(&[0, 1], [2]), float(&[1.0; 2], [2]), Some(weight));
    assert!((numbers(loss)[0] - 2f64.ln()).abs() < 1e-6);
}

#[test]
fn a_line_is_its_own_skeleton_and_a_slab_has_one_layer() {
    let ones = float(&[1.0; 9 * 9], [1, 1, 9, 9]);
    let image = |f: &dyn Fn(usize, usize) -> bool| -> Vec<f64> {
        (0..81).map(|i| f64::from(f(i / 9, i % 9))).collect()
    };
    let of = |x: &[f64], iterations| numbers(soft_skeleton(float(x, [1, 1, 9, 9]), ones.clone(), iterations));
    let line = image(&|row, _| row == 4);
    for iterations in [0, 1, 5] {
        assert_eq!(of(&line, iterations), line);
    }
    // Five rows thick: two erosions reach the middle row, one does not.
    let band = image(&|row, _| (2..7).contains(&row));
    assert_eq!(of(&band, 2), line);
    assert_eq!(of(&band, 1), [0.0; 81]);
}

#[test]
fn a_skeleton_in_the_plane_is_that_of_a_volume_of_one_slice() {
    let x = values(4, 2 * 42, |x| x);
    let v = values(5, 2 * 42, |x| f64::from(x > 0.2));
    let plane = soft_skeleton(float(&x, [1, 2, 6, 7]), float(&v, [1, 2, 6, 7]), 2);
    let slice = soft_skeleton(float(&x, [1, 2, 1, 6, 7]), float(&v, [1, 2, 1, 6, 7]), 2);
    assert_eq!(numbers(plane), numbers(slice));
}

#[test]
fn an_ignored_half_is_as_if_the_volume_ended_there() {
    let shape = [1, 1, 4, 5, 6];
    let x = values(4, 120, |x| x);
    let t = values(5, 120, |x| f64::from(x > 0.5));
    let whole = |x: &[f64]| float(x, shape);
    let half = |x: &[f64]| whole(x).slice([0..1, 0..1, 0..4, 0..5, 0..3]);
    let v: Vec<f64> = (0..120).map(|i| f64::from(i % 6 < 3)).collect();
    let ones = half(&[1.0; 120]);
    let pairs = [
        (
            cldice_loss(whole(&x), whole(&t), whole(&v), 2, 1.0),
            cldice_loss(half(&x), half(&t), ones.clone(), 2, 1.0),
        ),
        (connectivity_loss(whole(&x), whole(&t), whole(&v)), connectivity_loss(half(&x), half(&t), ones)),
    ];
    for (masked, cut) in pairs {
        let (masked, cut) = (numbers(masked)[0], numbers(cut)[0]);
        assert!((masked - cut).abs() < 1e-6, "{masked} {cut}");
    }
}

#[test]
fn deep_supervision_halves_from_level_to_level() {
    assert_eq!(deep_supervision_weights(3, false), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0]);
    assert_eq!(deep_supervision_weights(3, true), [2.0 / 3.0, 1.0 / 3.0, 0.0]);
    assert_eq!(deep_supervision_weights(1, true), [1.0]);
    assert!(deep_supervision_weights(0, true).is_empty());
    assert!((deep_supervision_weights(6, true).iter().sum::<f64>() - 1.0).abs() < 1e-15);
}

#[test]
fn a_deep_supervised_loss_is_the_weighted_sum_of_its_levels() {
    let level = |size: usize| float(&values(size as u64, size.pow(3), |x| x - 0.5), [1, 1, size, size, size]);
    let target: Vec<f64> = values(99, 512, |x| x.round());
    let loss = |z: Tensor<5>| {
        let [.., d, h, w] = z.dims();
        let t = downsample_nearest(float(&target, [1, 1, 8, 8, 8]), &[d, h, w]);
        assert_eq!(t.dims(), z.dims());
        dice_loss(z.clone(), t, z.ones_like(), 1.0)
    };
    let weights = deep_supervision_weights(3, true);
    let mut calls = 0;
    let all = deep_supervision([level(8), level(4), level(2)], &weights, |z| {
        calls += 1;
        loss(z)
    });
    let expected: f64 = [8, 4].iter().zip(&weights).map(|(size, w)| w * numbers(loss(level(*size)))[0]).sum();
    assert_eq!(calls, 2);
    assert!((numbers(all.unwrap())[0] - expected).abs() < 1e-6);
    assert!(deep_supervision([level(2)], &[0.0], loss).is_none());
}

#[test]
fn downsampling_picks_labels_and_never_mixes_them() {
    let labels = int(&[0, 255, 2, 3, 4, 5, 6], [1, 7]);
    let picked = |size| -> Vec<i64> {
        downsample_nearest(labels.clone(), &[size]).into_data().convert::<i64>().try_into_vec().unwrap()
    };
    // torch.nn.functional.interpolate(torch.arange(7.)[None, None], size) of 2.x.
    assert_eq!(picked(3), [0, 2, 4]);
    assert_eq!(picked(7), [0, 255, 2, 3, 4, 5, 6]);
    assert_eq!(picked(1), [0]);
    let volume = float(&values(1, 8 * 49 * 5, |x| x), [1, 1, 8, 49, 5]);
    for rows in 1..49 {
        let size = [4, rows, 2];
        let ours = numbers(downsample_nearest(volume.clone(), &size));
        assert_eq!(ours, numbers(interpolate3d(volume.clone(), size, Mode::Nearest)), "{size:?}");
    }
}

#[test]
fn unlabelled_values_are_marked() {
    let marked = labelled(int(&[0, 1, 2, 255, -1, -100], [2, 3]), 2);
    assert_eq!(numbers(marked), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn losses_of_classes_do_not_depend_on_how_classes_are_numbered(seed in 0u64..1000, spread in 0.1f64..60.0) {
        let shape = [2, 3, 2, 2, 3];
        let z = values(seed, 72, |x| (x - 0.5) * spread);
        let t: Vec<i64> = values(seed + 1, 24, |x| (x * 4.0).floor()).iter().map(|t| [0, 1, 2, 255][*t as usize]).collect();
        let v = float(&values(seed + 2, 24, |x| f64::from(x > 0.2)), [2, 2, 2, 3]);
        let turned: Vec<i64> = t.iter().map(|t| if *t < 3 { (t + 1) % 3 } else { *t }).collect();
        let weight = values(seed + 3, 3, |x| x + 0.1);
        let loss = |z: Tensor<5>, t: &[i64], weight: [f64; 3]| {
            let t = int(t, [2, 2, 2, 3]);
            let options = DiceOptions { background: true, per_sample: seed % 2 == 0, smooth: 1e-5 };
            [
                numbers(multiclass_dice_loss(z.clone(), t.clone(), v.clone(), &options))[0],
                numbers(cross_entropy(z, t, v.clone(), Some(float(&weight, [3]))))[0],
            ]
        };
        let z = float(&z, shape);
        let rolled = Tensor::cat(vec![z.clone().narrow(1, 2, 1), z.clone().narrow(1, 0, 2)], 1);
        let straight = loss(z, &t, [weight[0], weight[1], weight[2]]);
        let other = loss(rolled, &turned, [weight[2], weight[0], weight[1]]);
        for (a, b) in straight.iter().zip(other) {
            prop_assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
        }
        prop_assert!((-1e-6..=1.0 + 1e-6).contains(&straight[0]) && straight[1] >= -1e-6);
    }

    #[test]
    fn ldam_turns_with_its_classes_and_only_grows_with_the_margins(seed in 0u64..1000, scale in 1f64..30.0) {
        let (z, t) = (values(seed, 18, |x| x * 2.0 - 1.0), values(seed + 1, 6, |x| (x * 3.0).floor()));
        let t: Vec<i64> = t.iter().map(|t| *t as i64).collect();
        let margins = ldam_margins(&[70, 5, 400], 0.5);
        let loss = |z: Tensor<2>, t: &[i64], m: &[f64]| numbers(ldam_loss(z, int(t, [6]), float(m, [3]), scale, None))[0];
        let z = float(&z, [6, 3]);
        let rolled = Tensor::cat(vec![z.clone().narrow(1, 2, 1), z.clone().narrow(1, 0, 2)], 1);
        let turned: Vec<i64> = t.iter().map(|t| (t + 1) % 3).collect();
        let straight = loss(z.clone(), &t, &margins);
        let other = loss(rolled, &turned, &[margins[2], margins[0], margins[1]]);
        prop_assert!((straight - other).abs() <= 1e-5 * straight.max(1.0));
        prop_assert!(loss(z, &t, &[0.0; 3]) <= straight + 1e-6);
    }

    #[test]
    fn topology_losses_are_symmetric_bounded_and_blind_to_ignored_voxels(
        seed in 0u64..1000, iterations in 0usize..4, junk in 0f64..1.0, smooth in 0.01f64..2.0,
    ) {
        let of = |values: &[f64]| float(values, SHAPE);
        let (p, t) = (values(seed, LEN, |x| x), values(seed + 1, LEN, |x| x));
        let v = values(seed + 2, LEN, |x| f64::from(x > 0.25));
        let losses = |p: &[f64], t: &[f64]| {
            [
                numbers(cldice_loss(of(p), of(t), of(&v), iterations, smooth))[0],
                numbers(connectivity_loss(of(p), of(t), of(&v)))[0],
            ]
        };
        let straight = losses(&p, &t);
        let spoilt: Vec<f64> = p.iter().zip(&v).map(|(p, v)| if *v == 0.0 { junk } else { *p }).collect();
        for (a, b, c) in triples(straight, losses(&t, &p), losses(&spoilt, &t)) {
            prop_assert!((-1e-6..=1.0 + 1e-6).contains(&a));
            prop_assert!((a - b).abs() < 1e-5 && (a - c).abs() < 1e-5, "{a} {b} {c}");
        }
        let skeleton = numbers(soft_skeleton(of(&p), of(&v), iterations));
        for ((s, p), v) in skeleton.iter().zip(&p).zip(&v) {
            prop_assert!(*s >= 0.0 && *s <= p * v + 1e-5, "skeleton {s} of {p}");
        }
    }

    #[test]
    fn boundary_losses_are_lowest_at_the_target(seed in 0u64..1000) {
        let of = |values: &[f64]| float(values, SHAPE);
        let phi = values(seed, LEN, |x| x * 14.0 - 7.0);
        let p = values(seed + 1, LEN, |x| x);
        let v = values(seed + 2, LEN, |x| f64::from(x > 0.25));
        let inside: Vec<f64> = phi.iter().map(|d| f64::from(*d < 0.0)).collect();
        let loss = |p: &[f64]| numbers(boundary_loss(of(p), of(&phi), of(&v)))[0];
        prop_assert!(loss(&inside) <= loss(&p) + 1e-6);
        prop_assert!(loss(&p).abs() <= 7.0);
        let z: Vec<f64> = p.iter().map(|p| (p - 0.5) * 20.0).collect();
        let bce = numbers(boundary_weighted_bce(of(&z), of(&inside), of(&phi), of(&v), DistanceBand::default()))[0];
        prop_assert!((0.0..=10.001).contains(&bce));
    }
}

fn triples(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> [(f64, f64, f64); 2] {
    [(a[0], b[0], c[0]), (a[1], b[1], c[1])]
}
