//! What the run will take: time from the steps done so far and one validation, memory from the most this process had.

use std::time::Instant;

use trimtab_doctor::series::median;

use super::bench::duration;
use super::horizons::validations;
use super::{Bench, Checked, Item, Trouble, Verdict, thousands};

/// Forward takes about a third of a step, which goes forward and back.
const FORWARD: f64 = 1.0 / 3.0;
/// Steps timed where every term of the loss counts.
const LATE: u64 = 3;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let stages = bench.declared()?;
    let keys = bench.keys.clone();
    let step = typical(bench)?;
    let steps: u64 = stages.iter().map(|s| s.steps).sum();
    let count: u64 = stages.iter().map(|s| validations(&keys, s)).sum();
    let estimate = bench.probe()?.validation_batches() * FORWARD * step;
    let mut each = estimate;
    let mut how = "estimated";
    if estimate <= 0.5 * bench.left() {
        let begun = Instant::now();
        bench.enter()?;
        bench.probe()?.evaluate()?;
        each = begun.elapsed().as_secs_f64();
        how = "measured";
    }
    // Stages differ in their batch: the first one was timed, work grows with the samples.
    let samples = |i: usize| (stages[i].batch * stages[i].accumulate) as f64;
    let first = samples(0).max(1.0);
    let training: f64 = (0..stages.len()).map(|i| stages[i].steps as f64 * step * samples(i) / first).sum();
    let total = training + count as f64 * each;
    let mut message = format!(
        "about {} for {} steps at {} and {count} validations at {} ({how})",
        duration(total),
        thousands(steps),
        duration(step),
        duration(each)
    );
    let memory = Memory::now();
    let mut verdict = Verdict::Pass;
    if let Some(memory) = memory {
        message += &format!("; {} of memory", gigabytes(memory.peak));
        if memory.peak > memory.free {
            verdict = Verdict::Warn;
            message += &format!(", of which {} are free", gigabytes(memory.free));
        }
    }
    let mut item = Item::new("cost", verdict, message)
        .number("seconds", total)
        .number("steps", steps)
        .number("step_seconds", step)
        .number("validations", count)
        .number("validation_seconds", each);
    if let Some(memory) = memory {
        item = item.number("memory_bytes", memory.peak).number("memory_free_bytes", memory.free);
    }
    if verdict == Verdict::Warn {
        item = item.cause("ended-early");
    }
    Ok(vec![item])
}

/// Seconds of a step, over the run: terms of the loss that come in late cost from then on.
fn typical(bench: &mut Bench<'_>) -> Result<f64, Trouble> {
    let early = bench.step_seconds()?;
    let stage = bench.first_stage()?;
    let settled = stage.settled();
    if stage.weights.iter().all(|w| w.until == 0) || bench.afford(LATE as f64 + 1.0).is_err() {
        return Ok(early);
    }
    bench.enter()?;
    let mut late = Vec::new();
    for step in settled..settled + LATE {
        let begun = Instant::now();
        bench.step(step, settled, None)?;
        late.push(begun.elapsed().as_secs_f64());
    }
    let late = median(late).unwrap_or(early);
    let share = settled as f64 / stage.steps.max(1) as f64;
    Ok(early * share + late * (1.0 - share))
}

/// In bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// The most this process had.
    peak: u64,
    /// What there is for it, with what it has already.
    free: u64,
}

impl Memory {
    /// Where the system tells (Linux).
    fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let system = std::fs::read_to_string("/proc/meminfo").ok()?;
        let (peak, own) = (field(&status, "VmHWM:")?, field(&status, "VmRSS:")?);
        Some(Self { peak, free: field(&system, "MemAvailable:")? + own })
    }
}

/// A line `NAME  123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn gigabytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_lines_are_read() {
        assert_eq!(field("VmPeak: 5 kB\nVmHWM:\t  2048 kB\n", "VmHWM:"), Some(2048 * 1024));
        assert_eq!(field("VmHWM: many\n", "VmHWM:"), None);
        assert_eq!(
            (gigabytes(2_100_000_000), gigabytes(45_000_000)),
            ("2.1 GB".to_owned(), "45 MB".to_owned())
        );
    }
}
