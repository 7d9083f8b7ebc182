//! What the settings declare of a stage, read from the keys in force alone: beside it stands what the recipe makes of them.

use std::collections::BTreeMap;

use trimtab_signals::names;
use trimtab_train::StagePlan;
use trimtab_train::settings::Resolved;

/// The keys in force.
#[derive(Debug, Clone)]
pub(super) struct Keys<'a>(BTreeMap<&'a str, String>);

impl<'a> Keys<'a> {
    pub(super) fn new(resolved: &'a Resolved) -> Self {
        Self(resolved.values())
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.parse().ok()
    }

    pub(super) fn count(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.parse().ok()
    }

    /// A text without its quotes; none where it is empty.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let text = self.0.get(key)?;
        let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        (!bare.is_empty()).then_some(bare)
    }

    /// The conditions of `[[expect]]`.
    pub(super) fn expectations(&self) -> Vec<String> {
        let list = self.0.get("expect[].condition").map(|text| format!("x = {text}"));
        let parsed = list.and_then(|text| text.parse::<toml_edit::DocumentMut>().ok());
        let array = parsed.as_ref().and_then(|d| d.get("x")).and_then(toml_edit::Item::as_array);
        array.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().copied()
    }
}

/// A weight of the loss that moves.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    /// The signal that tells its effective value.
    pub(super) signal: String,
    /// Its key, and that of the epochs over which it rises.
    pub(super) key: String,
    pub(super) ramp_key: String,
    pub(super) value: f64,
    /// Step in which it begins to rise, and in which it has risen.
    pub(super) from: u64,
    pub(super) until: u64,
}

/// See the module. Numbers of epochs are in steps here.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) epochs: u64,
    pub(super) steps: u64,
    pub(super) steps_per_epoch: u64,
    /// What keys of the stage begin with.
    pub(super) prefix: String,
    pub(super) rate: f64,
    pub(super) batch: u64,
    pub(super) accumulate: u64,
    pub(super) warmup: u64,
    pub(super) frozen: u64,
    /// Factor on the rate of a group.
    pub(super) scales: BTreeMap<String, f64>,
    /// Decay of the average, and its key.
    pub(super) average: Option<(String, f64)>,
    pub(super) weights: Vec<Weight>,
    /// Step of the re-weighting.
    pub(super) reweighting: Option<u64>,
}

impl Declared {
    pub(super) fn of(keys: &Keys<'_>, plan: &StagePlan) -> Self {
        // "stage 1" has keys of its own; a single stage has those of the optimizer.
        let compact = plan.name.replace(' ', "");
        let own = keys.number(&format!("{compact}.learning_rate")).is_some();
        let prefix = if own { compact } else { "optim".to_owned() };
        let key = |name: &str| format!("{prefix}.{name}");
        let per = plan.steps_per_epoch;
        let epochs = |key: &str| keys.count(key).unwrap_or(0).saturating_mul(per);
        let mut scales = BTreeMap::new();
        for name in keys.keys() {
            if let Some(group) = name.strip_prefix("optim.rate_scale.") {
                scales.extend(keys.number(name).map(|scale| (group.to_owned(), scale)));
            }
        }
        scales.extend(keys.number(&key("encoder_rate_scale")).map(|scale| ("encoder".to_owned(), scale)));
        let average = [key("ema_decay"), "ema.decay".to_owned()]
            .into_iter()
            .find_map(|key| keys.number(&key).filter(|decay| *decay > 0.0).map(|decay| (key, decay)));
        let mut weights = Vec::new();
        if let Some(value) = keys.number(&key("consistency_weight")).filter(|w| *w > 0.0) {
            weights.push(Weight {
                signal: names::WEIGHT_CONSISTENCY.name.to_owned(),
                key: key("consistency_weight"),
                ramp_key: key("rampup_epochs"),
                value,
                from: 0,
                until: epochs(&key("rampup_epochs")),
            });
        }
        for name in keys.keys() {
            let term = name.strip_prefix("loss.").and_then(|rest| rest.strip_suffix(".weight"));
            let (Some(term), Some(value)) = (term, keys.number(name).filter(|w| *w > 0.0)) else { continue };
            let from = epochs(&format!("loss.{term}.from_epoch"));
            let ramp_key = format!("loss.{term}.ramp_epochs");
            weights.push(Weight {
                signal: names::WEIGHT_LOSS.group(term),
                key: name.to_owned(),
                value,
                from,
                until: from.saturating_add(epochs(&ramp_key)),
                ramp_key,
            });
        }
        Self {
            name: plan.name.clone(),
            epochs: plan.epochs,
            steps: plan.steps(),
            steps_per_epoch: per,
            rate: keys.number(&key("learning_rate")).unwrap_or(f64::NAN),
            batch: keys.count(&key("batch")).unwrap_or(1),
            accumulate: keys.count(&key("accumulate")).unwrap_or(1),
            warmup: epochs(&key("warmup_epochs")),
            frozen: epochs(&key(if own { "freeze_encoder_epochs" } else { "freeze_epochs" })),
            scales,
            average,
            weights,
            reweighting: keys.count("loss.drw_start").map(|epoch| epoch.saturating_mul(per)),
            prefix,
        }
    }

    /// A key of the stage.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// The last step.
    pub(super) fn last(&self) -> u64 {
        self.steps.saturating_sub(1)
    }

    /// The step from which on the warm-up is over, nothing is frozen and every weight of the loss has risen, or the last.
    pub(super) fn settled(&self) -> u64 {
        let risen = self.weights.iter().map(|w| w.until).max().unwrap_or(0);
        risen.max(self.warmup).max(self.frozen).min(self.last())
    }

    /// `stage 2: ` in a recipe of several stages.
    pub(super) fn label(&self) -> String {
        if self.prefix == "optim" { String::new() } else { format!("{}: ", self.name) }
    }
}
