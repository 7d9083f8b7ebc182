use trimtab_signals::keys;

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "weights-not-loaded",
    summary: "training was to start from pretrained weights, but most of them were not loaded",
    severity: Severity::Warning,
    docs: include_str!("weights_not_loaded.md"),
};

pub(super) static RULE: WeightsNotLoaded = WeightsNotLoaded { minimum: 0.5 };

pub(super) struct WeightsNotLoaded {
    /// Least share where none is declared: under a half, more starts at random than does not.
    minimum: f64,
}

impl Rule for WeightsNotLoaded {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let share = view.need_number(&keys::MODEL_LOADED_SHARE)?;
        let fraction = |v: &f64| (0.0..=1.0).contains(v);
        if view.flag(&keys::MODEL_PRETRAINED) == Some(false) || !fraction(&share) {
            return Ok(Vec::new());
        }
        let declared = view.number(&keys::MODEL_LOAD_MINIMUM).filter(fraction);
        let minimum = declared.unwrap_or(self.minimum);
        if share >= minimum {
            return Ok(Vec::new());
        }
        // Nothing at all is another network, or names that do not match: that run is not the one meant.
        let severity = if share == 0.0 { Severity::Critical } else { Severity::Warning };
        let found = if share == 0.0 {
            "no weight of the model was found in the pretrained file".to_owned()
        } else {
            format!(
                "only {} % of the model's weights were found in the pretrained file, under the {} \
                 of {:.0} %",
                show(100.0 * share),
                if declared.is_some() { "declared minimum" } else { "usual least" },
                100.0 * minimum
            )
        };
        let finding = Finding::new(&META, format!("{found}: the rest starts at random"))
            .severity(severity)
            .evidence("loaded_share", share)
            .evidence("minimum", minimum)
            .remedy(Remedy::check(
                &keys::MODEL_LOADED_SHARE,
                "names in the file beside names of the model",
                "a prefix such as `module.`, another depth or an outer table keeps all of them from matching",
            ))
            .remedy(Remedy::set(
                &keys::MODEL_LOAD_MINIMUM,
                minimum.max(0.9),
                "a run that lacks its weights should end before training",
            ));
        Ok(vec![finding])
    }
}
