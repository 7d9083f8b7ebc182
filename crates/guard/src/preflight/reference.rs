//! The learning rate per sample of an update beside that of a run known to train well: the arithmetic of the doctor's `rate-too-low`
//! and `rate-too-high`.

use trimtab_doctor::show;

use super::{Bench, Checked, Item, Trouble, Verdict, times, toml};
use crate::Reference;

/// From here on it is no matter of taste.
const WARN: f64 = 4.0;
/// An order of magnitude.
const FAIL: f64 = 10.0;

/// A rate beside the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scaling {
    rate: f64,
    batch: f64,
    reference: f64,
    reference_batch: f64,
}

impl Scaling {
    /// The reference's rate at this batch: rates grow with the batch (Goyal et al. 2017).
    fn linear(self) -> f64 {
        self.reference * self.batch / self.reference_batch
    }

    /// The careful variant for adaptive optimizers: with its square root (Krizhevsky 2014).
    fn square_root(self) -> f64 {
        self.reference * (self.batch / self.reference_batch).sqrt()
    }

    /// How many times too small (true) or large the rate is by a rule.
    fn off(self, expected: f64) -> (bool, f64) {
        let factor = expected / self.rate;
        if factor >= 1.0 { (true, factor) } else { (false, 1.0 / factor) }
    }

    fn verdict(self, adaptive: bool) -> Verdict {
        let (small, factor) = self.off(self.linear());
        let (root_small, root) = self.off(self.square_root());
        // What is within reason by either rule is only worth a look.
        let near = adaptive && (root_small != small || root < WARN);
        match factor {
            f if f < WARN => Verdict::Pass,
            f if f >= FAIL && !near => Verdict::Fail,
            _ => Verdict::Warn,
        }
    }
}

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let Some(Reference { batch, accumulate, learning_rate }) = bench.guarded.settings.reference else {
        let how = "no reference: [reference] with batch and learning_rate of a run that trained well lets the rate be compared";
        return Err(Trouble::Skip(how.to_owned()));
    };
    let keys = &bench.keys;
    let stages = ["stage1", "stage2", "optim"].into_iter().filter_map(|prefix| {
        let rate = keys.number(&format!("{prefix}.learning_rate"))?;
        let count = |name: &str| keys.number(&format!("{prefix}.{name}")).unwrap_or(1.0);
        let scaling = Scaling {
            rate,
            batch: count("batch") * count("accumulate"),
            reference: learning_rate,
            reference_batch: (batch * accumulate) as f64,
        };
        Some(item(prefix, scaling, keys.text("optim.kind").unwrap_or("adamw")))
    });
    Ok(stages.collect())
}

fn item(prefix: &str, s: Scaling, optimizer: &str) -> Item {
    let verdict = s.verdict(optimizer != "sgd");
    let (small, factor) = s.off(s.linear());
    let expected = s.linear();
    let label = if prefix == "optim" { String::new() } else { format!("{prefix}: ") };
    let beside = format!(
        "{} at an effective batch of {} is {} at {}",
        show(s.reference),
        s.reference_batch,
        format_args!("{expected:.6}"),
        s.batch
    );
    let message = if verdict == Verdict::Pass {
        format!("{label}the learning rate {} is within {WARN}x of the reference ({beside})", show(s.rate))
    } else {
        let size = if small { "small" } else { "large" };
        let mut text = format!(
            "{label}the learning rate {} is {} too {size}: the reference's {beside}; recommended {expected:.6}",
            show(s.rate),
            times(factor)
        );
        if optimizer != "sgd" {
            text += &format!(
                " by the linear rule (for {optimizer} {:.6}, by the square root of the batch, is the careful end)",
                s.square_root()
            );
        }
        text
    };
    let mut item = Item::new("reference", verdict, message)
        .number("learning_rate", s.rate)
        .number("effective_batch", s.batch)
        .number("reference_learning_rate", s.reference)
        .number("reference_effective_batch", s.reference_batch)
        .number("factor", expected / s.rate)
        .number("recommended", expected)
        .number("square_root_recommended", s.square_root());
    if verdict != Verdict::Pass {
        item = item.advise(format!("{prefix}.learning_rate"), toml(expected));
        item = item.cause(if small { "learning-rate-too-low" } else { "learning-rate-too-high" });
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_s_rate_is_forty_times_too_small() {
        let s = Scaling { rate: 1e-4, batch: 128.0, reference: 2.5e-4, reference_batch: 8.0 };
        let found = item("optim", s, "adamw");
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.message.starts_with("the learning rate 1e-4 is 40.0x too small"), "{}", found.message);
        assert!(found.message.contains("recommended 0.004000"), "{}", found.message);
        assert_eq!(found.advice[0].value, "0.004");
        assert_eq!(found.cause, Some("learning-rate-too-low"));
    }

    #[test]
    fn the_square_root_softens_the_verdict_for_adaptive_optimizers_alone() {
        // Sixteen times the batch at the same rate times four: the square root's rate exactly, a quarter of the line's.
        let s = Scaling { rate: 1e-3, batch: 256.0, reference: 2.5e-4, reference_batch: 2.0 };
        assert!((s.linear() / s.rate - 32.0).abs() < 1e-9);
        assert_eq!((s.verdict(true), s.verdict(false)), (Verdict::Warn, Verdict::Fail));
        let same = Scaling { rate: 3e-4, batch: 8.0, reference: 2.5e-4, reference_batch: 8.0 };
        assert_eq!(same.verdict(false), Verdict::Pass);
        let high = Scaling { rate: 1e-2, ..same };
        assert_eq!((high.verdict(true), high.off(high.linear()).0), (Verdict::Fail, false));
    }
}
