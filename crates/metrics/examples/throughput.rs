//! Pixels a second of the streaming histogram: `cargo run --release --example throughput`.

use std::hint::black_box;
use std::time::Instant;

use trimtab_metrics::BinaryHistogram;

const PIXELS: usize = 1 << 24;
const ROUNDS: usize = 5;

fn main() -> Result<(), trimtab_metrics::Error> {
    let mut state = 1_u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0
    };
    let labels: Vec<i8> = (0..PIXELS).map(|i| i8::from(i % 4096 < 1350)).collect();
    let spread: Vec<f32> = (0..PIXELS).map(|_| uniform()).collect();
    let sigmoid: Vec<f32> = spread.iter().map(|u| 1.0 / (1.0 + (-30.0 * (u - 0.5)).exp())).collect();
    let saturated: Vec<f32> = spread.iter().map(|u| u.round()).collect();
    let ignoring: Vec<i8> =
        labels.iter().enumerate().map(|(i, &label)| if i % 8192 < 4096 { -1 } else { label }).collect();
    for (name, probabilities, labels) in [
        ("uniform on [0, 1]", &spread, &labels),
        ("sigmoid of logits in +-15", &sigmoid, &labels),
        ("all 0 or 1", &saturated, &labels),
        ("half of the labels ignored", &sigmoid, &ignoring),
    ] {
        let mut histogram = BinaryHistogram::new();
        let start = Instant::now();
        for _ in 0..ROUNDS {
            histogram.push(probabilities, labels)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        black_box(histogram.report(0.5));
        println!(
            "{name:28} {:6.0} M pixels/s   report {:.2} ms",
            (PIXELS * ROUNDS) as f64 / seconds / 1e6,
            start.elapsed().as_secs_f64() * 1e3,
        );
    }
    Ok(())
}
