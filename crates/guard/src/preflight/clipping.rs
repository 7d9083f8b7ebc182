//! Whether the bound on the gradient's norm is one that only the odd gradient meets.

use trimtab_doctor::show;

use super::{Bench, Checked, Item, Trouble, Verdict, times, toml};

/// So many times the bound, the bound is the rate. Losses with a scale (LDAM) begin a hundred times above a bound of 1, and an adaptive
/// optimizer does not mind.
const FAR: f64 = 250.0;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let stage = bench.first_stage()?;
    let key = stage.key("clip_norm");
    let Some(bound) = bench.keys.number(&key).filter(|bound| *bound > 0.0) else {
        return Err(Trouble::Skip(format!("{key} is 0: no gradient is clipped")));
    };
    let norms = bench.examined()?.layers.into_iter().filter_map(|layer| layer.gradient);
    let norm = norms.map(|norm| norm * norm).sum::<f64>().sqrt();
    let (over, place) = (norm / bound, stage.label());
    let item = if over > FAR {
        let message = format!(
            "{place}the gradient's norm on the first batch is {}, {} {key} = {}: every step will be clipped, and have the same length",
            show(norm),
            times(over),
            show(bound)
        );
        let item = Item::new("clipping", Verdict::Warn, message).advise(key, toml(2.0 * norm));
        item.cause("gradient-bound-too-tight")
    } else {
        let message = format!(
            "{place}the gradient's norm on the first batch is {}, the bound {key} = {}",
            show(norm),
            show(bound)
        );
        Item::new("clipping", Verdict::Pass, message)
    };
    Ok(vec![item.number("norm", norm).number("bound", bound)])
}
