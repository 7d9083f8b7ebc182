//! Schedules: pure functions of the step (counted from 0), composed by plain calls.

use std::f64::consts::PI;

/// A value for each step. Boxed so that a recipe can hold several of different make.
pub type Schedule = Box<dyn Fn(u64) -> f64 + Send + Sync>;

/// The same value at every step.
pub fn constant(value: f64) -> Schedule {
    Box::new(move |_| value)
}

/// Linear warm-up to `peak`, then `after(step - warmup)`.
///
/// Step `s < warmup` has `peak (s + 1) / warmup`: the first step is not zero, the last of the warm-up is `peak`.
pub fn warmup(peak: f64, warmup: u64, after: Schedule) -> Schedule {
    Box::new(
        move |step| {
            if step < warmup { peak * ((step + 1) as f64 / warmup as f64) } else { after(step - warmup) }
        },
    )
}

/// From `peak` at step 0 linearly towards 0 at `horizon`, and 0 from there on.
pub fn linear_decay(peak: f64, horizon: u64) -> Schedule {
    Box::new(move |step| peak * (1.0 - progress(step, horizon)))
}

/// Half a cosine from `peak` at step 0 to 0 at `horizon` (Loshchilov & Hutter 2017, <https://arxiv.org/abs/1608.03983>, without restarts).
pub fn cosine_decay(peak: f64, horizon: u64) -> Schedule {
    Box::new(move |step| peak * 0.5 * (1.0 + (PI * progress(step, horizon)).cos()))
}

/// `peak exp(-5 (1 - t/T)^2)` with T = `length`, `peak` from there on: the ramp-up of a consistency weight
/// (Laine & Aila 2017, <https://arxiv.org/abs/1610.02242>).
pub fn sigmoid_rampup(peak: f64, length: u64) -> Schedule {
    Box::new(move |step| {
        let rest = 1.0 - progress(step, length);
        peak * (-5.0 * rest * rest).exp()
    })
}

/// `peak (1 - t/T)^power` with T = `horizon`, 0 from there on: "poly", DeepLab's and nnU-Net's decay of the rate, both with
/// power 0.9 (Chen et al. 2017, <https://arxiv.org/abs/1606.00915>; Isensee et al. 2021,
/// <https://doi.org/10.1038/s41592-020-01008-z>, which counts epochs, not updates). `power` at least 0.
pub fn polynomial_decay(peak: f64, horizon: u64, power: f64) -> Schedule {
    Box::new(move |step| match 1.0 - progress(step, horizon) {
        // 0^0 is 1, but over is over.
        rest if rest <= 0.0 => 0.0,
        rest => peak * rest.powf(power),
    })
}

/// `first` until `from`, linearly to `last` at `until`, and that from there on; a step where `until` is not after `from`.
pub fn linear(first: f64, last: f64, from: u64, until: u64) -> Schedule {
    Box::new(move |step| match step.checked_sub(from) {
        None => first,
        Some(since) => {
            let share = progress(since, until.saturating_sub(from));
            // Exactly either end's value at either end.
            first * (1.0 - share) + last * share
        }
    })
}

/// A weight that is 0 until `from`, then rises linearly to `weight` at `until`: a loss that joins later.
pub fn ramp(weight: f64, from: u64, until: u64) -> Schedule {
    linear(0.0, weight, from, until)
}

/// `first`, then from each step named in `later` on the value beside it, whatever order they are named in (of several for one step
/// the last).
pub fn piecewise(first: f64, mut later: Vec<(u64, f64)>) -> Schedule {
    later.sort_by_key(|(step, _)| *step);
    Box::new(move |step| {
        let begun = later.partition_point(|(begin, _)| *begin <= step);
        if begun == 0 { first } else { later[begun - 1].1 }
    })
}

/// Decay of an average with warm-up: `min(1 - 1/(step + 1), decay)` (Mean Teacher's reference code), so that the first
/// updates copy rather than keep the initial weights.
pub fn average_decay(decay: f64) -> Schedule {
    Box::new(move |step| (1.0 - 1.0 / (step + 1) as f64).min(decay))
}

/// Share of `horizon` that is over at `step`, in 0..=1; 1 for an empty horizon.
fn progress(step: u64, horizon: u64) -> f64 {
    if horizon == 0 { 1.0 } else { (step as f64 / horizon as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_000_warms_up_as_logged() {
        // 517 samples in batches of 4 are 130 batches an epoch; 10 epochs of warm-up; 100 epochs in all.
        let steps_per_epoch = 517u64.div_ceil(4);
        let rate = warmup(1e-5, 10 * steps_per_epoch, linear_decay(1e-5, 90 * steps_per_epoch));
        assert_eq!(format!("{:.2e}", rate(0)), "7.69e-9");
        assert_eq!(format!("{:.2e}", rate(steps_per_epoch - 1)), "1.00e-6");
        assert_eq!(rate(10 * steps_per_epoch - 1), 1e-5);
        assert_eq!(rate(10 * steps_per_epoch), 1e-5);
        assert!(rate(100 * steps_per_epoch - 1) > 0.0);
        assert_eq!(rate(100 * steps_per_epoch), 0.0);
    }

    #[test]
    fn an_average_first_copies_then_keeps_the_declared_decay() {
        let decay = average_decay(0.99);
        assert_eq!(decay(0), 0.0);
        assert_eq!(decay(1), 0.5);
        assert_eq!(decay(99), 0.99);
        assert_eq!(decay(1_000_000), 0.99);
    }

    #[test]
    fn a_rampup_starts_at_exp_minus_five_and_ends_at_its_peak() {
        let weight = sigmoid_rampup(0.1, 40);
        assert!((weight(0) - 0.1 * (-5f64).exp()).abs() < 1e-15);
        assert_eq!(weight(40), 0.1);
        assert_eq!(weight(10_000), 0.1);
    }

    #[test]
    fn a_cosine_is_half_way_at_half_time_and_empty_horizons_are_over_at_once() {
        assert!((cosine_decay(2.0, 10)(5) - 1.0).abs() < 1e-12);
        assert_eq!(linear_decay(1.0, 0)(0), 0.0);
        assert_eq!(sigmoid_rampup(1.0, 0)(0), 1.0);
    }

    proptest::proptest! {
        #[test]
        fn warmup_rises_and_decay_falls(peak in 1e-8f64..10.0, warm in 1u64..500, rest in 1u64..500) {
            let rate = warmup(peak, warm, linear_decay(peak, rest));
            for step in 1..warm + rest {
                let (before, now) = (rate(step - 1), rate(step));
                let right_way = if step < warm { now > before } else { now <= before };
                proptest::prop_assert!(right_way, "step {step}: {before} then {now}");
                proptest::prop_assert!((0.0..=peak).contains(&now));
            }
        }
    }
}
