//! Optimizers against PyTorch (`goldens/optimizer.py`) and against plain loops in `f64`, on every instruction set.

use proptest::prelude::*;
use serde_json::Value;
use trimtab_kernels::Isa;
use trimtab_kernels::optimizer::{
    AdamW, AdamWPart, Sgd, SgdPart, UpdateSize, adamw, average, scale, sgd, sum_of_squares,
};

const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn updates_equal_pytorch() {
    let golden: Value = serde_json::from_str(include_str!("../../../goldens/optimizer.json")).unwrap();
    let start = floats(&golden["start"]);
    for (name, after) in golden["cases"].as_object().unwrap() {
        let mut words = name.split('/');
        let kind = words.next().unwrap();
        let c: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
        let mut parameter = start.clone();
        let (mut first, mut second) = (vec![0.0; start.len()], vec![0.0; start.len()]);
        for (i, gradient) in golden["gradients"].as_array().unwrap().iter().enumerate() {
            let (gradient, updates) = (floats(gradient), i as u64 + 1);
            match kind {
                "adamw" => adamw(
                    &AdamW { beta1: c[0], beta2: c[1], epsilon: c[2], weight_decay: c[3] },
                    &mut [AdamWPart {
                        parameter: &mut parameter,
                        gradient: &gradient,
                        mean: &mut first,
                        square: &mut second,
                        updates,
                        rate: c[4],
                    }],
                    None,
                ),
                "sgd" => sgd(
                    &Sgd { momentum: c[0], dampening: c[1], nesterov: c[2] != 0.0, weight_decay: c[3] },
                    &mut [SgdPart {
                        parameter: &mut parameter,
                        gradient: &gradient,
                        velocity: if c[0] == 0.0 { &mut [] } else { &mut first },
                        updates,
                        rate: c[4],
                    }],
                    None,
                ),
                other => panic!("no such case: {other}"),
            }
            let Some(expected) = after.get(updates.to_string()) else { continue };
            for (k, (ours, theirs)) in parameter.iter().zip(floats(expected)).enumerate() {
                assert!(
                    (ours - theirs).abs() <= 2e-6 * theirs.abs().max(1.0),
                    "{name}, update {updates}, [{k}]: {ours} against {theirs}"
                );
            }
        }
    }
}

/// Numbers in -1..1 from a seed.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
    .take(len)
    .collect()
}

/// Parameters, gradients and two moments of some parts, the second moment not negative.
#[derive(Clone, PartialEq, Debug)]
struct Parts {
    parameter: Vec<Vec<f32>>,
    gradient: Vec<Vec<f32>>,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

impl Parts {
    fn new(lengths: &[usize], seed: u64) -> Self {
        let fill = |salt: u64| -> Vec<Vec<f32>> {
            let part = |(i, len): (usize, &usize)| noise(seed + salt * 1000 + i as u64, *len);
            lengths.iter().enumerate().map(part).collect()
        };
        let second =
            fill(4).into_iter().map(|part| part.into_iter().map(|x| x * x * 0.01).collect()).collect();
        Self { parameter: fill(1), gradient: fill(2), first: fill(3), second }
    }

    fn adamw(&mut self, constants: &AdamW, sizes: Option<&mut [UpdateSize]>) {
        let mut parts: Vec<_> = (self.parameter.iter_mut().zip(&self.gradient))
            .zip(self.first.iter_mut().zip(&mut self.second))
            .enumerate()
            .map(|(i, ((parameter, gradient), (mean, square)))| AdamWPart {
                parameter,
                gradient,
                mean,
                square,
                updates: updates(i),
                rate: rate(i),
            })
            .collect();
        adamw(constants, &mut parts, sizes);
    }

    fn sgd(&mut self, constants: &Sgd, sizes: Option<&mut [UpdateSize]>) {
        let mut parts: Vec<_> = (self.parameter.iter_mut().zip(&self.gradient))
            .zip(&mut self.first)
            .enumerate()
            .map(|(i, ((parameter, gradient), velocity))| SgdPart {
                parameter,
                gradient,
                velocity: if constants.momentum == 0.0 { &mut [] } else { velocity },
                updates: updates(i),
                rate: rate(i),
            })
            .collect();
        sgd(constants, &mut parts, sizes);
    }
}

// Parts differ in both.
fn updates(part: usize) -> u64 {
    1 + 7 * part as u64
}
fn rate(part: usize) -> f64 {
    0.1 / (1.0 + part as f64)
}

fn naive_adamw(c: &AdamW, parts: &Parts, i: usize, k: usize) -> [f64; 3] {
    let [p, g, m, s] =
        [&parts.parameter, &parts.gradient, &parts.first, &parts.second].map(|of| f64::from(of[i][k]));
    let t = updates(i) as f64;
    let mean = c.beta1 * m + (1.0 - c.beta1) * g;
    let square = c.beta2 * s + (1.0 - c.beta2) * g * g;
    let mean_hat = mean / (1.0 - c.beta1.powf(t));
    let square_hat = square / (1.0 - c.beta2.powf(t));
    let p = p - rate(i) * c.weight_decay * p - rate(i) * mean_hat / (square_hat.sqrt() + c.epsilon);
    [p, mean, square]
}

fn naive_sgd(c: &Sgd, parts: &Parts, i: usize, k: usize) -> [f64; 2] {
    let [p, g, v] = [&parts.parameter, &parts.gradient, &parts.first].map(|of| f64::from(of[i][k]));
    let g = g + c.weight_decay * p;
    if c.momentum == 0.0 {
        return [p - rate(i) * g, v];
    }
    let velocity = if updates(i) == 1 { g } else { c.momentum * v + (1.0 - c.dampening) * g };
    let direction = if c.nesterov { g + c.momentum * velocity } else { velocity };
    [p - rate(i) * direction, velocity]
}

#[track_caller]
fn close(ours: f32, expected: f64) {
    assert!(
        (f64::from(ours) - expected).abs() <= 1e-5 * expected.abs().max(1.0),
        "{ours} against {expected}"
    );
}

/// Checks `sizes` against the parameters before and after.
#[track_caller]
fn sizes_fit(sizes: &[UpdateSize], before: &Parts, after: &Parts) {
    for (i, size) in sizes.iter().enumerate() {
        let (old, new) = (&before.parameter[i], &after.parameter[i]);
        let change: f64 = old.iter().zip(new).map(|(a, b)| f64::from(b - a).powi(2)).sum();
        let parameter: f64 = old.iter().map(|a| f64::from(*a).powi(2)).sum();
        assert!((size.change - change).abs() <= 1e-9 * change, "{} against {change}", size.change);
        assert!(
            (size.parameter - parameter).abs() <= 1e-9 * parameter,
            "{} against {parameter}",
            size.parameter
        );
    }
}

/// Lengths of parts: empty, odd, and around the length of a block.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![
        Just(0),
        1usize..100,
        Just(16),
        4000usize..5000,
        32_700usize..32_800,
        60_000usize..70_000
    ];
    prop::collection::vec(length, 0..7)
}

fn adamw_constants() -> impl Strategy<Value = AdamW> {
    (0.0..0.99, 0.5..0.9999, 1e-9..1e-3, 0.0..0.1).prop_map(|(beta1, beta2, epsilon, weight_decay)| AdamW {
        beta1,
        beta2,
        epsilon,
        weight_decay,
    })
}

fn sgd_constants() -> impl Strategy<Value = Sgd> {
    (prop_oneof![Just(0.0), 0.1..0.99], 0.0..1.0, any::<bool>(), 0.0..0.1).prop_map(
        |(momentum, dampening, nesterov, weight_decay)| Sgd { momentum, dampening, nesterov, weight_decay },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn adamw_equals_a_plain_loop(lengths in lengths(), seed in 0u64..1000, constants in adamw_constants()) {
        let before = Parts::new(&lengths, seed);
        for isa in ISAS {
            isa.scoped(|| {
                let (mut after, mut again) = (before.clone(), before.clone());
                let mut sizes = vec![UpdateSize::default(); lengths.len()];
                after.adamw(&constants, Some(&mut sizes));
                again.adamw(&constants, None);
                assert_eq!(after, again);
                sizes_fit(&sizes, &before, &after);
                for (i, len) in lengths.iter().enumerate() {
                    for k in 0..*len {
                        let [p, m, s] = naive_adamw(&constants, &before, i, k);
                        close(after.parameter[i][k], p);
                        close(after.first[i][k], m);
                        close(after.second[i][k], s);
                    }
                }
            });
        }
    }

    #[test]
    fn sgd_equals_a_plain_loop(lengths in lengths(), seed in 0u64..1000, constants in sgd_constants()) {
        let before = Parts::new(&lengths, seed);
        for isa in ISAS {
            isa.scoped(|| {
                let (mut after, mut again) = (before.clone(), before.clone());
                let mut sizes = vec![UpdateSize::default(); lengths.len()];
                after.sgd(&constants, Some(&mut sizes));
                again.sgd(&constants, None);
                assert_eq!(after, again);
                sizes_fit(&sizes, &before, &after);
                for (i, len) in lengths.iter().enumerate() {
                    for k in 0..*len {
                        let [p, v] = naive_sgd(&constants, &before, i, k);
                        close(after.parameter[i][k], p);
                        close(after.first[i][k], v);
                    }
                }
            });
        }
    }

    #[test]
    fn norm_scale_and_average_equal_plain_loops(lengths in lengths(), seed in 0u64..1000, factor in -2f64..2.0) {
        let parts = Parts::new(&lengths, seed);
        let expected: f64 = parts.gradient.iter().flatten().map(|x| f64::from(*x).powi(2)).sum();
        for isa in ISAS {
            isa.scoped(|| {
                let slices: Vec<&[f32]> = parts.gradient.iter().map(Vec::as_slice).collect();
                let sum = sum_of_squares(&slices);
                assert!((sum - expected).abs() <= 1e-9 * expected, "{sum} against {expected}");

                let mut scaled = parts.gradient.clone();
                scale(&mut scaled.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), factor);
                let mut averaged = parts.parameter.clone();
                average(&mut averaged.iter_mut().map(Vec::as_mut_slice).zip(slices).collect::<Vec<_>>(), factor);
                for (i, len) in lengths.iter().enumerate() {
                    for k in 0..*len {
                        let (p, g) = (f64::from(parts.parameter[i][k]), f64::from(parts.gradient[i][k]));
                        close(scaled[i][k], factor * g);
                        close(averaged[i][k], factor * p + (1.0 - factor) * g);
                    }
                }
            });
        }
    }
}

/// Everything the kernels write, as bits.
fn run_all() -> Vec<u64> {
    let lengths = [100_000, 3, 0, 70_001, 16, 33_000];
    let mut parts = Parts::new(&lengths, 5);
    let mut sizes = vec![UpdateSize::default(); lengths.len()];
    let mut bits = Vec::new();
    parts.adamw(&AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }, Some(&mut sizes));
    bits.extend(sizes.iter().flat_map(|size| [size.change.to_bits(), size.parameter.to_bits()]));
    parts.sgd(&Sgd { momentum: 0.9, dampening: 0.1, nesterov: true, weight_decay: 0.01 }, Some(&mut sizes));
    bits.extend(sizes.iter().flat_map(|size| [size.change.to_bits(), size.parameter.to_bits()]));
    let slices: Vec<&[f32]> = parts.parameter.iter().map(Vec::as_slice).collect();
    bits.push(sum_of_squares(&slices).to_bits());
    let Parts { parameter, gradient, .. } = &mut parts;
    average(
        &mut gradient
            .iter_mut()
            .map(Vec::as_mut_slice)
            .zip(parameter.iter().map(Vec::as_slice))
            .collect::<Vec<_>>(),
        0.99,
    );
    let all = [parts.parameter, parts.gradient, parts.first, parts.second];
    bits.extend(all.iter().flatten().flatten().map(|x| u64::from(x.to_bits())));
    bits
}

/// No operation is contracted or reordered, so not even the instruction set changes a bit.
#[test]
fn bits_depend_on_nothing_but_the_input() {
    let expected = run_all();
    for isa in ISAS {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bits = pool.install(|| isa.scoped(run_all));
            assert!(bits == expected, "{isa:?} on {threads} threads");
        }
    }
}

#[test]
fn the_norm_is_finite_exactly_where_every_gradient_is() {
    assert_eq!(sum_of_squares(&[]), 0.0);
    assert!(sum_of_squares(&[&[f32::MAX; 1000]]).is_finite());
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for at in [0, 15, 32, 40_000, 70_000] {
            let mut values = vec![1.0; 70_001];
            values[at] = bad;
            assert!(!sum_of_squares(&[&[1.0; 5], &values, &[1.0; 7]]).is_finite(), "{bad} at {at}");
        }
    }
}

#[test]
fn keeping_nothing_copies_whatever_the_target_held() {
    let mut target = [f32::NAN, 1.0, f32::INFINITY];
    average(&mut [(&mut target, &[1.0, 2.0, 3.0])], 0.0);
    assert_eq!(target, [1.0, 2.0, 3.0]);
}

#[test]
#[should_panic(expected = "square")]
fn a_moment_of_another_length_is_refused() {
    adamw(
        &AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 },
        &mut [AdamWPart {
            parameter: &mut [0.0; 3],
            gradient: &[0.0; 3],
            mean: &mut [0.0; 3],
            square: &mut [0.0; 2],
            updates: 1,
            rate: 0.1,
        }],
        None,
    );
}

#[test]
#[should_panic(expected = "sizes")]
fn a_size_too_few_is_refused() {
    let mut parts = Parts::new(&[3, 4], 0);
    let constants = Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    parts.sgd(&constants, Some(&mut [UpdateSize::default()]));
}
