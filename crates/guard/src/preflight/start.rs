//! Sets up network and data as a training would.

use super::{Bench, Checked, Item, Verdict, thousands};

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    bench.build()?;
    let probe = bench.probe()?;
    let info = probe.info();
    let parameters: u64 = info.parameter_counts.values().sum();
    let stages: Vec<String> = probe.stages().iter().map(|s| thousands(s.steps())).collect();
    let message = format!(
        "a network of {} parameters, {} steps at most, on {}",
        thousands(parameters),
        stages.join(" + "),
        info.device
    );
    let (steps, device) = (info.steps_planned, info.device.clone());
    let item = Item::new("start", Verdict::Pass, message).number("parameters", parameters);
    Ok(vec![item.number("steps", steps).number("device", device)])
}
