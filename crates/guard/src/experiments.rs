//! What symptoms alone cannot decide is decided by experiment: at an alarm, the preflight's own, on the recipe as it stands.

use trimtab_doctor::causes::{CAUSES, Explanation};
use trimtab_doctor::{Finding, RuleMeta, Severity, show};

use crate::journal::{Pause, Reason};
use crate::preflight::{self, Advice, Item, Options, Verdict};
use crate::remedies::{self, Candidate};
use crate::settings::Guarded;
use crate::watch::Alarm;

/// The checks that may decide. All of them together take fewer steps than a branch, so none is cut short by the clock: the same run
/// must come to the same decision on any machine.
const DECIDING: &[&str] =
    &["data", "start", "schedules", "balance", "regularisation", "terms", "clipping", "rate-sweep"];
/// The checks whose advice is weighed once. Fewer steps than a branch or two.
const ADVISING: &[&str] = &[
    "data",
    "start",
    "reference",
    "schedules",
    "groups",
    "balance",
    "regularisation",
    "terms",
    "clipping",
    "one-batch",
    "rate-sweep",
];
const SWEEP: &str = "rate-sweep";
/// How much more than the configured rate the sweep must show to be useful, where nothing was learned, to call that rate too low.
const LOW: f64 = 10.0;
/// The same where the score is only poor for its time: a careful rate is no fault.
const LOW_FOR_POOR: f64 = 30.0;
/// So much more, and the loss may as well stand still.
const FAR: f64 = 100.0;
/// How much less, to call it too high.
const HIGH: f64 = 3.0;
/// Rules that say nothing was learned.
const NOT_LEARNED: [&str; 5] =
    ["all-negative-collapse", "at-trivial-floor", "never-learned", "plateau", "poor-for-its-time"];
/// Not a rule of the doctor's: what the guard looks into by itself.
static POOR: RuleMeta = RuleMeta {
    id: "poor-for-its-time",
    summary: "the score is poor for its time",
    severity: Severity::Warning,
    docs: "",
};
/// Nor this.
static ADVISED: RuleMeta = RuleMeta {
    id: "advised-against",
    summary: "other settings are worth a trial",
    severity: Severity::Warning,
    docs: "",
};
const TOO_LOW: &str = "learning-rate-too-low";
const TOO_HIGH: &str = "learning-rate-too-high";
const LABELS: &str = "labels-or-loss-wrong";
/// Checks of what no setting mends.
const OF_A_PERSON: [&str; 2] = ["data", "start"];

/// Puts the causes that experiments speak for first, and adds the settings they advise.
pub(crate) fn decide(guarded: &Guarded, device: &str, mut alarm: Alarm) -> Alarm {
    weigh(guarded, &experiment(guarded, device, DECIDING), &mut alarm);
    alarm
}

/// Looks into the settings of a paused run: an alarm where there is something better to try, and nothing otherwise.
pub(crate) fn examine(guarded: &Guarded, device: &str, pause: Pause) -> Option<Alarm> {
    let mut alarm = Alarm {
        step: pause.step,
        stage: pause.stage,
        findings: Vec::new(),
        causes: Vec::new(),
        score: pause.score,
        falling: pause.falling,
        advice: Vec::new(),
        hopeless: None,
        only_advice: true,
        unsure: false,
    };
    let (seen, alarm) = match pause.reason {
        Reason::Advice => {
            // The whole run is judged, so from its first stage on.
            alarm.stage = 0;
            (&ADVISED, advised(guarded, device, alarm))
        }
        Reason::Poor => (&POOR, poor(guarded, device, alarm)),
    };
    let mut alarm = alarm.filter(|alarm| !alarm.advice.is_empty() && alarm.hopeless.is_none())?;
    let evidence = alarm.causes.first().and_then(|c| c.would_tell.first().cloned()).unwrap_or_default();
    let message = format!("{}; {evidence}", seen.summary);
    alarm.findings = vec![Finding::new(seen, message).at(alarm.step, alarm.step, alarm.step)];
    Some(alarm)
}

/// What the preflight advises against.
fn advised(guarded: &Guarded, device: &str, mut alarm: Alarm) -> Option<Alarm> {
    let items = experiment(guarded, device, ADVISING);
    let of_a_person = |item: &&Item| OF_A_PERSON.contains(&item.check) && item.verdict == Verdict::Fail;
    if items.iter().any(|item| of_a_person(&item)) {
        return None;
    }
    let mut found: Vec<&Item> = items
        .iter()
        // A schedule that is only cut short is often meant so.
        .filter(|item| {
            item.verdict == Verdict::Fail || item.verdict == Verdict::Warn && item.check != "schedules"
        })
        .filter(|item| !item.advice.is_empty())
        .collect();
    // What failed before what is worth a look, and in the order of the checks: of how directly they see a cause.
    found.sort_by_key(|item| item.verdict != Verdict::Fail);
    for item in found.iter().rev() {
        if let Some(cause) = item.cause {
            lead(&mut alarm, cause, 0.8, &item.message);
        }
    }
    let sweep = items.iter().find(|item| item.check == SWEEP);
    for cause in alarm.causes.iter().map(|c| c.cause).collect::<Vec<_>>() {
        let items = found.iter().copied().filter(|item| item.cause == Some(cause));
        if let Some(first) = items.clone().next()
            && [TOO_LOW, TOO_HIGH].contains(&cause)
        {
            // Whichever check saw it, the sweep knows by how much.
            let stage = remedies::stage_of(&first.advice[0].key);
            let known = sweep.map(|sweep| rates(guarded, sweep, cause, stage)).unwrap_or_default();
            if !known.is_empty() {
                alarm.advice.extend(known);
                continue;
            }
        }
        alarm.advice.extend(together(items, cause));
    }
    if alarm.advice.is_empty() {
        may_be_too_low(guarded, &items, &mut alarm);
        return Some(alarm);
    }
    // One mistake may hide another.
    let mut all: Vec<String> = Vec::new();
    for text in alarm.advice.iter().flat_map(|c| &c.overrides) {
        let key = text.split('=').next();
        if all.iter().all(|known| known.split('=').next() != key) {
            all.push(text.clone());
        }
    }
    if let Some(first) = alarm.advice.first()
        && alarm.advice.iter().all(|c| c.overrides.len() < all.len())
    {
        let why = "all that the preflight advises".to_owned();
        alarm.advice.insert(0, Candidate { cause: first.cause.clone(), overrides: all, why });
    }
    Some(alarm)
}

/// What the experiments say of a poor score; where they say nothing, lower rates are tried all the same: what is too high but learns shows in no
/// experiment as short as these.
fn poor(guarded: &Guarded, device: &str, mut alarm: Alarm) -> Option<Alarm> {
    let step = alarm.step;
    // What is tried is tried from the start: stages before this one with the same rate have the same mistake.
    alarm.stage = remedies::first_with_rate_of(&guarded.loaded.resolved, alarm.stage);
    alarm.findings = vec![Finding::new(&POOR, POOR.summary).at(step, step, step)];
    let items = experiment(guarded, device, DECIDING);
    weigh(guarded, &items, &mut alarm);
    if alarm.hopeless.is_some() {
        return None;
    }
    let rate = alarm.causes.first().is_some_and(|c| [TOO_LOW, TOO_HIGH].contains(&c.cause));
    if rate && !alarm.advice.is_empty() {
        return Some(alarm);
    }
    alarm.causes.clear();
    // Of both directions the one in which the sweep leaves room.
    if !may_be_too_low(guarded, &items, &mut alarm) {
        lead(&mut alarm, TOO_HIGH, 0.4, "none speaks against the settings; lower rates are tried");
        alarm.advice = remedies::lower_rates(&guarded.loaded.resolved, alarm.stage);
        alarm.unsure = true;
    }
    Some(alarm)
}

/// Whether a sweep leaves so much room above the rate that higher ones are worth a trial. A careful rate is no fault: they must do better.
fn may_be_too_low(guarded: &Guarded, items: &[Item], alarm: &mut Alarm) -> bool {
    let Some(sweep) = items.iter().find(|item| item.check == SWEEP) else { return false };
    let room = number(sweep, "high").zip(number(sweep, "learning_rate")).map(|(high, rate)| high / rate);
    if room.is_none_or(|room| room <= LOW_FOR_POOR) {
        return false;
    }
    let evidence = format!("none speaks against the settings, but {}; higher rates are tried", sweep.message);
    lead(alarm, TOO_LOW, 0.4, &evidence);
    alarm.advice = rates(guarded, sweep, TOO_LOW, alarm.stage);
    alarm.unsure = true;
    true
}

/// The items of some checks.
fn experiment(guarded: &Guarded, device: &str, only: &'static [&'static str]) -> Vec<Item> {
    let options = Options { device: device.to_owned(), seconds: f64::INFINITY, only, ..Options::default() };
    preflight::check(guarded, &options, &mut |_| {}).items
}

/// Rates that a sweep found of use, on the side of the configured one that a cause speaks for. The sweep sees one step at each rate; a run bears
/// somewhat less than its highest.
fn rates(guarded: &Guarded, item: &Item, cause: &str, stage: usize) -> Vec<Candidate> {
    let (Some(rate), Some(high)) = (number(item, "learning_rate"), number(item, "high")) else {
        return Vec::new();
    };
    let fitting = [0.3, 0.1, 1.0].map(|share| share * high).into_iter();
    let fitting = fitting.filter(|to| if cause == TOO_LOW { *to > rate } else { *to < rate });
    let overrides = fitting.map(|to| remedies::set_rate(&guarded.loaded.resolved, stage, to));
    let why = format!("of use in a sweep of the rate, which was {rate}");
    overrides
        .filter(|overrides| !overrides.is_empty())
        .map(|overrides| Candidate { cause: cause.to_owned(), overrides, why: why.clone() })
        .collect()
}

/// The advice of items of one cause as one candidate: the same mistake in two stages is mended in both.
fn together<'a>(items: impl Iterator<Item = &'a Item>, cause: &str) -> Option<Candidate> {
    let mut overrides: Vec<String> = Vec::new();
    let mut why = None;
    for item in items {
        why.get_or_insert(&item.message);
        for Advice { key, value } in &item.advice {
            let known = |text: &String| text.split('=').next() == Some(key);
            if !overrides.iter().any(known) {
                overrides.push(format!("{key}={value}"));
            }
        }
    }
    let why = why?.clone();
    (!overrides.is_empty()).then(|| Candidate { cause: cause.to_owned(), overrides, why })
}

fn number(item: &Item, name: &str) -> Option<f64> {
    item.numbers.get(name).and_then(serde_json::Value::as_f64)
}

fn weigh(guarded: &Guarded, items: &[Item], alarm: &mut Alarm) {
    let learned_nothing = alarm.findings.iter().any(|f| NOT_LEARNED.contains(&f.rule));
    let low = if alarm.findings.iter().any(|f| f.rule == POOR.id) { LOW_FOR_POOR } else { LOW };
    if let Some(item) = items.iter().find(|item| item.check == SWEEP)
        && let (Some(rate), Some(high)) = (number(item, "learning_rate"), number(item, "high"))
    {
        let found = if rate > HIGH * high {
            Some((TOO_HIGH, 0.85))
        } else if learned_nothing
            && (high > FAR * rate || high > low * rate && alarm.falling && symptoms_only(alarm))
        {
            Some((TOO_LOW, 0.8))
        } else {
            None
        };
        if let Some((cause, sure)) = found {
            let (times, way) =
                if cause == TOO_LOW { (high / rate, "as high as") } else { (rate / high, "lower than") };
            let evidence = format!(
                "in a sweep of the rate the loss falls up to {}, {} times {way} the configured {}",
                show(high),
                show(times),
                show(rate)
            );
            lead(alarm, cause, sure, &evidence);
            alarm.advice.extend(rates(guarded, item, cause, alarm.stage));
        } else if learned_nothing && symptoms_only(alarm) {
            // The rate is right, and yet nothing was learned from these labels.
            lead(alarm, LABELS, 0.6, &item.message);
        }
    }
    // Checks that failed see the cause itself: the last to lead is the first. What holds the labels down is seen as surely where it is a warning.
    let sees = |item: &&Item| {
        let failed = item.verdict == Verdict::Fail && item.check != SWEEP;
        failed || item.verdict == Verdict::Warn && item.check == "regularisation"
    };
    for item in items.iter().rev().filter(sees) {
        let Some(cause) = item.cause else { continue };
        lead(alarm, cause, 0.9, &item.message);
        let same = items.iter().filter(|other| other.check == item.check && other.cause == item.cause);
        let candidate = together(same, cause);
        alarm
            .advice
            .extend(candidate.filter(|c| alarm.advice.iter().all(|known| known.overrides != c.overrides)));
        if OF_A_PERSON.contains(&item.check) {
            alarm.hopeless = Some(format!("no setting mends this: {}", item.message));
        }
    }
}

/// Whether no rule has seen a cause itself.
fn symptoms_only(alarm: &Alarm) -> bool {
    alarm.causes.iter().all(|c| c.confidence < 0.7)
}

/// Puts a cause first.
fn lead(alarm: &mut Alarm, id: &str, sure: f64, evidence: &str) {
    let Some(cause) = CAUSES.iter().find(|c| c.id == id) else { return };
    let place = alarm.causes.iter().position(|c| c.cause == id);
    let mut explanation = match place {
        Some(place) => alarm.causes.remove(place),
        None => Explanation {
            cause: cause.id,
            summary: cause.summary,
            confidence: sure,
            explains: Vec::new(),
            experiment: cause.experiment,
            instead: Vec::new(),
            would_tell: Vec::new(),
        },
    };
    explanation.confidence = explanation.confidence.max(sure);
    explanation.would_tell = vec![format!("decided by experiment: {evidence}")];
    alarm.causes.insert(0, explanation);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn item(check: &'static str, verdict: Verdict, cause: &'static str, advice: &[(&str, &str)]) -> Item {
        Item {
            check,
            verdict,
            message: String::new(),
            numbers: serde_json::Map::new(),
            advice: advice
                .iter()
                .map(|(key, value)| Advice { key: (*key).to_owned(), value: (*value).to_owned() })
                .collect(),
            cause: Some(cause),
        }
    }

    #[test]
    fn one_mistake_in_two_stages_is_one_candidate() {
        let cause = "weights-decayed-away";
        let items = [
            item("regularisation", Verdict::Fail, cause, &[("stage1.weight_decay", "0.01")]),
            item("regularisation", Verdict::Warn, cause, &[("stage2.weight_decay", "0.01")]),
            item("regularisation", Verdict::Warn, cause, &[("stage1.weight_decay", "0.1")]),
        ];
        let candidate = together(items.iter(), cause).unwrap();
        assert_eq!(candidate.overrides, ["stage1.weight_decay=0.01", "stage2.weight_decay=0.01"]);
        assert_eq!(together([].iter(), cause), None);
    }

    #[test]
    fn rates_of_a_sweep_lie_on_the_side_that_the_cause_speaks_for() {
        let text = "recipe = \"volume-segmentation\"\n[optim]\nlearning_rate = 0.02\n";
        let guarded = crate::parse(Path::new("t.toml"), text, &[]).unwrap();
        let mut sweep = item(SWEEP, Verdict::Pass, TOO_LOW, &[]);
        sweep.numbers.insert("learning_rate".to_owned(), 0.02.into());
        sweep.numbers.insert("high".to_owned(), 0.1.into());
        let of = |cause| {
            rates(&guarded, &sweep, cause, 0).into_iter().flat_map(|c| c.overrides).collect::<Vec<_>>()
        };
        assert_eq!(of(TOO_LOW), ["optim.learning_rate=0.03", "optim.learning_rate=0.1"]);
        assert_eq!(of(TOO_HIGH), ["optim.learning_rate=0.01"]);
    }
}
