//! Filtering two real images at once with a real, symmetric transfer function.

use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlannerScalar};

/// The smallest size from `size` up with no prime factor above 5, where the transform is fast.
pub fn fast_size(size: usize) -> usize {
    let smooth = |mut n: usize| {
        for factor in [2, 3, 5] {
            while n.is_multiple_of(factor) {
                n /= factor;
            }
        }
        n == 1
    };
    (size.max(1)..).find(|&n| smooth(n)).unwrap_or(size)
}

/// Multiplies the spectra of two images, held as real and imaginary part, by `transfer`, which gets signed
/// frequencies `(x, y)` in cycles per pixel, each in -0.5..0.5, and must be even in `(x, y)`.
pub fn filter(canvas: &mut [Complex<f32>], width: usize, height: usize, transfer: impl Fn(f64, f64) -> f64) {
    if canvas.is_empty() {
        return;
    }
    // Scalar code: the bits must not depend on which vector instructions this processor has.
    let mut planner = FftPlannerScalar::new();
    let mut pass = |buffer: &mut [Complex<f32>], size: usize, forward: bool| {
        let fft: Arc<dyn Fft<f32>> =
            if forward { planner.plan_fft_forward(size) } else { planner.plan_fft_inverse(size) };
        fft.process(buffer);
    };
    let mut turned = vec![Complex::default(); canvas.len()];
    pass(canvas, width, true);
    transpose(canvas, &mut turned, width, height);
    pass(&mut turned, height, true);
    let scale = 1.0 / (width * height) as f64;
    for (kx, column) in turned.chunks_exact_mut(height).enumerate() {
        let x = signed(kx, width);
        for (ky, value) in column.iter_mut().enumerate() {
            *value *= (transfer(x, signed(ky, height)) * scale) as f32;
        }
    }
    pass(&mut turned, height, false);
    transpose(&turned, canvas, height, width);
    pass(canvas, width, false);
}

/// Frequency in cycles per pixel of bin `k` of `size`.
fn signed(k: usize, size: usize) -> f64 {
    if 2 * k < size { k as f64 / size as f64 } else { k as f64 / size as f64 - 1.0 }
}

/// `from` has rows of `width`; `to` gets rows of `height`. In blocks, so that both stay in cache.
fn transpose(from: &[Complex<f32>], to: &mut [Complex<f32>], width: usize, height: usize) {
    const BLOCK: usize = 16;
    for top in (0..height).step_by(BLOCK) {
        for left in (0..width).step_by(BLOCK) {
            for y in top..(top + BLOCK).min(height) {
                for x in left..(left + BLOCK).min(width) {
                    to[x * height + y] = from[y * width + x];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_sizes_have_small_factors_only() {
        assert_eq!([0, 1, 7, 96, 97, 1240, 1201].map(fast_size), [1, 1, 8, 96, 100, 1250, 1215]);
    }

    #[test]
    fn a_transfer_of_one_changes_nothing_and_keeps_the_two_images_apart() {
        let (width, height) = (20, 9);
        let original: Vec<_> =
            (0..width * height).map(|i| Complex::new((i % 7) as f32, (i % 11) as f32)).collect();
        let mut canvas = original.clone();
        filter(&mut canvas, width, height, |_, _| 1.0);
        assert!(canvas.iter().zip(&original).all(|(a, b)| (a - b).norm() < 1e-4));
        // A low-pass of the real image alone leaves the imaginary one empty.
        let mut real: Vec<_> = original.iter().map(|v| Complex::new(v.re, 0.0)).collect();
        filter(&mut real, width, height, |x, y| (-40.0 * (x * x + y * y)).exp());
        assert!(real.iter().all(|v| v.im.abs() < 1e-4));
    }

    #[test]
    fn a_plane_wave_is_scaled_by_the_transfer_at_its_frequency() {
        let (width, height) = (24, 15);
        let wave = |i: usize| {
            let (x, y) = ((i % width) as f64, (i / width) as f64);
            (std::f64::consts::TAU * (x * 3.0 / width as f64 - y * 2.0 / height as f64)).cos() as f32
        };
        let mut canvas: Vec<_> = (0..width * height).map(|i| Complex::new(wave(i), 0.0)).collect();
        let transfer = |x: f64, y: f64| x * y;
        filter(&mut canvas, width, height, transfer);
        let gain = transfer(3.0 / width as f64, -2.0 / height as f64) as f32;
        assert!(canvas.iter().enumerate().all(|(i, v)| (v.re - gain * wave(i)).abs() < 1e-5));
    }
}
