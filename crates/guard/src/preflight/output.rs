//! What the untrained network puts out for the first batch.

use trimtab_doctor::show;

use super::{Bench, Checked, Item, Verdict};

/// Sigmoid and softmax of a logit beyond this are 1 in single precision, and their gradient is 0.
const SATURATED: f64 = 50.0;
/// Outputs as close as that, relative to their size, are one number in single precision.
const CONSTANT: f64 = 1e-6;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let out = bench.examined()?.outputs;
    let size = out.least.abs().max(out.greatest.abs());
    let range = format!("{} to {}, deviation {}", show(out.least), show(out.greatest), show(out.deviation));
    let (verdict, message, cause) = if out.non_finite > 0 {
        let message = format!("{} of {} outputs are NaN or infinite", out.non_finite, out.count);
        (Verdict::Fail, message, Some("numbers-overflow"))
    } else if out.deviation <= CONSTANT * size {
        (
            Verdict::Fail,
            format!("every output is the same ({}): the network does not hear its input", show(out.least)),
            Some("units-dead"),
        )
    } else if size > SATURATED {
        let message = format!(
            "logits are saturated before training: {range}; beyond {SATURATED} they have no gradient"
        );
        (Verdict::Warn, message, Some("numbers-overflow"))
    } else {
        (Verdict::Pass, format!("{} finite logits, {range}", out.count), None)
    };
    let mut item = Item::new("output", verdict, message)
        .number("count", out.count)
        .number("non_finite", out.non_finite)
        .number("least", out.least)
        .number("greatest", out.greatest)
        .number("deviation", out.deviation);
    item.cause = cause;
    Ok(vec![item])
}
