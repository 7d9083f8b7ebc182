//! Overfits one batch at the configured rate. What can't even learn one batch by heart learns nothing; ten times more and less of the rate tell
//! whether the rate is to blame.

use trimtab_doctor::series::median;
use trimtab_doctor::show;
use trimtab_signals::names;

use super::bench::Bench;
use super::declared::Declared;
use super::{Checked, Item, Trouble, Verdict, toml};

/// Steps.
const STEPS: u64 = 30;
/// By this share the loss must fall.
const FALL: f64 = 0.2;
/// Less than this is no movement.
const STILL: f64 = 0.02;
/// As the doctor has it: at such updates the weights need 100,000 aligned steps to change.
const NOTHING: f64 = 1e-5;
/// A gradient that is cut by so much is another gradient.
const CUT: f64 = 100.0;

/// A run on one batch.
#[derive(Debug, Clone, Copy)]
struct Course {
    rate: f64,
    first: f64,
    last: f64,
    /// Share of the steps whose gradient was cut.
    clipped: f64,
    /// Norm of the gradient in the middle.
    gradient: f64,
    /// What an update changed of the weights, as a share of their size: in the middle, of the group where it is most.
    update: f64,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Learned,
    Slow,
    Still,
    Wild,
}

impl Course {
    /// Share of the loss that is gone. A loss below zero is measured by its size.
    fn fall(self) -> f64 {
        (self.first - self.last) / self.first.abs().max(1e-12)
    }

    fn end(self) -> End {
        match self.fall() {
            fall if fall.is_nan() => End::Wild,
            fall if fall >= FALL => End::Learned,
            fall if fall >= STILL => End::Slow,
            fall if fall < -FALL => End::Wild,
            _ => End::Still,
        }
    }
}

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let stage = bench.first_stage()?;
    if stage.rate <= 0.0 {
        return Err(Trouble::Skip("the learning rate is 0".to_owned()));
    }
    bench.afford(STEPS as f64)?;
    let at_peak = overfit(bench, &stage, stage.rate)?;
    let others: Vec<Course> = match at_peak.end() {
        End::Learned => Vec::new(),
        End::Wild if !at_peak.first.is_finite() => Vec::new(),
        End::Wild => again(bench, &stage, &[0.1, 0.01, 0.001])?,
        End::Slow => again(bench, &stage, &[10.0])?,
        End::Still => again(bench, &stage, &[10.0, 100.0, 0.1])?,
    };
    let bound = bench.keys.number(&stage.key("clip_norm")).unwrap_or(0.0);
    // Adam's step hardly depends on the size of the gradient, until that is lost beside its epsilon of 1e-8.
    let bound_counts = bench.keys.text("optim.kind") == Some("sgd") || bound < 1e-6;
    let cut = bound_counts && at_peak.clipped > 0.9 && at_peak.gradient > CUT * bound;
    Ok(vec![judge(&stage, at_peak, &others, cut.then_some(bound))])
}

/// As long as time allows.
fn again(bench: &mut Bench<'_>, stage: &Declared, factors: &[f64]) -> Result<Vec<Course>, Trouble> {
    let mut courses = Vec::new();
    for factor in factors {
        if bench.afford(STEPS as f64).is_ok() {
            courses.push(overfit(bench, stage, stage.rate * factor)?);
        }
        if courses.last().is_some_and(|c| c.end() == End::Learned) {
            break;
        }
    }
    Ok(courses)
}

/// The loss is that of the stage's first step in which nothing is frozen.
fn overfit(bench: &mut Bench<'_>, stage: &Declared, rate: f64) -> Result<Course, Trouble> {
    let at = stage.frozen.min(stage.last());
    bench.enter()?;
    let (mut losses, mut clipped) = (Vec::new(), 0u64);
    let (mut gradients, mut updates) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let moment = bench.step(at, at, Some(rate))?;
        losses.push(moment.loss());
        clipped += u64::from(moment.clipped());
        gradients.extend(moment.get(names::GRAD_NORM.name));
        updates.push(moment.groups(&names::OPTIM_UPDATE_RATIO).fold(0.0, f64::max));
        if !moment.loss().is_finite() {
            break;
        }
    }
    let first = losses.first().copied().unwrap_or(f64::NAN);
    let end = &losses[losses.len().saturating_sub(3)..];
    let broken = losses.iter().any(|l| !l.is_finite());
    let last = if broken { f64::NAN } else { median(end.iter().copied()).unwrap_or(f64::NAN) };
    let clipped = clipped as f64 / losses.len().max(1) as f64;
    let middle = |values: Vec<f64>| median(values).unwrap_or(0.0);
    let (gradient, update) = (middle(gradients), middle(updates));
    Ok(Course { rate, first, last, clipped, gradient, update })
}

/// `cut` is the bound where every gradient was cut far down to it.
fn judge(stage: &Declared, peak: Course, others: &[Course], cut: Option<f64>) -> Item {
    let helped = others.iter().find(|c| c.end() == End::Learned);
    let told = |c: &Course| {
        if c.first.is_nan() {
            "is not finite before the first step".to_owned()
        } else if c.last.is_nan() {
            format!("is not finite within {STEPS} steps")
        } else {
            format!(
                "goes from {} to {} in {STEPS} steps ({:+.0} %)",
                show(c.first),
                show(c.last),
                -100.0 * c.fall()
            )
        }
    };
    let rate = show(peak.rate);
    let base = format!("on one batch at the rate {rate} the loss {}", told(&peak));
    let tried = |c: &Course| format!("at {} ({}) it {}", show(c.rate), ratio(c.rate / peak.rate), told(c));
    let tried_all = || others.iter().map(tried).collect::<Vec<_>>().join("; ");
    let also = |text: String| if others.is_empty() { text } else { format!("{text}; {}", tried_all()) };
    let (verdict, message, cause) = match (peak.end(), helped) {
        (End::Learned, _) => (Verdict::Pass, base, None),
        (End::Wild, Some(c)) => (
            Verdict::Fail,
            format!("{base}: the rate is too high; {}", tried(c)),
            Some("learning-rate-too-high"),
        ),
        // Not finite from the first step on: no rate has been at work yet.
        (End::Wild, None) if !peak.first.is_finite() => (Verdict::Fail, base, Some("numbers-overflow")),
        (End::Wild, None) => (
            Verdict::Fail,
            also(format!("{base}: it grows, the rate is too high")),
            Some("learning-rate-too-high"),
        ),
        (End::Slow, Some(c)) => {
            let message = format!("{base}: slowly; {}", tried(c));
            (Verdict::Warn, message, Some("learning-rate-too-low"))
        }
        (End::Slow, None) => (Verdict::Warn, also(format!("{base}: slowly")), Some("labels-or-loss-wrong")),
        (End::Still, _) if let Some(bound) = cut => {
            let key = stage.key("clip_norm");
            let message = format!(
                "{base}: it barely moves, since every gradient (norm {}) is cut to {key} = {}",
                show(peak.gradient),
                show(bound)
            );
            (Verdict::Fail, also(message), Some("gradient-bound-too-tight"))
        }
        (End::Still, Some(c)) => {
            let low = c.rate > peak.rate;
            let (size, cause) =
                if low { ("low", "learning-rate-too-low") } else { ("high", "learning-rate-too-high") };
            (
                Verdict::Fail,
                format!("{base}: it barely moves, the rate is too {size}; {}", tried(c)),
                Some(cause),
            )
        }
        (End::Still, None) if peak.update < NOTHING => {
            let message = format!(
                "{base}: it barely moves, the rate is too low: an update changes the weights by {} of their size",
                show(peak.update)
            );
            (Verdict::Fail, also(message), Some("learning-rate-too-low"))
        }
        (End::Still, None) => {
            let message = also(format!(
                "{base}: it barely moves; the rate alone is not to blame, look at labels and loss"
            ));
            (Verdict::Fail, message, Some("labels-or-loss-wrong"))
        }
    };
    let mut item = Item::new("one-batch", verdict, message)
        .number("learning_rate", peak.rate)
        .number("steps", STEPS)
        .number("first", peak.first)
        .number("last", peak.last)
        .number("fall", peak.fall())
        .number("clipped", peak.clipped)
        .number("gradient", peak.gradient)
        .number("update_ratio", peak.update);
    for course in others {
        item = item.number(&format!("fall_at_{}", ratio(course.rate / peak.rate)), course.fall());
    }
    if let Some(course) = helped.filter(|_| verdict != Verdict::Pass) {
        item = item.advise(stage.key("learning_rate"), toml(course.rate));
    }
    if cut.is_some() && verdict == Verdict::Fail {
        item = item.advise(stage.key("clip_norm"), toml(peak.gradient));
    }
    item.cause = cause;
    item
}

fn ratio(factor: f64) -> String {
    if factor >= 1.0 { format!("{factor:.0}x") } else { format!("1/{:.0}", 1.0 / factor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(first: f64, last: f64) -> Course {
        Course { rate: 1e-3, first, last, clipped: 0.0, gradient: 1.0, update: 1e-3 }
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(course(1.0, 0.5).end(), End::Learned);
        assert_eq!(course(1.0, 0.9).end(), End::Slow);
        assert_eq!(course(1.0, 0.999).end(), End::Still);
        assert_eq!(course(1.0, 1.1).end(), End::Still);
        assert_eq!(course(1.0, 3.0).end(), End::Wild);
        assert_eq!(course(1.0, f64::NAN).end(), End::Wild);
        // Losses below zero fall too.
        assert_eq!(course(-1.0, -2.0).end(), End::Learned);
    }
}
