//! Resizing against PyTorch (`goldens/pool.py`) and against plain loops in `f64`, on every instruction set.

use proptest::prelude::*;
use serde_json::Value;
use trimtab_kernels::Isa;
use trimtab_kernels::resize::{Mode, Resize, backward, forward};

const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

fn volume(size: [usize; 3]) -> usize {
    size.iter().product()
}

/// Random in -1..1.
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn assert_close(name: &str, ours: &[f32], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let largest = theirs.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((f64::from(*a) - b).abs() <= 1e-4 * largest, "{name}[{i}]: {a} against {b}");
    }
}

/// Elements and weights that output element `o` of axis `a` is made of.
fn sources(r: &Resize, a: usize, o: usize) -> Vec<(usize, f64)> {
    let (size, output) = (r.size[a], r.output[a]);
    let place = match r.mode {
        // In single precision, which is what decides between two elements in PyTorch.
        Mode::Nearest => return vec![((o as f32 * (size as f32 / output as f32)) as usize, 1.0)],
        Mode::Linear { align_corners: true } if output == 1 => 0.0,
        Mode::Linear { align_corners: true } => o as f64 * (size - 1) as f64 / (output - 1) as f64,
        Mode::Linear { .. } => ((o as f64 + 0.5) * size as f64 / output as f64 - 0.5).max(0.0),
    };
    let (first, last) = (place.floor() as usize, size - 1);
    vec![(first.min(last), 1.0 - place.fract()), ((first + 1).min(last), place.fract())]
}

fn check(r: &Resize) {
    let (inputs, outputs) = (volume(r.size), volume(r.output));
    let (x, dy) = (random(r.planes * inputs, 1), random(r.planes * outputs, 2));
    let (mut values, mut gradient) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    for o in 0..outputs {
        let [d, h, w] = [o / (r.output[1] * r.output[2]), o / r.output[2] % r.output[1], o % r.output[2]];
        for (z, weight_z) in sources(r, 0, d) {
            for (y, weight_y) in sources(r, 1, h) {
                for (x_, weight_x) in sources(r, 2, w) {
                    let (i, weight) = ((z * r.size[1] + y) * r.size[2] + x_, weight_z * weight_y * weight_x);
                    for plane in 0..r.planes {
                        values[plane * outputs + o] += weight * f64::from(x[plane * inputs + i]);
                        gradient[plane * inputs + i] += weight * f64::from(dy[plane * outputs + o]);
                    }
                }
            }
        }
    }
    let run = || {
        let (mut y, mut dx) = (vec![7.0; dy.len()], vec![7.0; x.len()]);
        forward(r, &x, &mut y);
        backward(r, &dy, &mut dx);
        (y, dx)
    };
    let (y, dx) = run();
    assert_close(&format!("y of {r:?}"), &y, &values);
    assert_close(&format!("dx of {r:?}"), &dx, &gradient);
    let bits = |(y, dx): (Vec<f32>, Vec<f32>)| y.into_iter().chain(dx).map(f32::to_bits).collect::<Vec<_>>();
    let first = bits((y, dx));
    for isa in ISAS {
        isa.scoped(|| assert!(bits(run()) == first, "{isa:?} gives other bits: {r:?}"));
    }
}

const MODES: [Mode; 3] =
    [Mode::Nearest, Mode::Linear { align_corners: false }, Mode::Linear { align_corners: true }];

fn sizes() -> impl Strategy<Value = ([usize; 3], [usize; 3])> {
    let size = prop_oneof![
        (1..40usize).prop_map(|w| [1, 1, w]),
        (1..20usize, 1..40usize).prop_map(|(h, w)| [1, h, w]),
        (1..9usize, 1..9usize, 1..30usize).prop_map(|(d, h, w)| [d, h, w]),
    ];
    // Each axis to the same size, twice it, or anything.
    let to = (0..3usize, 0..3usize, 0..3usize, 1..20usize, 1..20usize, 1..60usize);
    (size, to).prop_map(|(size, (d, h, w, any_d, any_h, any_w))| {
        let any = [any_d, any_h, any_w];
        (size, std::array::from_fn(|a| [size[a], 2 * size[a], any[a]][[d, h, w][a]]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn resizing_is_that_of_plain_loops(planes in 0..4usize, (size, output) in sizes(), mode in 0..3usize) {
        check(&Resize { planes, size, output, mode: MODES[mode] });
    }
}

#[test]
fn large_planes_are_cut() {
    for mode in MODES {
        check(&Resize { planes: 1, size: [1, 150, 170], output: [1, 300, 340], mode });
        check(&Resize { planes: 2, size: [20, 31, 33], output: [40, 62, 66], mode });
        check(&Resize { planes: 1, size: [20, 131, 73], output: [13, 62, 81], mode });
    }
}

#[test]
fn gradients_are_the_slopes() {
    for mode in MODES {
        let r = Resize { planes: 1, size: [2, 3, 4], output: [4, 5, 8], mode };
        let (x, dy) = (random(24, 1), random(160, 2));
        let mut dx = vec![0.0; 24];
        backward(&r, &dy, &mut dx);
        for i in 0..24 {
            let value = |step: f32| {
                let (mut x, mut y) = (x.clone(), vec![0.0; 160]);
                x[i] += step;
                forward(&r, &x, &mut y);
                y.iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
            };
            let slope = (value(0.5) - value(-0.5)) as f32;
            assert!((slope - dx[i]).abs() < 1e-4, "{mode:?}, [{i}]: {} against {slope}", dx[i]);
        }
    }
}

#[test]
fn values_equal_pytorch() {
    let golden: Vec<Value> = serde_json::from_str(include_str!("../../../goldens/pool.json")).unwrap();
    let mut seen = 0;
    for case in golden.iter().filter(|case| case.get("align_corners").is_some()) {
        let numbers = |name: &str| -> Vec<f64> {
            case[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let floats = |name: &str| -> Vec<f32> { numbers(name).into_iter().map(|x| x as f32).collect() };
        let three = |name: &str| -> [usize; 3] { std::array::from_fn(|a| numbers(name)[a] as usize) };
        let mode = match case["kind"].as_str().unwrap() {
            "nearest" => Mode::Nearest,
            _ => Mode::Linear { align_corners: case["align_corners"].as_bool().unwrap() },
        };
        let r = Resize { planes: 2, size: three("size"), output: three("output"), mode };
        let (mut y, mut dx) = (vec![7.0; numbers("y").len()], vec![7.0; numbers("x").len()]);
        forward(&r, &floats("x"), &mut y);
        backward(&r, &floats("dy"), &mut dx);
        assert_close(&format!("y of {r:?}"), &y, &numbers("y"));
        assert_close(&format!("dx of {r:?}"), &dx, &numbers("dx"));
        seen += 1;
    }
    assert!(seen > 10);
}

#[test]
#[should_panic(expected = "dx")]
fn a_wrong_length_is_named() {
    let r = Resize { planes: 1, size: [1, 2, 2], output: [1, 4, 4], mode: Mode::Nearest };
    backward(&r, &[0.0; 16], &mut [0.0; 5]);
}
