//! GELU and the scaled residual against f64, under every instruction set.

use proptest::prelude::*;
use trimtab_kernels::Isa;
use trimtab_kernels::pointwise::{
    gelu, gelu_backward, join, scaled_residual, scaled_residual_backward, split,
};

const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

/// Distribution function of the normal distribution by integration (Simpson), good to 1e-12.
fn distribution(x: f64) -> f64 {
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let steps = 2000;
    let h = x / f64::from(steps);
    let sum: f64 = (0..=steps)
        .map(|i| {
            let weight = if i == 0 || i == steps {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            };
            weight * density(h * f64::from(i))
        })
        .sum();
    0.5 + sum * h / 3.0
}

#[test]
fn gelu_and_its_slope_follow_the_definition_from_minus_twelve_to_twelve() {
    let x: Vec<f32> = (-1201..=1201).map(|i| i as f32 * 0.01).collect();
    let dy = vec![1.0; x.len()];
    for isa in ISAS {
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        isa.scoped(|| {
            gelu(&x, &mut y);
            gelu_backward(&x, &dy, &mut dx);
        });
        for ((x, y), dx) in x.iter().zip(y).zip(dx) {
            let (z, p) = (f64::from(*x), distribution(f64::from(*x)));
            let slope = p + z * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(y) - z * p).abs() < 3e-7 * z.abs().max(1.0), "gelu({x}) = {y}, not {}", z * p);
            assert!((f64::from(dx) - slope).abs() < 5e-7, "gelu'({x}) = {dx}, not {slope} ({isa:?})");
        }
    }
}

#[test]
fn gelu_far_out_is_the_line_and_zero_and_keeps_nan() {
    let x = [f32::NEG_INFINITY, -1e30, -50.0, 50.0, 1e30, f32::INFINITY, f32::NAN];
    for isa in ISAS {
        let mut y = [0.5; 7];
        isa.scoped(|| gelu(&x, &mut y));
        assert!(y[1..3].iter().all(|y| y.abs() < 1e-6), "{y:?}");
        assert_eq!(y[3..6], x[3..6]);
        assert!(y[6].is_nan());
    }
}

proptest! {
    #[test]
    fn joined_parts_lie_image_by_image_and_come_apart_again(
        batch in 0usize..4, of_a in 0usize..3000, of_b in 0usize..3000, large in any::<bool>(),
    ) {
        // Large ones are cut into pieces.
        let (of_a, of_b) = if large { (of_a * 30, of_b * 30) } else { (of_a, of_b) };
        let a: Vec<f32> = (0..batch * of_a).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..batch * of_b).map(|i| -1.0 - i as f32).collect();
        let mut y = vec![f32::NAN; a.len() + b.len()];
        join(batch, &a, &b, &mut y);
        let expected: Vec<f32> = (0..batch)
            .flat_map(|n| [&a[n * of_a..(n + 1) * of_a], &b[n * of_b..(n + 1) * of_b]].concat())
            .collect();
        prop_assert!(y == expected);
        let (mut a2, mut b2) = (vec![f32::NAN; a.len()], vec![f32::NAN; b.len()]);
        split(batch, &y, &mut a2, &mut b2);
        prop_assert!(a2 == a && b2 == b);
    }

    #[test]
    fn scaled_residual_and_its_gradients_follow_the_definition(
        batch in 0usize..4, channels in 1usize..9, inner in 1usize..200, seed in any::<u32>(),
    ) {
        let n = batch * channels * inner;
        let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8_388_608.0 - 1.0;
        let of = |shift: usize, n: usize| -> Vec<f32> { (0..n).map(|i| value(i + shift * 100_003)).collect() };
        let (x, y, dz, scale) = (of(0, n), of(1, n), of(2, n), of(3, channels));
        for isa in ISAS {
            let (mut z, mut dy, mut ds) = (vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; channels]);
            isa.scoped(|| {
                scaled_residual(batch, inner, &x, &y, &scale, &mut z);
                scaled_residual_backward(batch, inner, &y, &scale, &dz, &mut dy, &mut ds);
            });
            let mut expected = vec![0f64; channels];
            for i in 0..n {
                let c = i / inner % channels;
                prop_assert!((z[i] - (x[i] + scale[c] * y[i])).abs() < 1e-6);
                prop_assert!((dy[i] - scale[c] * dz[i]).abs() < 1e-6);
                expected[c] += f64::from(y[i]) * f64::from(dz[i]);
            }
            for (c, e) in expected.iter().enumerate() {
                prop_assert!((f64::from(ds[c]) - e).abs() < 1e-4 * e.abs().max(1.0));
            }
        }
    }
}
