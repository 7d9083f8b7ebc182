use trimtab_signals::keys;

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "oscillation",
    summary: "the score swings between good and bad",
    severity: Severity::Warning,
    docs: include_str!("oscillation.md"),
};

pub(super) static RULE: Oscillation = Oscillation { share: 0.5, swings: 2 };

pub(super) struct Oscillation {
    /// Depth of a swing: share of what had been gained until then.
    share: f64,
    /// Falls of that depth, each come back from but the last.
    swings: usize,
}

impl Rule for Oscillation {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let metric = view
            .metrics()
            .iter()
            .find(|m| !m.is_loss())
            .copied()
            .ok_or_else(|| Missing::new("a validation score"))?;
        let finite: Vec<(u64, f64)> = metric
            .column
            .iter()
            .filter(|(_, v)| v.is_finite())
            .map(|(s, v)| (s, metric.goal.upward(v)))
            .collect();
        if finite.len() < 6 {
            return Err(Missing::new(format!("six evaluations of {}", metric.name)));
        }
        // No skill: what is known of it, else the worst of the first evaluations.
        let worst = finite[..3].iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min);
        let floor =
            metric.chance.or(metric.range().map(|(worst, _)| worst)).map_or(worst, |c| metric.goal.upward(c));
        // Half of a tiny gain is noise.
        let least = metric.range().map_or(0.0, |(worst, perfect)| 0.05 * (perfect - worst).abs());
        let (mut high, mut low) = (finite[0].1, f64::INFINITY);
        let (mut falls, mut back, mut first, mut down) = (0, 0, None, false);
        for &(step, value) in &finite[1..] {
            let gained = high - floor;
            if !down && gained > 0.0 && high - value > self.share * gained && high - value > least {
                (down, low) = (true, value);
                falls += 1;
                first.get_or_insert(step);
            } else if down {
                low = low.min(value);
                // Back: most of the way from the low to the height it fell from.
                if value - low > self.share * (high - low) {
                    (down, high) = (false, value);
                    back += 1;
                }
            }
            if !down {
                high = high.max(value);
            }
        }
        let Some(first) = first.filter(|_| back >= self.swings) else { return Ok(Vec::new()) };
        let (best, end) =
            (finite.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max), finite[finite.len() - 1]);
        let up = |v| metric.goal.upward(v);
        // Swings that lie behind are history: the run has settled near its best.
        let settled = finite[finite.len() * 2 / 3..].iter().all(|(_, v)| best - v < 0.25 * (best - floor));
        let message = format!(
            "`{}` fell by more than half of its gain {falls} times and came back; it is {} now, its best is {}",
            view.run().logged_name(metric.name),
            show(up(end.1)),
            show(up(best)),
        );
        let finding = Finding::new(&META, message)
            .severity(if settled { Severity::Info } else { Severity::Warning })
            .at(end.0, first, end.0)
            .evidence("falls", f64::from(falls as u32))
            .evidence("best", up(best))
            .evidence("last", up(end.1))
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.3,
                "swings of this size are steps across the valley",
            ))
            .remedy(Remedy::scale(
                &keys::OPTIM_BATCH_SIZE,
                2.0,
                "a small batch is a noisy direction, and noisy norm statistics",
            ))
            .draw(metric.name);
        Ok(vec![finding])
    }
}
