use std::collections::{HashSet, VecDeque};

use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "repeated-batches",
    summary: "the same batches come again and again within an epoch",
    severity: Severity::Warning,
    docs: include_str!("repeated_batches.md"),
};

pub(super) static RULE: RepeatedBatches = RepeatedBatches { window: 20, repeated: 0.5, recent: 8 };

pub(super) struct RepeatedBatches {
    /// Records in a row that are looked at together.
    window: usize,
    /// Share of them that are repeats: far from chance, and what two workers with one random seed give.
    repeated: f64,
    /// Where epochs are not known, records back to which a batch cannot come again in any epoch worth the
    /// name.
    recent: usize,
}

impl Rule for RepeatedBatches {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let column = view.need(&names::DATA_FINGERPRINT)?;
        let epochs = view.run().trace.epochs();
        // In an epoch of fewer batches than records the same ones must come again.
        let batches = view
            .number(&keys::DATA_TRAIN_SAMPLES)
            .zip(view.number(&keys::OPTIM_BATCH_SIZE).filter(|n| *n >= 1.0))
            .map(|(samples, batch)| samples / batch);
        let small = batches.is_some_and(|batches| batches <= self.recent as f64)
            || batches.zip(view.steps_per_epoch()).is_some_and(|(batches, steps)| steps > 1.5 * batches);
        if small {
            return Ok(Vec::new());
        }
        // An epoch that never ends is that of a run counted in steps.
        let known = epochs
            .first()
            .zip(epochs.last())
            .is_some_and(|((_, first), (_, last))| last.floor() > first.floor());
        let mut seen: HashSet<u64> = HashSet::new();
        let mut recent: VecDeque<u64> = VecDeque::new();
        let mut epoch = None;
        let mut repeats: Vec<(u64, bool)> = Vec::new();
        for (step, fingerprint) in column.iter().filter(|(_, v)| v.is_finite()) {
            let print = fingerprint.to_bits();
            let now = epochs.at_or_before(step).map(|(_, epoch)| epoch.floor().to_bits());
            if now != epoch {
                seen.clear();
                recent.clear();
                epoch = now;
            }
            let repeated = if known { !seen.insert(print) } else { recent.contains(&print) };
            recent.push_back(print);
            if recent.len() > self.recent {
                recent.pop_front();
            }
            repeats.push((step, repeated));
        }
        let count = |part: &[(u64, bool)]| part.iter().filter(|(_, repeated)| *repeated).count();
        let enough = (self.repeated * self.window as f64) as usize;
        let Some(window) = repeats.windows(self.window).find(|part| count(part) >= enough) else {
            return Ok(Vec::new());
        };
        let first = window.iter().find(|(_, repeated)| *repeated).map_or(0, |(step, _)| *step);
        let told = window.last().map_or(first, |(step, _)| *step);
        let last = repeats.iter().rev().find(|(_, repeated)| *repeated).map_or(told, |(step, _)| *step);
        let all = count(&repeats);
        let message = format!(
            "{all} of {} recorded batches were seen before in the same epoch, first at step {first}",
            repeats.len(),
        );
        let finding = Finding::new(&META, message)
            .at(told, first, last)
            .evidence("repeated", all as f64)
            .evidence("records", repeats.len() as f64)
            .remedy(Remedy::check(
                &keys::RUN_SEED,
                "the seed of each loading worker, and whether the sampler is shuffled anew and advanced",
                "workers with one random state draw the same samples",
            ))
            .draw(names::DATA_FINGERPRINT.name);
        Ok(vec![finding])
    }
}
