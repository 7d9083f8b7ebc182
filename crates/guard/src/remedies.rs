//! From causes to changes of a recipe's settings.
//!
//! What the rules themselves advise comes first where it is a number; then what is usually tried for the cause. A candidate is a
//! list of `key=value` overrides of the recipe, so that a branch is an ordinary run with ordinary settings.

use serde::{Deserialize, Serialize};
use trimtab_doctor::causes::Explanation;
use trimtab_doctor::{Finding, Op, Remedy, Severity};
use trimtab_signals::{Key, keys};
use trimtab_train::settings::Resolved;

/// A change of settings that may help.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The cause it is for.
    pub cause: String,
    /// `key=value`, as `--set` takes them.
    pub overrides: Vec<String>,
    /// Why it should help.
    pub why: String,
}

/// How a usual remedy changes a setting.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Multiply.
    Scale(f64),
    /// Set to a number.
    To(f64),
    /// Set to a number, unless it is lower (and not 0, which stands for none) already.
    AtMost(f64),
    /// Set to a word.
    Word(&'static str),
}

use Change::{AtMost, Scale, To, Word};

/// A usual remedy: the key as the recipes with one stage call it, and the change.
type Usual = (&'static str, Change, &'static str);

const TOO_HIGH: &str = "learning-rate-too-high";
const RATE: &str = "optim.learning_rate";
const LOWER: Usual = (RATE, Scale(0.1), "smaller steps stay where the loss is smooth");
const MUCH_LOWER: Usual = (RATE, Scale(0.02), "or much smaller ones");
const A_LITTLE_LOWER: Usual = (RATE, Scale(0.3), "somewhat smaller steps");
const HIGHER: Usual = (RATE, Scale(10.0), "larger steps move the weights");
const MUCH_HIGHER: Usual = (RATE, Scale(40.0), "or much larger ones");
const A_LITTLE_HIGHER: Usual = (RATE, Scale(3.0), "somewhat larger steps");
const CLIP: Usual = ("optim.clip_norm", AtMost(1.0), "bounds the step of a single bad batch");
const PLAIN_POSITIVES: Usual = ("loss.positive_weight", To(1.0), "classes as the labels have them");
const ALPHA: Usual = ("loss.focal_alpha", To(0.7), "the usual weight of positives");
const ALPHA_3D: Usual = ("loss.focal.alpha", To(0.25), "the usual weight of positives");
const FOLLOW: Usual = ("ema.decay", AtMost(0.9), "an average that follows within a few dozen updates");
const FOLLOW_SLOWLY: Usual =
    ("ema.decay", AtMost(0.99), "an average that follows within some hundred updates");
const NO_REWEIGHTING: Usual = ("loss.reweighting", Word("none"), "classes weigh alike to the end");
const WEAK_REWEIGHTING: Usual = ("loss.drw_beta", AtMost(0.9), "milder weights of the classes");
const LESS_CONSISTENCY: Usual =
    ("consistency_weight", Scale(0.01), "the labels must outweigh the agreement with the teacher");
const LOOSE_CLIP: Usual = ("optim.clip_norm", To(1.0), "a bound that only the odd gradient meets");
const LOOSER_CLIP: Usual = ("optim.clip_norm", Scale(100.0), "or one that none meets");
const LESS_DECAY: Usual = ("optim.weight_decay", AtMost(0.01), "weights that are not pulled to zero");
const WARM_UP: Usual = ("optim.warmup_epochs", To(2.0), "small steps while the moments settle");
const SAME_RATE: Usual = ("optim.rate_scale.head", To(1.0), "a head that learns");
const NO_FREEZE: Usual = ("optim.freeze_epochs", To(0.0), "all parameters from the start");
const SMOOTH: Usual = ("loss.dice_smooth", AtMost(1.0), "a Dice term that hears the overlap");
const SMOOTH_3D: Usual = ("loss.dice.smooth", AtMost(1e-5), "a Dice term that hears the overlap");
const GAMMA: Usual = ("loss.focal_gamma", AtMost(2.0), "a focal term that still hears the easy pixels");
const LESS_DROPOUT: Usual = ("model.dropout", AtMost(0.4), "features that reach the last layer");
const LESS_NOISE: Usual = ("mean_teacher.noise", AtMost(0.1), "a teacher that sees the image");

/// What is usually tried, by cause.
const USUAL: &[(&str, &[Usual])] = &[
    (TOO_HIGH, &[LOWER, MUCH_LOWER, A_LITTLE_LOWER, CLIP, WARM_UP]),
    ("training-undoes-itself", &[LOWER, A_LITTLE_LOWER, MUCH_LOWER, CLIP]),
    ("learning-rate-too-low", &[HIGHER, MUCH_HIGHER, A_LITTLE_HIGHER, SAME_RATE]),
    ("no-effective-warm-up", &[LOWER, WARM_UP, A_LITTLE_LOWER]),
    ("averaged-weights-not-trained", &[FOLLOW, FOLLOW_SLOWLY]),
    ("rare-class-unheard", &[PLAIN_POSITIVES, ALPHA, ALPHA_3D, WEAK_REWEIGHTING, GAMMA]),
    ("labels-or-loss-wrong", &[PLAIN_POSITIVES, ALPHA, ALPHA_3D, SMOOTH, SMOOTH_3D, WEAK_REWEIGHTING]),
    ("class-weights-extreme", &[PLAIN_POSITIVES, ALPHA, ALPHA_3D, WEAK_REWEIGHTING, NO_REWEIGHTING]),
    ("classes-balanced-twice", &[NO_REWEIGHTING]),
    ("re-weighting", &[NO_REWEIGHTING, WEAK_REWEIGHTING]),
    ("parameter-groups", &[SAME_RATE, NO_FREEZE, A_LITTLE_LOWER]),
    ("gradient-bound-too-tight", &[LOOSE_CLIP, LOOSER_CLIP]),
    ("regulariser-outweighs-labels", &[LESS_CONSISTENCY, LESS_NOISE, LESS_DECAY]),
    ("configuration-not-effective", &[SMOOTH, SMOOTH_3D, NO_FREEZE]),
    ("units-dead", &[LOWER, MUCH_LOWER, LESS_DECAY, LESS_DROPOUT]),
    ("numbers-overflow", &[CLIP, LOWER]),
    ("weights-decayed-away", &[LESS_DECAY]),
];

/// Every usual remedy that would change something in these settings: what a random choice draws from.
pub fn all(resolved: &Resolved, stage: usize) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for (cause, usual) in USUAL {
        for change in *usual {
            found.extend(apply(cause, change, resolved, stage).filter(|c| !contains(&found, c)));
        }
    }
    found
}

/// The changes to try, the most promising first: for the leading cause, then in turn for the others.
pub fn candidates(
    causes: &[Explanation],
    findings: &[Finding],
    advice: &[Candidate],
    resolved: &Resolved,
    stage: usize,
) -> Vec<Candidate> {
    let mut lists: Vec<Vec<Candidate>> = Vec::new();
    let mut ids: Vec<&str> = causes.iter().map(|c| c.cause).collect();
    for instead in causes.iter().flat_map(|c| &c.instead) {
        if !ids.contains(instead) {
            ids.push(instead);
        }
    }
    for id in ids {
        let mut list: Vec<Candidate> = advice.iter().filter(|c| c.cause == id).cloned().collect();
        let explained =
            causes.iter().find(|c| c.cause == id).map(|c| c.explains.as_slice()).unwrap_or_default();
        let advised = findings
            .iter()
            .filter(|f| f.severity >= Severity::Warning && explained.contains(&f.rule))
            .flat_map(|f| &f.remedies);
        for remedy in advised {
            list.extend(from_remedy(id, remedy, resolved, stage).filter(|c| !contains(&list, c)));
        }
        let usual = USUAL.iter().find(|(cause, _)| *cause == id).map_or(&[][..], |(_, usual)| usual);
        for change in usual {
            list.extend(apply(id, change, resolved, stage).filter(|c| !contains(&list, c)));
        }
        lists.push(list);
    }
    // Two of the leading cause, then one of each in turn.
    let mut ordered: Vec<Candidate> = Vec::new();
    let mut cursors = vec![0; lists.len()];
    let mut first = true;
    loop {
        let before = cursors.clone();
        for (list, cursor) in lists.iter().zip(&mut cursors) {
            let take = if std::mem::take(&mut first) { 2 } else { 1 };
            for candidate in list.iter().skip(*cursor).take(take) {
                *cursor += 1;
                if !contains(&ordered, candidate) {
                    ordered.push(candidate.clone());
                }
            }
        }
        if cursors == before {
            return ordered;
        }
    }
}

fn contains(list: &[Candidate], candidate: &Candidate) -> bool {
    list.iter().any(|known| known.overrides == candidate.overrides)
}

/// The overrides that set a stage's learning rate. None where that changes nothing.
pub(crate) fn set_rate(resolved: &Resolved, stage: usize, to: f64) -> Vec<String> {
    let all = || {
        let key = key_in(resolved, RATE, stage)?;
        let values = resolved.values();
        let now = values.get(key.as_str())?;
        let value = written(to, now.parse().ok()?, now)?;
        Some(with_later(resolved, RATE, stage, &key, &value))
    };
    all().unwrap_or_default()
}

/// Lower rates than a stage has: what is tried where nothing but a poor score speaks against the settings.
pub(crate) fn lower_rates(resolved: &Resolved, stage: usize) -> Vec<Candidate> {
    [&LOWER, &MUCH_LOWER].into_iter().filter_map(|lower| apply(TOO_HIGH, lower, resolved, stage)).collect()
}

/// The first stage, from 0, that has the learning rate of this one.
pub(crate) fn first_with_rate_of(resolved: &Resolved, stage: usize) -> usize {
    let values = resolved.values();
    let rate = |stage| values.get(key_in(resolved, RATE, stage)?.as_str()).cloned();
    let own = rate(stage);
    (0..stage).find(|earlier| rate(*earlier) == own).unwrap_or(stage)
}

/// The stage, from 0, that a key is of.
pub(crate) fn stage_of(key: &str) -> usize {
    let number = key.strip_prefix("stage").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    number.map_or(0, |number| number.saturating_sub(1))
}

/// The key of the recipe: stages have keys of their own.
fn key_in(resolved: &Resolved, name: &str, stage: usize) -> Option<String> {
    let plain = name.rsplit('.').next().unwrap_or(name);
    // The first stage may have been skipped.
    let stages = [stage + 1, 2];
    let staged = stages.iter().map(|number| format!("stage{number}.{plain}"));
    let renamed = match name {
        "ema.decay" => Some("ema_decay"),
        "optim.freeze_epochs" => Some("freeze_encoder_epochs"),
        _ => None,
    };
    let staged_renamed = stages.iter().filter_map(|n| Some(format!("stage{n}.{}", renamed?)));
    std::iter::once(name.to_owned()).chain(staged).chain(staged_renamed).find(|key| resolved.has(key))
}

fn apply(cause: &str, usual: &Usual, resolved: &Resolved, stage: usize) -> Option<Candidate> {
    let (name, change, why) = usual;
    let values = resolved.values();
    let key = key_in(resolved, name, stage)?;
    let now = values.get(key.as_str())?;
    let value = match change {
        Word(word) => {
            let quoted = format!("\"{word}\"");
            if *now == quoted {
                return None;
            }
            (*word).to_owned()
        }
        Scale(_) | To(_) | AtMost(_) => {
            let number: f64 = now.parse().ok()?;
            let to = match change {
                Scale(factor) => number * factor,
                AtMost(limit) if number > 0.0 && number <= *limit => return None,
                To(to) | AtMost(to) => *to,
                Word(_) => return None,
            };
            written(to, number, now)?
        }
    };
    let overrides = with_later(resolved, name, stage, &key, &value);
    Some(Candidate { cause: cause.to_owned(), overrides, why: (*why).to_owned() })
}

/// The override of a stage's key, and of the next stage's where it has the same value now: the same number is the same mistake.
fn with_later(resolved: &Resolved, name: &str, stage: usize, key: &str, value: &str) -> Vec<String> {
    let values = resolved.values();
    let later = key_in(resolved, name, stage + 1).filter(|later| later != key);
    let same = later.filter(|later| values.get(later.as_str()) == values.get(key));
    std::iter::once(key.to_owned()).chain(same).map(|key| format!("{key}={value}")).collect()
}

/// The number as TOML, whole where the old one was; `None` where nothing would change.
fn written(to: f64, before: f64, text: &str) -> Option<String> {
    if !to.is_finite() || (to - before).abs() <= 1e-9 * before.abs() {
        return None;
    }
    let whole = text.parse::<i64>().is_ok();
    // Two digits are enough for a remedy, and readable.
    let rounded: f64 = format!("{to:.1e}").parse().ok()?;
    Some(if whole { format!("{}", to.round() as i64) } else { format!("{rounded:?}") })
}

/// A rule's own advice, where it is a number and the recipe has such a key.
fn from_remedy(cause: &str, remedy: &Remedy, resolved: &Resolved, stage: usize) -> Option<Candidate> {
    let own = |key: &Key, name: &'static str| (key.name == remedy.key).then_some(name);
    let same = [
        own(&keys::OPTIM_LEARNING_RATE, RATE),
        own(&keys::OPTIM_CLIP_NORM, "optim.clip_norm"),
        own(&keys::OPTIM_WEIGHT_DECAY, "optim.weight_decay"),
        own(&keys::EMA_DECAY, "ema.decay"),
        own(&keys::SCHEDULE_WARMUP_EPOCHS, "optim.warmup_epochs"),
        own(&keys::LOSS_REWEIGHT_EPOCH, "loss.drw_start"),
    ];
    let name = same.into_iter().flatten().next()?;
    let value = remedy.value.as_f64()?;
    let change = match remedy.op {
        Op::Set => To(value),
        Op::Scale => Scale(value),
        Op::Remove | Op::Check => return None,
    };
    apply(cause, &(name, change, ""), resolved, stage).map(|c| Candidate { why: remedy.why.clone(), ..c })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(text: &str) -> Resolved {
        crate::parse(Path::new("t.toml"), text, &[]).unwrap().loaded.resolved
    }

    fn explanation(cause: &'static str) -> Explanation {
        Explanation {
            cause,
            summary: "",
            confidence: 0.9,
            explains: vec!["rate-too-low"],
            experiment: "",
            instead: Vec::new(),
            would_tell: Vec::new(),
        }
    }

    #[test]
    fn every_usual_remedy_is_for_a_cause_that_exists() {
        for (cause, usual) in USUAL {
            assert!(!usual.is_empty());
            assert!(trimtab_doctor::causes::CAUSES.iter().any(|c| c.id == *cause), "{cause}");
        }
    }

    #[test]
    fn a_rate_is_changed_in_the_stage_that_trains() {
        let resolved = settings("recipe = \"two-stage\"\n[stage2]\nlearning_rate = 2e-5\n");
        let of = |stage| candidates(&[explanation("learning-rate-too-low")], &[], &[], &resolved, stage);
        assert_eq!(of(1)[0].overrides, ["stage2.learning_rate=0.0002"]);
        assert_eq!(of(0)[0].overrides, ["stage1.learning_rate=0.01"]);
        let one = settings("recipe = \"volume-segmentation\"\n[optim]\nlearning_rate = 1e-4\n");
        let all = candidates(&[explanation("learning-rate-too-low")], &[], &[], &one, 0);
        let overrides: Vec<&String> = all.iter().flat_map(|c| &c.overrides).collect();
        assert_eq!(overrides[..2], ["optim.learning_rate=0.001", "optim.learning_rate=0.004"]);
    }

    #[test]
    fn stages_with_the_same_rate_have_the_same_mistake() {
        let same = settings(
            "recipe = \"two-stage\"\n[stage1]\nlearning_rate = 0.2\n[stage2]\nlearning_rate = 0.2\n",
        );
        assert_eq!(first_with_rate_of(&same, 1), 0);
        let lower = lower_rates(&same, 0);
        assert_eq!(lower[0].overrides, ["stage1.learning_rate=0.02", "stage2.learning_rate=0.02"]);
        let other = settings("recipe = \"two-stage\"\n[stage2]\nlearning_rate = 2e-5\n");
        assert_eq!(first_with_rate_of(&other, 1), 1);
        let keys = ["stage1.clip_norm", "stage2.weight_decay", "optim.clip_norm", "loss.dice.weight"];
        assert_eq!(keys.map(stage_of), [0, 1, 0, 0]);
    }

    #[test]
    fn what_changes_nothing_is_no_remedy() {
        let resolved = settings("recipe = \"two-stage\"\n");
        // clip_norm is 1 and focal_alpha .7 already.
        let all = candidates(&[explanation("rare-class-unheard")], &[], &[], &resolved, 1);
        assert_eq!(all, [], "{all:?}");
        let heavy = settings("recipe = \"two-stage\"\n[loss]\npositive_weight = 100.0\n");
        let all = candidates(&[explanation("rare-class-unheard")], &[], &[], &heavy, 1);
        assert_eq!(all[0].overrides, ["loss.positive_weight=1.0"]);
    }

    #[test]
    fn the_leading_cause_gets_two_branches_and_the_next_ones_theirs() {
        let resolved = settings("recipe = \"volume-segmentation\"\n[ema]\ndecay = 0.9999\n");
        let causes = [explanation("learning-rate-too-high"), explanation("averaged-weights-not-trained")];
        let all = candidates(&causes, &[], &[], &resolved, 0);
        let of: Vec<&str> = all.iter().map(|c| c.cause.as_str()).collect();
        assert_eq!(
            of[..3],
            ["learning-rate-too-high", "learning-rate-too-high", "averaged-weights-not-trained"]
        );
    }

    #[test]
    fn every_remedy_loads() {
        for recipe in trimtab_train::recipes::ALL {
            let text = format!("recipe = \"{}\"\n", recipe.name);
            let resolved = settings(&text);
            for candidate in all(&resolved, 0) {
                let loaded = crate::parse(Path::new("t.toml"), &text, &candidate.overrides);
                let loaded = loaded.unwrap_or_else(|e| panic!("{candidate:?}: {e}")).loaded;
                // What a run writes down is what it goes on with.
                let written = loaded.resolved.to_toml();
                let again = crate::parse(Path::new("t.toml"), &written, &[]).unwrap().loaded;
                assert_eq!(again.resolved.values(), loaded.resolved.values(), "{candidate:?}");
            }
        }
    }
}
