//! Pooling against PyTorch (`goldens/pool.py`) and against plain loops in `f64`, on every instruction set.

use proptest::prelude::*;
use serde_json::Value;
use trimtab_kernels::Isa;
use trimtab_kernels::pool::{
    Pool, adaptive_average, adaptive_average_backward, average, average_backward, max, max_backward, max_only,
};

const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

fn volume(size: [usize; 3]) -> usize {
    size.iter().product()
}

/// Random multiples of 1/4 in -4..4, so that there are ties.
fn coarse(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 59) as f32 / 4.0 - 4.0
    };
    (0..len).map(|_| next()).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn assert_close(name: &str, ours: &[f32], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let largest = theirs.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((f64::from(*a) - b).abs() <= 1e-4 * largest, "{name}[{i}]: {a} against {b}");
    }
}

/// For each output element of a plane the places of its window's elements, and their number with the padding's.
fn windows(p: &Pool) -> Vec<(Vec<usize>, usize)> {
    let axis = |a: usize, o: usize| {
        let begin = (o * p.stride[a]) as isize - p.padding[a] as isize;
        let all: Vec<isize> = (0..p.kernel[a]).map(|k| begin + (k * p.dilation[a]) as isize).collect();
        let counted = all.iter().filter(|&&i| i < (p.size[a] + p.padding[a]) as isize).count();
        let inside: Vec<usize> =
            all.into_iter().filter(|&i| i >= 0 && i < p.size[a] as isize).map(|i| i as usize).collect();
        (inside, counted)
    };
    let [d, h, w] = p.output();
    let mut windows = Vec::new();
    for o in 0..d * h * w {
        let ((zs, cz), (ys, cy), (xs, cx)) = (axis(0, o / (h * w)), axis(1, o / w % h), axis(2, o % w));
        let mut places = Vec::new();
        for &z in &zs {
            for &y in &ys {
                places.extend(xs.iter().map(|x| (z * p.size[1] + y) * p.size[2] + x));
            }
        }
        windows.push((places, cz * cy * cx));
    }
    windows
}

fn adaptive_windows(size: [usize; 3], output: [usize; 3]) -> Vec<Vec<usize>> {
    let axis = |a: usize, o: usize| {
        let (scale, o) = (size[a] as f64 / output[a] as f64, o as f64);
        // A little less and more, for what is a whole number but for rounding.
        (o * scale + 1e-9).floor() as usize..((o + 1.0) * scale - 1e-9).ceil() as usize
    };
    let mut windows = Vec::new();
    for o in 0..volume(output) {
        let mut places = Vec::new();
        for z in axis(0, o / (output[1] * output[2])) {
            for y in axis(1, o / output[2] % output[1]) {
                places.extend(axis(2, o % output[2]).map(|x| (z * size[1] + y) * size[2] + x));
            }
        }
        windows.push(places);
    }
    windows
}

/// Runs `f` twice on every instruction set; all results must be the same bits.
fn everywhere<R: PartialEq + std::fmt::Debug>(f: impl Fn() -> R) -> R {
    let result = f();
    for isa in ISAS {
        isa.scoped(|| assert!(f() == result, "{isa:?} gives other bits"));
    }
    result
}

fn check_max(p: &Pool, x: &[f32]) {
    let (windows, inputs) = (windows(p), volume(p.size));
    let outputs = windows.len();
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for plane in 0..p.planes {
        for (window, _) in &windows {
            let (mut best, mut place) = (f32::NEG_INFINITY, window.first().map_or(u32::MAX, |&i| i as u32));
            for &i in window {
                let value = x[plane * inputs + i];
                if value > best || value.is_nan() {
                    (best, place) = (value, i as u32);
                }
            }
            values.push(best);
            places.push(place);
        }
    }
    let dy = coarse(values.len(), 9);
    let mut gradient = vec![0.0; x.len()];
    for (o, &place) in places.iter().enumerate().filter(|(_, place)| **place != u32::MAX) {
        gradient[o / outputs * inputs + place as usize] += f64::from(dy[o]);
    }
    let (y, index, dx) = everywhere(|| {
        let (mut y, mut index) = (vec![7.0; values.len()], vec![7; values.len()]);
        max(p, x, &mut y, &mut index);
        let mut alone = vec![7.0; values.len()];
        max_only(p, x, &mut alone);
        assert_eq!(bits(&alone), bits(&y));
        let mut dx = vec![7.0; x.len()];
        max_backward(p, &index, &dy, &mut dx);
        (bits(&y), index, bits(&dx))
    });
    assert_eq!(y, bits(&values), "{p:?}");
    assert_eq!(index, places, "{p:?}");
    let dx: Vec<f32> = dx.into_iter().map(f32::from_bits).collect();
    assert_close("dx", &dx, &gradient);
}

/// `forward` and `backward` against averages over `windows`, the places in a plane of `inputs` and the divisor.
fn check_average(
    planes: usize,
    inputs: usize,
    windows: &[(Vec<usize>, usize)],
    forward: impl Fn(&[f32], &mut [f32]),
    backward: impl Fn(&[f32], &mut [f32]),
) {
    let (x, dy) = (coarse(planes * inputs, 3), coarse(planes * windows.len(), 4));
    let (mut values, mut gradient) = (Vec::new(), vec![0.0; x.len()]);
    for o in 0..dy.len() {
        let (start, (window, count)) = (o / windows.len() * inputs, &windows[o % windows.len()]);
        values.push(window.iter().map(|i| f64::from(x[start + i])).sum::<f64>() / *count as f64);
        for i in window {
            gradient[start + i] += f64::from(dy[o]) / *count as f64;
        }
    }
    let (y, dx) = everywhere(|| {
        let (mut y, mut dx) = (vec![7.0; dy.len()], vec![7.0; x.len()]);
        forward(&x, &mut y);
        backward(&dy, &mut dx);
        (bits(&y), bits(&dx))
    });
    assert_close("y", &y.into_iter().map(f32::from_bits).collect::<Vec<_>>(), &values);
    assert_close("dx", &dx.into_iter().map(f32::from_bits).collect::<Vec<_>>(), &gradient);
}

fn check_average_pool(p: &Pool, count_include_pad: bool) {
    let mut windows = windows(p);
    if !count_include_pad {
        windows.iter_mut().for_each(|(places, count)| *count = places.len());
    }
    check_average(
        p.planes,
        volume(p.size),
        &windows,
        |x, y| average(p, count_include_pad, x, y),
        |dy, dx| average_backward(p, count_include_pad, dy, dx),
    );
}

fn check_adaptive(planes: usize, size: [usize; 3], output: [usize; 3]) {
    let windows: Vec<_> = adaptive_windows(size, output).into_iter().map(|w| (w.clone(), w.len())).collect();
    check_average(
        planes,
        volume(size),
        &windows,
        |x, y| adaptive_average(planes, size, output, x, y),
        |dy, dx| adaptive_average_backward(planes, size, output, dy, dx),
    );
}

fn small(max: usize) -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        (1..=max).prop_map(|w| [1, 1, w]),
        (1..=max, 1..=max).prop_map(|(h, w)| [1, h, w]),
        (1..=max / 2, 1..=max / 2, 1..=max).prop_map(|(d, h, w)| [d, h, w]),
    ]
}

/// Geometries that have a window, dilated or not.
fn pools(dilated: bool) -> impl Strategy<Value = Pool> {
    let threes = |max| [1..=max, 1..=max, 1..=max];
    let dilation = if dilated { 3 } else { 1 };
    (0..4usize, small(40), threes(4usize), threes(4usize), threes(4usize), threes(dilation), any::<bool>())
        .prop_map(|(planes, size, kernel, stride, padding, dilation, ceil_mode)| {
            let extent = |a: usize| (kernel[a] - 1) * dilation[a] + 1;
            let padding = std::array::from_fn(|a| (padding[a] - 1).min(extent(a) / 2));
            Pool { planes, size, kernel, stride, padding, dilation, ceil_mode }
        })
        .prop_filter("a window", |p| {
            (0..3).all(|a| p.size[a] + 2 * p.padding[a] > (p.kernel[a] - 1) * p.dilation[a])
        })
}

/// Windows that tile the plane.
fn tilings() -> impl Strategy<Value = Pool> {
    let kernel = (1..=2usize, 1..=2usize, 2..=3usize, any::<bool>());
    (0..4usize, small(70), kernel).prop_filter_map("a window", |(planes, size, (d, h, w, ceil_mode))| {
        let pool = Pool { ceil_mode, ..Pool::new(planes, size, [d, h, w]) };
        (d <= size[0] && h <= size[1] && w <= size[2]).then_some(pool)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn max_is_that_of_plain_loops(p in prop_oneof![pools(true), tilings()], seed: u64, special in 0..4) {
        let mut x = coarse(p.planes * volume(p.size), seed);
        match special {
            0 => x.iter_mut().step_by(5).for_each(|x| *x = f32::NAN),
            1 => x.iter_mut().filter(|x| **x < 2.0).for_each(|x| *x = f32::NEG_INFINITY),
            _ => {}
        }
        check_max(&p, &x);
    }

    #[test]
    fn average_is_that_of_plain_loops(p in prop_oneof![pools(false), tilings()], count_include_pad: bool) {
        check_average_pool(&p, count_include_pad);
    }

    #[test]
    fn adaptive_average_is_that_of_plain_loops(planes in 0..4usize, size in small(40), output in small(12)) {
        check_adaptive(planes, size, output);
    }
}

#[test]
fn large_planes_are_cut() {
    for (planes, size) in [(1, [1, 301, 517]), (3, [1, 200, 300]), (2, [21, 66, 71]), (1, [1, 1, 100_003])] {
        let thick = |n: usize| size.map(|s| if s == 1 { 1 } else { n });
        let overlapping = Pool {
            stride: thick(2),
            padding: thick(1).map(|n| n * usize::from(n > 1)),
            ..Pool::new(planes, size, thick(3))
        };
        let padded = Pool { padding: std::array::from_fn(|a| usize::from(size[a] > 1)), ..overlapping };
        for p in [Pool::new(planes, size, thick(2)), Pool::new(planes, size, thick(3)), overlapping, padded] {
            if p.padding.iter().zip(p.kernel).any(|(p, k)| *p > k / 2) {
                continue;
            }
            check_max(&p, &coarse(planes * volume(size), 5));
            check_average_pool(&p, false);
        }
        for output in [[1; 3], thick(7)] {
            check_adaptive(planes, size, output);
        }
    }
}

#[test]
fn gradients_are_the_slopes() {
    let p = Pool { stride: [1, 2, 2], padding: [0, 1, 1], ..Pool::new(2, [3, 6, 7], [2, 3, 3]) };
    let inputs = p.planes * volume(p.size);
    let outputs = p.planes * volume(p.output());
    // Distinct values, further apart than the step.
    let x: Vec<f32> = (0..inputs).map(|i| (i * 89 % inputs) as f32 / 16.0).collect();
    let dy = coarse(outputs, 8);
    let slope = |forward: &dyn Fn(&[f32], &mut [f32]), i: usize| {
        let value = |step: f32| {
            let (mut x, mut y) = (x.clone(), vec![0.0; outputs]);
            x[i] += step;
            forward(&x, &mut y);
            y.iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
        };
        (value(0.01) - value(-0.01)) / 0.02
    };
    let (mut y, mut index, mut dx) = (vec![0.0; outputs], vec![0; outputs], vec![0.0; inputs]);
    max(&p, &x, &mut y, &mut index);
    max_backward(&p, &index, &dy, &mut dx);
    for (i, dx) in dx.iter().enumerate() {
        assert!((slope(&|x, y| max_only(&p, x, y), i) - f64::from(*dx)).abs() < 0.02, "max, [{i}]");
    }
    average_backward(&p, false, &dy, &mut dx);
    for (i, dx) in dx.iter().enumerate() {
        assert!((slope(&|x, y| average(&p, false, x, y), i) - f64::from(*dx)).abs() < 0.02, "average, [{i}]");
    }
}

#[test]
fn values_equal_pytorch() {
    let golden: Vec<Value> = serde_json::from_str(include_str!("../../../goldens/pool.json")).unwrap();
    for case in &golden {
        let numbers = |name: &str| -> Vec<f64> {
            case[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let floats = |name: &str| -> Vec<f32> { numbers(name).into_iter().map(|x| x as f32).collect() };
        let three = |name: &str| -> [usize; 3] { std::array::from_fn(|a| numbers(name)[a] as usize) };
        let flag = |name: &str| case[name].as_bool().unwrap();
        let (x, dy, size, output) = (floats("x"), floats("dy"), three("size"), three("output"));
        let (mut y, mut dx) = (vec![7.0; dy.len()], vec![7.0; x.len()]);
        let geometry = || Pool {
            planes: 2,
            size,
            kernel: three("kernel"),
            stride: three("stride"),
            padding: three("padding"),
            dilation: three("dilation"),
            ceil_mode: flag("ceil_mode"),
        };
        match case["kind"].as_str().unwrap() {
            "max" => {
                let p = geometry();
                assert_eq!(p.output(), output, "{p:?}");
                let mut index = vec![7; dy.len()];
                max(&p, &x, &mut y, &mut index);
                assert!(index.iter().map(|&i| f64::from(i)).eq(numbers("index")), "{p:?}");
                max_backward(&p, &index, &dy, &mut dx);
            }
            "avg" => {
                let p = geometry();
                assert_eq!(p.output(), output, "{p:?}");
                average(&p, flag("count_include_pad"), &x, &mut y);
                average_backward(&p, flag("count_include_pad"), &dy, &mut dx);
            }
            "adaptive" => {
                adaptive_average(2, size, output, &x, &mut y);
                adaptive_average_backward(2, size, output, &dy, &mut dx);
            }
            // Those of tests/resize.rs.
            _ => continue,
        }
        assert_close(&format!("y of {case}"), &y, &numbers("y"));
        assert_close(&format!("dx of {case}"), &dx, &numbers("dx"));
    }
}

#[test]
fn a_wrong_length_is_named() {
    let p = Pool::new(1, [1, 4, 4], [1, 2, 2]);
    let message = |f: &(dyn Fn() + std::panic::RefUnwindSafe)| {
        *std::panic::catch_unwind(f).unwrap_err().downcast::<String>().unwrap()
    };
    assert!(message(&|| max_only(&p, &[0.0; 15], &mut [0.0; 4])).contains(": x\n"));
    assert!(message(&|| max(&p, &[0.0; 16], &mut [0.0; 4], &mut [0; 3])).contains(": index\n"));
    assert!(message(&|| max_backward(&p, &[0; 4], &[0.0; 4], &mut [0.0; 17])).contains(": dx\n"));
    assert!(message(&|| average(&p, true, &[0.0; 16], &mut [0.0; 5])).contains(": y\n"));
}
