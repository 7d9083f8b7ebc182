//! Stages that can never begin, and expectations that can never be met: their bound lies beyond what the signal can be.

use trimtab_signals::{Signal, names};

use super::{Bench, Checked, Item, Trouble, Verdict};

/// Signals of validation that lie within 0 and 1.
const SHARES: &[Signal] = &[
    names::VAL_F1,
    names::VAL_MACRO_F1,
    names::VAL_PRECISION,
    names::VAL_RECALL,
    names::VAL_IOU,
    names::VAL_DICE,
    names::VAL_AUC,
    names::VAL_AVERAGE_PRECISION,
    names::VAL_BEST_F1,
    names::VAL_ACCURACY,
    names::VAL_BALANCED_ACCURACY,
    names::VAL_SURFACE_DICE,
    names::VAL_CLDICE,
    names::VAL_TOPO_SCORE,
    names::VAL_VOI_SCORE,
    names::VAL_TOPOLOGY_MIX,
    names::VAL_MEAN_PROBABILITY,
    names::VAL_POSITIVE_RATE,
    names::VAL_PREVALENCE,
];

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let keys = &bench.keys;
    let every = keys.count("evaluate.every_epochs").unwrap_or(1).max(1);
    let mut items = Vec::new();
    if let Some(text) = keys.text("stage1.advance_when") {
        let epochs = keys.count("stage1.epochs").unwrap_or(0);
        items.extend(advance(text, epochs.div_ceil(every)));
    }
    let mut judged = 0;
    for text in keys.expectations() {
        judged += 1;
        items.extend(expectation(&text));
    }
    if !items.is_empty() {
        return Ok(items);
    }
    if judged == 0 && keys.text("stage1.advance_when").is_none() {
        return Err(Trouble::Skip("no stage waits for a condition, and nothing is expected".to_owned()));
    }
    let message = format!("every condition can be met ({judged} expected)");
    Ok(vec![Item::new("stages", Verdict::Pass, message).number("expectations", judged)])
}

/// What a condition comes to, whatever the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Always {
    True,
    False,
}

/// `SIGNAL OP BOUND ...` where the signal is a share: never outside 0 to 1.
fn decided(text: &str) -> Option<Always> {
    let words: Vec<&str> =
        text.split_whitespace().skip_while(|w| ["abort", "warn", "when"].contains(w)).collect();
    let [signal, operator, bound, ..] = words[..] else { return None };
    let known = names::of(signal)?;
    let bound: f64 = bound.parse().ok().filter(|_| SHARES.contains(known))?;
    match operator {
        ">" if bound >= 1.0 => Some(Always::False),
        ">=" if bound > 1.0 => Some(Always::False),
        "<" if bound <= 0.0 => Some(Always::False),
        "<=" if bound < 0.0 => Some(Always::False),
        "==" if !(0.0..=1.0).contains(&bound) => Some(Always::False),
        ">" if bound < 0.0 => Some(Always::True),
        ">=" if bound <= 0.0 => Some(Always::True),
        "<" if bound > 1.0 => Some(Always::True),
        "<=" if bound >= 1.0 => Some(Always::True),
        "!=" if !(0.0..=1.0).contains(&bound) => Some(Always::True),
        _ => None,
    }
}

fn advance(text: &str, validations: u64) -> Option<Item> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let patience =
        words.windows(2).find(|w| w[0] == "for").and_then(|w| w[1].parse::<u64>().ok()).unwrap_or(1);
    let item = |verdict, message: String| {
        let item = Item::new("stages", verdict, message).number("validations", validations);
        Some(item.cause("configuration-not-effective"))
    };
    if decided(text) == Some(Always::False) {
        let message =
            format!("stage1.advance_when = \"{text}\" can never be true: the signal lies within 0 and 1");
        return item(Verdict::Fail, message);
    }
    if patience > validations {
        let message = format!(
            "stage1.advance_when = \"{text}\" waits for {patience} validations, stage 1 has {validations}"
        );
        return item(Verdict::Fail, message);
    }
    if decided(text) == Some(Always::True) {
        let message =
            format!("stage1.advance_when = \"{text}\" is always true: stage 1 ends at its first validation");
        return item(Verdict::Warn, message);
    }
    None
}

fn expectation(text: &str) -> Option<Item> {
    let stops = text.trim_start().starts_with("abort");
    let must = text.split_whitespace().any(|w| w == "by");
    let (verdict, what) = match (decided(text)?, stops, must) {
        (Always::False, false, true) => {
            (Verdict::Fail, "can never be met: the run would be stopped at its deadline")
        }
        (Always::True, true, _) => {
            (Verdict::Fail, "is always true: the run would be stopped at its first validation")
        }
        (Always::False, ..) => (Verdict::Warn, "can never be true: it guards nothing"),
        (Always::True, false, _) => (Verdict::Warn, "is always true: it says nothing"),
    };
    let message = format!("the expectation \"{text}\" {what}; the signal lies within 0 and 1");
    Some(Item::new("stages", verdict, message).cause("configuration-not-effective"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_share_cannot_be_is_decided_beforehand() {
        for never in ["val/f1 > 1", "val/dice >= 1.01", "val/positive_rate < 0", "val/auc == 2"] {
            assert_eq!(decided(never), Some(Always::False), "{never}");
        }
        assert_eq!(decided("abort when val/f1 < 2 for 3"), Some(Always::True));
        for open in [
            "val/f1 > 0.5",
            "val/loss > 3",
            "grad/norm > 100",
            "val/hd95 < 5 by epoch 3",
            "val/f1 - val/iou > 2",
        ] {
            assert_eq!(decided(open), None, "{open}");
        }
    }

    #[test]
    fn a_stage_that_waits_longer_than_it_lasts_never_ends_early() {
        assert_eq!(advance("val/f1 > 0.5 for 3", 2).unwrap().verdict, Verdict::Fail);
        assert_eq!(advance("val/f1 > 0.5 for 3", 3), None);
        assert_eq!(advance("val/f1 >= 0", 3).unwrap().verdict, Verdict::Warn);
        assert_eq!(expectation("val/f1 > 1 by epoch 3").unwrap().verdict, Verdict::Fail);
        assert_eq!(expectation("abort when val/f1 > 1").unwrap().verdict, Verdict::Warn);
    }
}
