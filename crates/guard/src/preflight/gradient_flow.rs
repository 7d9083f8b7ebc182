//! Whether the gradient of the whole loss arrives at every layer, and at the first as at the last.

use std::collections::BTreeMap;

use trimtab_doctor::series::median;
use trimtab_doctor::show;
use trimtab_train::Layer;

use super::{Bench, Checked, Item, Verdict};

/// First over last group, from which on the first learns nothing while the last does.
const VANISHED: f64 = 1e-6;
/// Layers without a gradient beyond this share are no side branch.
const MOST: f64 = 0.5;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let layers = bench.examined()?.layers;
    // Biases before a norm have none, rightly.
    let weights: Vec<&Layer> = layers.iter().filter(|layer| layer.path.ends_with("weight")).collect();
    let dead: Vec<&str> =
        weights.iter().filter(|l| l.gradient.is_none_or(|g| g == 0.0)).map(|l| l.path.as_str()).collect();
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for layer in &weights {
        groups.entry(&layer.group).or_default().extend(layer.gradient.filter(|g| *g > 0.0));
    }
    let medians: Vec<(&str, f64)> =
        groups.iter().filter_map(|(group, norms)| Some((*group, median(norms.iter().copied())?))).collect();
    let told: Vec<String> = medians.iter().map(|(group, norm)| format!("{group} {}", show(*norm))).collect();
    let told = told.join(", ");
    let least = medians.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    let most = medians.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    let not_finite = layers.iter().find(|l| l.gradient.is_some_and(|g| !g.is_finite()));
    let (verdict, message, cause) = if let Some(layer) = not_finite {
        let message = format!("the gradient of {} is not a finite number", layer.path);
        (Verdict::Fail, message, Some("numbers-overflow"))
    } else if !dead.is_empty() {
        let verdict =
            if dead.len() as f64 > MOST * weights.len() as f64 { Verdict::Fail } else { Verdict::Warn };
        // The lowest level of deep supervision can be left out on purpose.
        let meant = bench.keys.text("loss.drop_lowest") == Some("true") && dead.len() <= 1;
        let message = format!("{} of {} layers get no gradient, e.g. {}", dead.len(), weights.len(), dead[0]);
        if meant {
            (Verdict::Pass, message + ", by loss.drop_lowest", None)
        } else {
            (verdict, message, Some("units-dead"))
        }
    } else if let (Some((first, low)), Some((last, high))) = (least, most)
        && low < VANISHED * high
    {
        let message =
            format!("the gradient vanishes: {first} gets {} of what {last} does ({told})", show(low / high));
        (Verdict::Warn, message, Some("units-dead"))
    } else {
        (Verdict::Pass, format!("a gradient arrives at all {} layers; medians: {told}", weights.len()), None)
    };
    let mut item = Item::new("gradient-flow", verdict, message).number("layers", weights.len());
    item = item.number("without", dead.len());
    for (group, norm) in medians {
        item = item.number(&format!("median/{group}"), norm);
    }
    item.cause = cause;
    Ok(vec![item])
}
