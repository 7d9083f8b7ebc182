use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "discriminator-won",
    summary: "the discriminator has won, so the generator gets no gradient from it",
    severity: Severity::Warning,
    docs: include_str!("discriminator_won.md"),
};

pub(super) static RULE: DiscriminatorWon = DiscriminatorWon { loss: 0.1, gap: 0.9, measurements: 5 };

pub(super) struct DiscriminatorWon {
    /// A discriminator at rest has loss 2 ln 2 (or ln 2 for a mean): a tenth is far from any balance.
    loss: f64,
    /// D(real) - D(fake), 0 at rest and 1 at the end.
    gap: f64,
    /// Fewer than these in a row are chance.
    measurements: usize,
}

impl Rule for DiscriminatorWon {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        // The first step from which on it holds to the end, by the median of a few neighbours.
        let tail = |values: &[f64], won: &dyn Fn(f64) -> bool| {
            let smooth = crate::series::smooth(values, self.measurements);
            let start = crate::series::tail(&smooth, won);
            (smooth.len() - start >= self.measurements).then_some(start)
        };
        let finding = |steps: &[u64], start: usize, what: String| {
            let last = steps[steps.len() - 1];
            let told = steps[(start + self.measurements - 1).min(steps.len() - 1)];
            Finding::new(
                &META,
                format!(
                    "{what} from step {} on: the generator learns nothing from it any more",
                    steps[start]
                ),
            )
            .at(told, steps[start], last)
            .remedy(Remedy::scale(
                &keys::GAN_LEARNING_RATE,
                0.1,
                "a slower discriminator leaves the generator a gradient",
            ))
            .remedy(Remedy::set(
                &keys::GAN_INTERVAL,
                5,
                "fewer updates of the discriminator for each of the generator",
            ))
            .remedy(Remedy::set(
                &keys::GAN_LABEL_SMOOTHING,
                0.1,
                "keeps the discriminator from certainty",
            ))
        };
        // Outputs beyond probabilities are scores of a hinge or a Wasserstein loss, which have no end.
        let outputs =
            |signal| view.column(signal).filter(|c| c.values().iter().all(|v| !(*v < 0.0 || *v > 1.0)));
        if let (Some(real), Some(fake)) = (outputs(&names::GAN_D_REAL), outputs(&names::GAN_D_FAKE)) {
            let (steps, gaps): (Vec<u64>, Vec<f64>) =
                real.iter().filter_map(|(step, r)| Some((step, r - fake.at(step)?))).unzip();
            if let Some(start) = tail(&gaps, &|gap| gap > self.gap) {
                let gap = median(gaps[start..].iter().copied()).unwrap_or(f64::NAN);
                let what = format!("D tells real from fake with a gap of {} out of 1", show(gap));
                return Ok(vec![
                    finding(&steps, start, what).evidence("gap", gap).draw(names::GAN_D_FAKE.name),
                ]);
            }
            return Ok(Vec::new());
        }
        let loss = view.need(&names::GAN_LOSS_D).map_err(|_| {
            let [real, fake, loss] =
                [&names::GAN_D_REAL, &names::GAN_D_FAKE, &names::GAN_LOSS_D].map(|s| s.name);
            Missing::new(format!("{loss}, or {real} and {fake}"))
        })?;
        // A cross-entropy or a square is never negative; a critic's loss near 0 is balance.
        if loss.values().iter().any(|v| *v < -1e-3) {
            return Err(Missing::new("a discriminator loss that cannot be negative"));
        }
        let Some(start) = tail(loss.values(), &|loss| loss.abs() < self.loss) else {
            return Ok(self.by_admission(view, loss).into_iter().collect());
        };
        let level = median(loss.values()[start..].iter().copied()).unwrap_or(f64::NAN);
        let what =
            format!("the discriminator's loss is {} (ln 2 = 0.693 when it can only guess)", show(level));
        Ok(vec![finding(loss.steps(), start, what).evidence("loss_d", level).draw(names::GAN_LOSS_D.name)])
    }
}

impl DiscriminatorWon {
    /// Where the loss is logged too rarely for a row of low values: its last one is low, and since the last balanced one not an
    /// image was admitted to self-training, which is the discriminator's own verdict on predictions.
    fn by_admission(&self, view: &View<'_>, loss: &Column) -> Option<Finding> {
        let (admitted, candidates) =
            (view.column(&names::SSL_ADMITTED_IMAGES)?, view.column(&names::SSL_CANDIDATES)?);
        let low = |v: f64| v.abs() < self.loss;
        let (last, level) = loss.last().filter(|(_, v)| low(*v))?;
        let (balanced, before) = loss.iter().rev().find(|(_, v)| !low(*v))?;
        let offered = |step: &u64| candidates.at_or_before(*step).is_some_and(|(_, n)| n > 0.0);
        let since: Vec<(u64, f64)> =
            admitted.iter().filter(|(s, v)| *s > balanced && offered(s) && v.is_finite()).collect();
        let zeros = since.iter().rev().take_while(|(_, v)| *v == 0.0).count();
        // It has admitted before: then it is the verdict that changed and not the threshold that is out of reach.
        let changed = admitted.iter().any(|(s, v)| s <= balanced && v > 0.0);
        if !changed || zeros < self.measurements {
            return None;
        }
        let told = last.max(since[since.len() - zeros + self.measurements - 1].0);
        let message = format!(
            "the discriminator's loss fell from {} at step {balanced} to {} (ln 2 = 0.693 when it can only guess), and of {zeros} \
             batches since it has taken no prediction for real: the generator learns nothing from it any more",
            show(before),
            show(level),
        );
        let finding = Finding::new(&META, message).at(told, balanced, last).evidence("loss_d", level);
        let finding = finding.evidence("rejected", zeros as f64).draw(names::GAN_LOSS_D.name);
        Some(finding.remedy(Remedy::scale(
            &keys::GAN_LEARNING_RATE,
            0.1,
            "a slower discriminator leaves the generator a gradient",
        )))
    }
}
