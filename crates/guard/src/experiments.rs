//! What symptoms alone cannot decide is decided by experiment: at an alarm, the preflight's own, on the recipe as it stands.

use trimtab_doctor::causes::{CAUSES, Explanation};
use trimtab_doctor::{Finding, RuleMeta, Severity, show};

use crate::preflight::{self, Item, Options, Verdict};
use crate::remedies::{self, Candidate};
use crate::settings::Guarded;
use crate::watch::Alarm;

/// The checks that may decide. All of them together take fewer steps than a branch, so none is cut short by the clock: the same run
/// must come to the same decision on any machine.
const DECIDING: &[&str] =
    &["data", "start", "schedules", "balance", "regularisation", "terms", "clipping", "rate-sweep"];
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
    summary: "the score is poor after a quarter of the stage",
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
    let options =
        Options { device: device.to_owned(), seconds: f64::INFINITY, only: DECIDING, ..Options::default() };
    let report = preflight::check(guarded, &options, &mut |_| {});
    weigh(guarded, &report.items, &mut alarm);
    alarm
}

/// Looks into a poor score: an alarm where an experiment speaks against the settings, and nothing otherwise.
pub(crate) fn examine(guarded: &Guarded, device: &str, alarm: Alarm) -> Option<Alarm> {
    let mut alarm = alarm;
    alarm.causes.clear();
    let finding =
        Finding::new(&POOR, "the score is poor for its time").at(alarm.step, alarm.step, alarm.step);
    alarm.findings.insert(0, finding);
    let mut alarm = decide(guarded, device, alarm);
    let rate = alarm.causes.first().is_some_and(|c| [TOO_LOW, TOO_HIGH].contains(&c.cause));
    let evidence = alarm.causes.first().and_then(|c| c.would_tell.first().cloned()).unwrap_or_default();
    alarm.findings.truncate(1);
    alarm.findings[0].message = format!("the score is poor for its time; {evidence}");
    (rate && !alarm.advice.is_empty() && alarm.hopeless.is_none()).then_some(alarm)
}

fn weigh(guarded: &Guarded, items: &[Item], alarm: &mut Alarm) {
    let resolved = &guarded.loaded.resolved;
    let learned_nothing = alarm.findings.iter().any(|f| NOT_LEARNED.contains(&f.rule));
    let low = if alarm.findings.iter().any(|f| f.rule == POOR.id) { LOW_FOR_POOR } else { LOW };
    let number = |item: &Item, name: &str| item.numbers.get(name).and_then(serde_json::Value::as_f64);
    if let Some(item) = items.iter().find(|item| item.check == "rate-sweep")
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
            let why = format!("of use in a sweep of the rate, which was {rate}");
            // The sweep sees one step at each rate; a run bears somewhat less than its highest.
            for share in [0.3, 0.1, 1.0] {
                let overrides = remedies::set_rate(resolved, alarm.stage, share * high);
                if !overrides.is_empty() {
                    alarm.advice.push(Candidate { cause: cause.to_owned(), overrides, why: why.clone() });
                }
            }
        } else if learned_nothing && symptoms_only(alarm) {
            // The rate is right, and yet nothing was learned from these labels.
            lead(alarm, LABELS, 0.6, &item.message);
        }
    }
    // Checks that failed see the cause itself: the last to lead is the first. What holds the labels down is seen as surely where it is a warning.
    let sees = |item: &&Item| {
        let failed = item.verdict == Verdict::Fail && item.check != "rate-sweep";
        failed || item.verdict == Verdict::Warn && item.check == "regularisation"
    };
    for item in items.iter().rev().filter(sees) {
        let Some(cause) = item.cause else { continue };
        lead(alarm, cause, 0.9, &item.message);
        // Stages with the same mistake are mended together.
        let same = items.iter().filter(|other| other.check == item.check && other.cause == item.cause);
        let overrides: Vec<String> =
            same.flat_map(|other| &other.advice).map(|a| format!("{}={}", a.key, a.value)).collect();
        if !overrides.is_empty() && alarm.advice.iter().all(|known| known.overrides != overrides) {
            alarm.advice.push(Candidate { cause: cause.to_owned(), overrides, why: item.message.clone() });
        }
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
