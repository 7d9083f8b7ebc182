//! Speed beside PyTorch, in one sitting.

mod faults;
mod growth;
mod kernels;
mod nets;
mod torch;

use clap::Subcommand;

#[derive(Subcommand)]
pub enum Bench {
    /// Single operators and whole training steps, beside PyTorch where it is given.
    Kernels(kernels::Args),
    /// How the time of a U-Net's training step grows with threads, batch and size of the images.
    Growth(growth::Args),
    /// Faults in small trainings of every recipe: found, named, repaired.
    Faults(faults::Args),
}

/// Times and prints.
pub fn run(bench: &Bench) -> crate::Outcome {
    match bench {
        Bench::Kernels(args) => kernels::run(args),
        Bench::Growth(args) => growth::run(args),
        Bench::Faults(args) => faults::run(args),
    }
}

/// Median, least and most of several times.
#[derive(Clone, Copy)]
pub struct Times {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

impl Times {
    /// Times `call`: `steps` repetitions after `warm` that do not count.
    pub fn measure(warm: usize, steps: usize, mut call: impl FnMut()) -> Self {
        let mut times = Vec::new();
        for step in 0..warm + steps {
            let start = std::time::Instant::now();
            call();
            if step >= warm {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        Self {
            median: times[times.len() / 2],
            min: times[0],
            max: times[times.len() - 1],
            count: times.len(),
        }
    }
}
