//! Every key of the file was asked for. A file of which that is not so does not come this far: see [`super::refused`].

use super::{Bench, Checked, Item, Verdict};

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let keys = bench.resolved().rows().count();
    let text = bench.resolved().to_toml();
    // Each line of the resolved file says where its value comes from.
    let given = text
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.ends_with("# default"));
    let given = given.count();
    let message = format!(
        "all {given} keys that are given take effect; {} more have their defaults",
        keys.saturating_sub(given)
    );
    Ok(vec![Item::new("settings", Verdict::Pass, message).number("given", given).number("keys", keys)])
}
