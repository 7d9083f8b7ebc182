//! A whole training step (forward, loss, backward, AdamW) of the 2-D U-Net, median of several, beside the same in
//! PyTorch (`benches/unet2d_step.py`) in one sitting.

use std::process::Command;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use trimtab_nn::losses::bce_with_logits;
use trimtab_nn::models::unet2d::UNet2dConfig;
use trimtab_nn::optim::{AdamW, AdamWConfig};
use trimtab_nn::params;

/// What to time.
#[derive(clap::Args)]
pub struct Args {
    /// Channels of the first level (64: 31,042,369 parameters).
    #[arg(long, default_value_t = 64)]
    base: usize,
    /// Images a step.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Side of the images, in pixels; a multiple of 16.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Steps timed, after one that is not.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// A Python with PyTorch; without it only our side is timed.
    #[arg(long)]
    python: Option<String>,
}

/// Times and prints.
pub fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    let config = UNet2dConfig { input: 1, output: 1, base: args.base };
    let mut net = config.init(&device, &mut ChaCha8Rng::seed_from_u64(0));
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let shape = [args.batch, 1, args.size, args.size];
    let x = Tensor::<4>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
    let y = x.clone().greater_elem(0.0).float();
    let mut times = Vec::new();
    for step in 0..=args.steps {
        let start = Instant::now();
        let loss = bce_with_logits(net.forward_train(x.clone()), y.clone(), y.ones_like(), 1.0);
        let gradients = params::gradients(&net, loss.backward());
        net = optimizer.step(net, gradients, |_| 1e-3, None).0;
        loss.into_scalar::<f32>();
        if step > 0 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let ours = times[times.len() / 2];
    println!(
        "trimtab  {:>9.1} ms  (base {}, batch {}, {}², {} steps)",
        ours, args.base, args.batch, args.size, args.steps
    );
    if let Some(python) = &args.python {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/unet2d_step.py");
        let numbers = [args.base, args.batch, args.size, args.steps as usize].map(|n| n.to_string());
        let out = Command::new(python).arg(script).args(numbers).output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let theirs: f64 = text
            .trim()
            .parse()
            .map_err(|_| format!("no time from PyTorch: {text}{}", String::from_utf8_lossy(&out.stderr)))?;
        println!("PyTorch  {theirs:>9.1} ms\nratio    {:>9.2}", ours / theirs);
    }
    Ok(())
}
