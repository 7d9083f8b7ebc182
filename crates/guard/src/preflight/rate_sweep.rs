//! A sweep of the learning rate (Smith 2015, <https://arxiv.org/abs/1506.01186>): from 1e-7 to 1, a step at each rate, and where in the band of
//! useful rates the configured one lies.

use trimtab_doctor::show;

use super::declared::Declared;
use super::{Bench, Checked, Item, Trouble, Verdict, times, toml};

/// Rates tried, evenly on a logarithmic scale.
const STEPS: usize = 40;
const LOWEST: f64 = 1e-7;
const HIGHEST: f64 = 1.0;
/// Batches that take turns: each is compared with itself, so that easy and hard ones do not look like progress.
const BATCHES: usize = 4;
/// A fall by this share is the beginning of one.
const BEGINS: f64 = 0.02;
/// A loss of so many times its first value has exploded.
const EXPLODED: f64 = 4.0;
/// A step a rate sees only what falls at once; training has hundreds of steps at a rate, so one this much lower does as well.
const PATIENCE: f64 = 30.0;
/// At its lowest the loss is about to rise.
const MARGIN: f64 = 3.0;
const WARN: f64 = 3.0;
const FAIL: f64 = 30.0;

/// Rates that are of use.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Band {
    low: f64,
    high: f64,
}

fn rate(step: usize) -> f64 {
    LOWEST * (HIGHEST / LOWEST).powf(step as f64 / (STEPS - 1) as f64)
}

/// The band of a sweep: losses at [`rate`], as far as it went. None where nothing fell.
fn band(losses: &[f64]) -> Option<Band> {
    let relative: Vec<f64> = (0..losses.len())
        .map(|i| 1.0 + (losses[i] - losses[i % BATCHES]) / losses[i % BATCHES].abs().max(1e-12))
        .collect();
    let finite = relative.iter().position(|r| !r.is_finite() || *r > EXPLODED).unwrap_or(relative.len());
    let smooth: Vec<f64> = (0..finite)
        .map(|i| {
            let part = &relative[i.saturating_sub(1)..(i + 2).min(finite)];
            part.iter().sum::<f64>() / part.len() as f64
        })
        .collect();
    // The first turn of the batches is what the others are compared with.
    let begins = (BATCHES..smooth.len()).find(|i| smooth[*i] < 1.0 - BEGINS)?;
    let lowest = (begins..smooth.len()).min_by(|a, b| smooth[*a].total_cmp(&smooth[*b]))?;
    let low = rate(begins) / PATIENCE;
    Some(Band { low, high: (rate(lowest) / MARGIN).max(rate(begins)) })
}

impl Band {
    /// How many times outside a rate is; 1 within.
    fn outside(self, rate: f64) -> (f64, &'static str) {
        if rate < self.low {
            (self.low / rate, "below")
        } else if rate > self.high {
            (rate / self.high, "above")
        } else {
            (1.0, "within")
        }
    }
}

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let stage = bench.first_stage()?;
    if stage.rate <= 0.0 {
        return Err(Trouble::Skip("the learning rate is 0".to_owned()));
    }
    bench.afford(STEPS as f64)?;
    bench.enter()?;
    let at = stage.frozen.min(stage.last());
    let mut losses: Vec<f64> = Vec::new();
    for step in 0..STEPS {
        let moment = bench.step(at + (step % BATCHES) as u64, at, Some(rate(step)))?;
        losses.push(moment.loss());
        let first = losses[step % BATCHES];
        if !moment.loss().is_finite() || moment.loss() - first > (EXPLODED - 1.0) * first.abs() * 2.0 {
            break;
        }
    }
    let Some(found) = band(&losses) else {
        let message = format!(
            "the loss falls at none of {} rates from {} to {}",
            losses.len(),
            show(LOWEST),
            show(rate(losses.len().saturating_sub(1)))
        );
        let item = Item::new("rate-sweep", Verdict::Warn, message).number("losses", losses);
        return Ok(vec![item.cause("labels-or-loss-wrong")]);
    };
    let mut items = vec![place(&stage, found).number("losses", losses)];
    // Later stages begin with trained weights, which may need less, but bear no more.
    for later in bench.declared()?.iter().skip(1).filter(|later| later.rate > found.high) {
        items.extend(Some(place(later, found)).filter(|item| item.verdict > Verdict::Pass));
    }
    Ok(items)
}

/// Where the stage's rate lies.
fn place(stage: &Declared, band: Band) -> Item {
    let (factor, place) = band.outside(stage.rate);
    let verdict = match factor {
        f if f > FAIL => Verdict::Fail,
        f if f > WARN => Verdict::Warn,
        _ => Verdict::Pass,
    };
    let place_words = if place == "within" { place.to_owned() } else { format!("{} {place}", times(factor)) };
    let message = format!(
        "{}the rate {} is {place_words} the band of useful rates, {} to {}",
        stage.label(),
        show(stage.rate),
        show(band.low),
        show(band.high)
    );
    let item = Item::new("rate-sweep", verdict, message)
        .number("learning_rate", stage.rate)
        .number("low", band.low)
        .number("high", band.high)
        .number("factor", factor);
    match (verdict, place) {
        (Verdict::Pass, _) => item,
        (_, "above") => {
            item.advise(stage.key("learning_rate"), toml(band.high)).cause("learning-rate-too-high")
        }
        _ => item.advise(stage.key("learning_rate"), toml(band.low)).cause("learning-rate-too-low"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of different difficulty; falls from 1e-4 on, lowest at 1e-2, grows beyond.
    fn course(step: usize) -> f64 {
        let hard = [1.0, 3.0, 0.5, 2.0][step % BATCHES];
        let r = rate(step).log10();
        let fall = ((r + 4.0) * 0.2).clamp(0.0, 0.4);
        let rise = if r > -2.0 { (r + 2.0) * 4.0 } else { 0.0 };
        hard * (1.0 - fall + rise)
    }

    #[test]
    fn the_band_is_between_where_the_loss_begins_to_fall_and_where_it_is_lowest() {
        let losses: Vec<f64> = (0..STEPS).map(course).collect();
        let found = band(&losses).unwrap();
        assert!((3e-6..2e-5).contains(&found.low), "{found:?}");
        assert!((1.5e-3..6e-3).contains(&found.high), "{found:?}");
        assert_eq!(found.outside(1e-3), (1.0, "within"));
        assert!(found.outside(1.0).0 > 100.0 && found.outside(1e-8).1 == "below");
    }

    #[test]
    fn a_sweep_that_breaks_off_ends_the_band_there_and_one_that_never_falls_has_none() {
        let mut losses: Vec<f64> = (0..30).map(course).collect();
        losses.push(f64::NAN);
        assert!(band(&losses).unwrap().high <= rate(29));
        assert_eq!(band(&[1.0; STEPS]), None);
        assert_eq!(band(&[]), None);
        assert_eq!(band(&[f64::NAN]), None);
    }
}
