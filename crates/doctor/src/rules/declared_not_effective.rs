use trimtab_signals::names::{self, Signal};
use trimtab_signals::{Column, Key, keys};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "declared-not-effective",
    summary: "what is in effect is not what was declared",
    severity: Severity::Warning,
    docs: include_str!("declared_not_effective.md"),
};

pub(super) static RULE: DeclaredNotEffective =
    DeclaredNotEffective { odd: 2.0, contradictory: 10.0, constant: 1.1, measurements: 3 };

pub(super) struct DeclaredNotEffective {
    /// A rate off by less is some schedule's, or a scaling of it.
    odd: f64,
    /// An order of magnitude is nobody's rule for scaling.
    contradictory: f64,
    /// For what no scaling is usual: more than rounding.
    constant: f64,
    /// Fewer do not show that it stays so.
    measurements: usize,
}

/// One quantity: as logged and as declared.
struct Pair<'a> {
    name: String,
    column: &'a Column,
    key: String,
    declared: f64,
}

impl Rule for DeclaredNotEffective {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let rates = pairs(view, &names::OPTIM_LEARNING_RATE, &keys::OPTIM_LEARNING_RATE, true);
        let decays = pairs(view, &names::OPTIM_WEIGHT_DECAY, &keys::OPTIM_WEIGHT_DECAY, true);
        let averages = pairs(view, &names::EMA_DECAY, &keys::EMA_DECAY, false);
        let thresholds = pairs(view, &names::SSL_THRESHOLD, &keys::SSL_THRESHOLD, false);
        let mut weights = pairs(view, &names::WEIGHT_LOSS, &keys::LOSS_WEIGHT, false);
        if let Some(column) = view.column(&names::WEIGHT_CONSISTENCY)
            && let Some(&(_, declared)) =
                view.numbers_by_group(&keys::LOSS_WEIGHT).iter().find(|(group, _)| *group == "consistency")
        {
            let key = keys::LOSS_WEIGHT.group("consistency");
            weights.push(Pair { name: names::WEIGHT_CONSISTENCY.name.to_owned(), column, key, declared });
        }
        if [&rates, &decays, &averages, &thresholds, &weights].iter().all(|pairs| pairs.is_empty()) {
            return Err(Missing::new(format!(
                "one quantity both logged and declared, such as {} and {}",
                names::OPTIM_LEARNING_RATE.name,
                keys::OPTIM_LEARNING_RATE.name
            )));
        }
        let mut findings = Vec::new();
        // One finding a kind: the first that contradicts.
        findings.extend(rates.iter().find_map(|pair| self.rate(view, pair)));
        findings.extend(decays.iter().find_map(|pair| self.weight_decay(view, pair)));
        findings.extend(averages.iter().find_map(|pair| self.average(view, pair)));
        findings.extend(thresholds.iter().find_map(|pair| self.threshold(view, pair)));
        if !normalised(&weights) {
            findings.extend(weights.iter().find_map(|pair| self.weight(view, pair)));
        }
        Ok(findings)
    }
}

impl DeclaredNotEffective {
    /// The base rate is what the schedule reaches at its highest.
    fn rate(&self, view: &View<'_>, pair: &Pair<'_>) -> Option<Finding> {
        let relative = ["noam", "inverse", "prodigy", "adapt", "adafactor", "free", "auto", "one", "cycl"];
        let named = [&keys::SCHEDULE_NAME, &keys::OPTIM_NAME]
            .into_iter()
            .filter_map(|k| view.run().facts.text(k.name));
        // Declared as a multiplier, or found by the optimizer itself.
        if named.map(str::to_lowercase).any(|text| relative.iter().any(|word| text.contains(word))) {
            return None;
        }
        let (at, highest) = pair.column.highest().filter(|(_, v)| v.is_finite() && *v >= 0.0)?;
        let last = pair.column.last()?.0;
        if pair.declared <= 0.0 || pair.column.len() < self.measurements || rounded(pair, highest) {
            return None;
        }
        if highest == 0.0 {
            // Printed with three digits or fewer, a small rate reads as zero.
            if pair.declared < 1e-3 || view.progresses_from(0) != Some(false) {
                return None;
            }
            return Some(self.finding(view, pair, highest, Severity::Warning, "all along"));
        }
        let factor = highest / pair.declared;
        // Still on its way up, or first measured on its way down, it says nothing of its highest.
        let rising = at == last && pair.column.first().is_some_and(|(_, v)| v < 0.999 * highest);
        if factor < 1.0 && (rising || self.warming(view, last)) {
            return None;
        }
        if factor.max(1.0 / factor) < self.odd || scaled(view, factor) {
            return None;
        }
        // Another rate the framework declares under a name of its own explains it: the highest of a one-cycle schedule.
        let explained = view.run().facts.iter().any(|(key, value)| {
            let Some(key) = key.strip_prefix("declared.").map(str::to_lowercase) else { return false };
            let rate = key.contains("learning_rate") || key.split(['.', '_']).any(|word| word == "lr");
            rate && value.as_f64().is_some_and(|v| (v / highest - 1.0).abs() < 0.02)
        });
        if explained {
            return None;
        }
        let grave = factor.max(1.0 / factor) >= self.contradictory;
        let severity = if grave { Severity::Warning } else { Severity::Info };
        Some(self.finding(view, pair, highest, severity, "at its highest"))
    }

    fn warming(&self, view: &View<'_>, last: u64) -> bool {
        let epochs =
            view.number(&keys::SCHEDULE_WARMUP_EPOCHS).zip(view.steps_per_epoch()).map(|(e, s)| e * s);
        view.number(&keys::SCHEDULE_WARMUP_STEPS).or(epochs).is_some_and(|steps| last as f64 <= 1.2 * steps)
    }

    fn weight_decay(&self, view: &View<'_>, pair: &Pair<'_>) -> Option<Finding> {
        let value = self.constant(pair)?;
        if self.equal(value, pair.declared) || rounded(pair, value) {
            return None;
        }
        // Decoupled decay is logged by some as its product with the rate.
        let rates = view.numbers_by_group(&keys::OPTIM_LEARNING_RATE);
        if rates.iter().any(|(_, rate)| self.equal(value, pair.declared * rate)) {
            return None;
        }
        let (low, high) = (value.min(pair.declared), value.max(pair.declared));
        let severity = if high > self.odd * low { Severity::Warning } else { Severity::Info };
        Some(self.finding(view, pair, value, severity, "all along"))
    }

    /// Decays are compared by how long they remember.
    fn average(&self, view: &View<'_>, pair: &Pair<'_>) -> Option<Finding> {
        // With a warm-up only its end counts.
        let tail = &pair.column.values()[pair.column.len() / 4 * 3..];
        let (value, declared) = (*tail.last()?, pair.declared);
        let constant = tail.len() >= self.measurements
            && tail.iter().all(|v| ((1.0 - v) / (1.0 - value) - 1.0).abs() < 0.01);
        let unit = |v: f64| (0.0..1.0).contains(&v);
        if !constant || !unit(value) || !unit(declared) || rounded(pair, value) {
            return None;
        }
        let factor = (1.0 - declared) / (1.0 - value);
        (factor.max(1.0 / factor) >= self.odd)
            .then(|| self.finding(view, pair, value, Severity::Warning, "at the end"))
    }

    fn threshold(&self, view: &View<'_>, pair: &Pair<'_>) -> Option<Finding> {
        let value = self.constant(pair)?;
        (!self.equal(value, pair.declared) && !rounded(pair, value))
            .then(|| self.finding(view, pair, value, Severity::Warning, "all along"))
    }

    fn weight(&self, view: &View<'_>, pair: &Pair<'_>) -> Option<Finding> {
        let value = self.constant(pair)?;
        // A term that is off may be meant to come later, until the end of the plan is seen.
        let near_end = view.planned_steps().is_some_and(|planned| view.last_step() as f64 >= 0.9 * planned)
            || view.flag(&keys::RUN_FINISHED) == Some(true);
        if self.equal(value, pair.declared) || rounded(pair, value) || (value == 0.0 && !near_end) {
            return None;
        }
        Some(self.finding(view, pair, value, Severity::Warning, "all along"))
    }

    /// The value of a column that has only one: what varies has a schedule, of which the declared value is
    /// any part.
    fn constant(&self, pair: &Pair<'_>) -> Option<f64> {
        let first = pair.column.first()?.1;
        let same = pair.column.values().iter().all(|v| (v - first).abs() <= 1e-6 * first.abs());
        (same && first.is_finite() && pair.column.len() >= self.measurements).then_some(first)
    }

    fn equal(&self, a: f64, b: f64) -> bool {
        let (low, high) = (a.abs().min(b.abs()), a.abs().max(b.abs()));
        a == b || (a.signum() == b.signum() && high <= self.constant * low)
    }

    fn finding(
        &self,
        view: &View<'_>,
        pair: &Pair<'_>,
        value: f64,
        severity: Severity,
        when: &str,
    ) -> Finding {
        let logged = view.run().logged_name(&pair.name);
        let message = format!(
            "{} is declared as {}, but `{logged}` is {} {when}",
            pair.key,
            show(pair.declared),
            show(value)
        );
        let (first, last) =
            (pair.column.first().map_or(0, |(s, _)| s), pair.column.last().map_or(0, |(s, _)| s));
        let told = pair.column.steps().get(self.measurements - 1).copied().unwrap_or(last);
        let remedy = Remedy {
            key: pair.key.clone(),
            op: crate::finding::Op::Check,
            value: "which of the two was meant, and what overrides the other".into(),
            why: "results are ascribed to a setting that was not in effect".to_owned(),
        };
        Finding::new(&META, message)
            .severity(severity)
            .at(told, first, last)
            .evidence("declared", pair.declared)
            .evidence("logged", value)
            .remedy(remedy)
            .draw(&pair.name)
    }
}

/// Columns with the value declared for their group. Where groups were logged but only one value declared (or
/// the other way round), the group with the highest value stands for all, if `highest` says that the others
/// may be lower by design.
fn pairs<'a>(view: &View<'a>, signal: &'a Signal, key: &Key, highest: bool) -> Vec<Pair<'a>> {
    let columns = view.groups(signal);
    let declared = view.numbers_by_group(key);
    let name = |group: &str| if group.is_empty() { signal.name.to_owned() } else { signal.group(group) };
    let dotted = |group: &str| if group.is_empty() { key.name.to_owned() } else { key.group(group) };
    let pair = |group: &str, column: &'a Column, of: &str, declared: f64| Pair {
        name: name(group),
        column,
        key: dotted(of),
        declared,
    };
    let mut pairs: Vec<Pair<'a>> = columns
        .iter()
        .filter_map(|(group, column)| {
            let (_, value) = declared.iter().find(|(of, _)| of == group)?;
            Some(pair(group, column, group, *value))
        })
        .collect();
    if pairs.is_empty()
        && highest
        && let [("", value)] = declared[..]
    {
        let top = |column: &Column| column.highest().map_or(f64::NEG_INFINITY, |(_, v)| v);
        let most = columns.iter().max_by(|(_, a), (_, b)| top(a).total_cmp(&top(b)));
        pairs.extend(most.map(|(group, column)| pair(group, column, "", value)));
    }
    pairs.retain(|pair| pair.declared.is_finite());
    pairs
}

/// Whether the difference is no more than the digits that the column was written with.
fn rounded(pair: &Pair<'_>, value: f64) -> bool {
    // Zeros alone do not show how many digits there were: at least three.
    let fewest = if pair.column.values().iter().all(|v| *v == 0.0) { 3 } else { 0 };
    let digit = (fewest..=12).map(|digits| 10f64.powi(-digits)).find(|digit| {
        pair.column.values().iter().all(|v| {
            let count = v / digit;
            (count - count.round()).abs() <= 1e-6
        })
    });
    (value - pair.declared).abs() <= 0.51 * digit.unwrap_or(0.0) && value != pair.declared
}

/// Whether a rate's factor is one of the usual scalings by batch or devices.
fn scaled(view: &View<'_>, factor: f64) -> bool {
    let number = |key: &Key| view.number(key).filter(|n| *n >= 1.0).unwrap_or(1.0);
    let batch = number(&keys::OPTIM_BATCH_SIZE);
    let (accumulation, devices) = (number(&keys::OPTIM_ACCUMULATION), number(&keys::OPTIM_DEVICES));
    let all = batch * accumulation * devices;
    let scales = [accumulation, devices, accumulation * devices, batch, all];
    // Rates declared for a batch of a fixed size.
    let scales =
        scales.into_iter().chain([8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0].map(|base| all / base));
    let near = |scale: f64| scale != 1.0 && (factor / scale - 1.0).abs() < 0.05;
    scales
        .into_iter()
        .any(|scale| near(scale) || near(1.0 / scale) || near(scale.sqrt()) || near(1.0 / scale.sqrt()))
}

/// Whether all weights are their declared ones times one number, as where they are divided by their sum.
fn normalised(pairs: &[Pair<'_>]) -> bool {
    let factors: Vec<f64> = pairs
        .iter()
        .filter_map(|pair| Some(pair.column.last()?.1 / pair.declared))
        .filter(|factor| factor.is_finite())
        .collect();
    let Some(&first) = factors.first() else { return false };
    factors.len() > 1 && first > 0.0 && factors.iter().all(|factor| (factor / first - 1.0).abs() < 0.02)
}
