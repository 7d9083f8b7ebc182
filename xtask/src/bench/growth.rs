//! Time of a training step of the 2-D U-Net over threads, batch and size.

use std::path::PathBuf;

use trimtab_nn::models::unet2d::STRIDE;

use super::kernels::{unet_gflop, unet2d};
use super::torch::Torch;

/// What to time.
#[derive(clap::Args)]
pub struct Args {
    /// Channels of the U-Net's first level.
    #[arg(long, default_value_t = 16)]
    base: usize,
    /// Threads.
    #[arg(long, default_value = "1,2", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Images a step.
    #[arg(long, default_value = "1,2,4,8", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Side of the images, in pixels; multiples of 16.
    #[arg(long, default_value = "64,128,256,512", value_delimiter = ',')]
    size: Vec<usize>,
    /// A file to source that sets PY to a Python with PyTorch; without it only our side is timed.
    #[arg(long, value_name = "ENV_FILE")]
    torch: Option<PathBuf>,
}

/// Times and prints.
pub fn run(args: &Args) -> crate::Outcome {
    if let Some(size) = args.size.iter().find(|size| **size == 0 || !size.is_multiple_of(STRIDE)) {
        return Err(format!("--size {size}: the U-Net takes multiples of {STRIDE}").into());
    }
    println!("| threads | batch | size | Trimtab, ms | GFLOP/s | ns a pixel | PyTorch, ms | ratio |");
    println!("|---|---|---|---|---|---|---|---|");
    for &threads in &args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for &batch in &args.batch {
            for &size in &args.size {
                let ours = pool.install(|| unet2d(args.base, batch, size, 2, 5)).median;
                let theirs = match &args.torch {
                    Some(environment) => {
                        let torch = Torch { environment: environment.clone(), threads };
                        let item = format!("unet2d:{}:{batch}:{size}", args.base);
                        let lines = torch.run(&[item, "--steps".to_owned(), "5".to_owned()])?;
                        lines.iter().find_map(|line| line["median_ms"].as_f64())
                    }
                    None => None,
                };
                let speed = unet_gflop(2, args.base, 4, batch, size) / ours * 1e3;
                let (theirs, ratio) = match theirs {
                    Some(t) => (format!("{t:.1}"), format!("{:.2}", ours / t)),
                    None => ("-".to_owned(), "-".to_owned()),
                };
                let pixel = ours * 1e6 / (batch * size * size) as f64;
                println!(
                    "| {threads} | {batch} | {size}² | {ours:.1} | {speed:.0} | {pixel:.0} | {theirs} | {ratio} |"
                );
            }
        }
    }
    Ok(())
}
