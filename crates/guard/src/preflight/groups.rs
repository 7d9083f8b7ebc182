//! Whether a fresh head beside a pretrained backbone has a rate of its own: it needs large steps, pretrained weights bear only small ones.

use trimtab_doctor::show;

use super::{Bench, Checked, Item, Trouble, Verdict, times};

/// Relative difference of two rates that is none.
const SAME: f64 = 0.01;
/// What heads are usually given.
const USUAL: f64 = 10.0;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let keys = bench.keys.clone();
    let stage = bench.first_stage()?;
    let scale = |group: &str| stage.scales.get(group).copied();
    let (Some(head), Some(backbone)) = (scale("head"), scale("backbone")) else {
        return Ok(Vec::new());
    };
    let Some(weights) = keys.text("model.pretrained") else {
        return Err(Trouble::Skip("head and backbone both start from random weights".to_owned()));
    };
    let item = if (head - backbone).abs() <= SAME * backbone {
        let message = format!(
            "head and backbone train at the same rate, {}, though the backbone starts from {weights} and the head is new",
            show(stage.rate * head)
        );
        let advised = format!("{:?}", USUAL * backbone);
        Item::new("groups", Verdict::Warn, message)
            .advise("optim.rate_scale.head", advised)
            .cause("parameter-groups")
    } else {
        let message =
            format!("the new head trains at {} the rate of the pretrained backbone", times(head / backbone));
        Item::new("groups", Verdict::Pass, message)
    };
    Ok(vec![item.number("head", head).number("backbone", backbone)])
}
