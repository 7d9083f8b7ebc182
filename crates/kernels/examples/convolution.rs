//! Speed of the three parts of a convolution, without Burn: `cargo run --release -p trimtab-kernels --example convolution`.
//! With a number as argument on so many threads (otherwise two).

use std::time::Instant;

use trimtab_kernels::conv::{self, Conv};

fn plain(batch: usize, input: usize, output: usize, size: usize, kernel: usize) -> Conv {
    Conv {
        batch,
        input,
        output,
        groups: 1,
        size: [1, size, size],
        kernel: [1, kernel, kernel],
        stride: [1; 3],
        padding: [0, kernel / 2, kernel / 2],
        dilation: [1; 3],
    }
}

fn solid(channels: usize, size: usize) -> Conv {
    Conv { size: [size; 3], kernel: [3; 3], padding: [1; 3], ..plain(1, channels, channels, size, 3) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = match std::env::args().nth(1) {
        Some(given) => given.parse().map_err(|e| format!("`{given}` is no number of threads: {e}"))?,
        None => 2,
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    println!("GFLOP/s (milliseconds), medians of 9          forward         by input        by weight");
    for (name, c) in [
        ("3x3, 64 channels, 4 x 128²", plain(4, 64, 64, 128, 3)),
        ("3x3, 16 channels, 4 x 128²", plain(4, 16, 16, 128, 3)),
        ("3x3, 256 channels, 4 x 8²", plain(4, 256, 256, 8, 3)),
        ("3x3, 512 channels, 32²", plain(1, 512, 512, 32, 3)),
        ("3x3, 1024 channels, 16²", plain(1, 1024, 1024, 16, 3)),
        ("1x1, 256 channels, 4 x 64²", plain(4, 256, 256, 64, 1)),
        (
            "3x3 of dilation 4, 128 channels, 2 x 64²",
            Conv { padding: [0, 4, 4], dilation: [1, 4, 4], ..plain(2, 128, 128, 64, 3) },
        ),
        (
            "3x3 of dilation 120, 32 channels, 256²",
            Conv { padding: [0, 120, 120], dilation: [1, 120, 120], ..plain(1, 32, 32, 256, 3) },
        ),
        (
            "7x7 of stride 2, 3 to 64 channels, 4 x 224²",
            Conv { stride: [1, 2, 2], ..plain(4, 3, 64, 224, 7) },
        ),
        (
            "2x2 of stride 2, 64 to 128 channels, 256²",
            Conv { stride: [1, 2, 2], padding: [0; 3], ..plain(1, 64, 128, 256, 2) },
        ),
        ("depthwise 7x7, 96 channels, 4 x 64²", Conv { groups: 96, ..plain(4, 96, 96, 64, 7) }),
        ("3x3x3, 8 channels, 48³", solid(8, 48)),
        ("3x3x3, 32 channels, 48³", solid(32, 48)),
    ] {
        let ramp = |n: usize| -> Vec<f32> { (0..n).map(|i| (i % 1009) as f32 / 1009.0 - 0.5).collect() };
        let (x, w, dy) = (ramp(c.input_len()), ramp(c.weight_len()), ramp(c.output_len()));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let positions: usize = c.out_size().iter().product();
        let gflop = 2e-9 * (c.batch * positions * c.weight_len()) as f64;
        let part = |call: &mut dyn FnMut()| {
            let mut times: Vec<f64> = (0..11)
                .map(|_| {
                    let start = Instant::now();
                    call();
                    start.elapsed().as_secs_f64()
                })
                .skip(2)
                .collect();
            times.sort_by(f64::total_cmp);
            format!("{:.0} ({:.2})", gflop / times[4], times[4] * 1e3)
        };
        let forward = part(&mut || conv::forward(&c, &x, &w, None, &mut y));
        let by_input = part(&mut || conv::backward_input(&c, &dy, &w, &mut dx));
        let by_weight = part(&mut || conv::backward_weight(&c, &x, &dy, &mut dw));
        println!("{name:45} {forward:15} {by_input:15} {by_weight:15}");
    }
    Ok(())
}
