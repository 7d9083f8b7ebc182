//! Schedules: values of the papers and reports, ends, and properties.

use proptest::prelude::*;
use trimtab_nn::schedules::{constant, linear, piecewise, polynomial_decay, ramp, warmup};

#[test]
fn the_rate_of_nnunet_falls_as_its_logs_say() {
    // nnU-Net v2 prints the rate of each of its 1000 epochs: 0.01, 0.00999, 0.00998, …
    let rate = polynomial_decay(0.01, 1000, 0.9);
    let printed: Vec<String> = [0, 1, 2, 500, 999].iter().map(|e| format!("{:.5}", rate(*e))).collect();
    assert_eq!(printed, ["0.01000", "0.00999", "0.00998", "0.00536", "0.00002"]);
    assert_eq!(rate(1000), 0.0);
    assert_eq!(rate(5000), 0.0);
}

#[test]
fn a_polynomial_of_power_one_is_a_line_and_of_power_zero_a_step() {
    let (line, step) = (polynomial_decay(2.0, 10, 1.0), polynomial_decay(2.0, 10, 0.0));
    for at in 0..12 {
        assert!((line(at) - 2.0 * (1.0 - at as f64 / 10.0).max(0.0)).abs() < 1e-15);
        assert_eq!(step(at), if at < 10 { 2.0 } else { 0.0 });
    }
    assert_eq!(polynomial_decay(2.0, 0, 0.9)(0), 0.0);
}

#[test]
fn the_threshold_of_report_003_steps_as_written() {
    let threshold = piecewise(0.05, vec![(15_000, 0.15), (5_000, 0.10), (30_000, 0.20)]);
    let at = [0, 4_999, 5_000, 14_999, 15_000, 29_999, 30_000, u64::MAX].map(&threshold);
    assert_eq!(at, [0.05, 0.05, 0.10, 0.10, 0.15, 0.15, 0.20, 0.20]);
    assert_eq!(piecewise(0.3, Vec::new())(7), 0.3);
    assert_eq!(piecewise(0.3, vec![(0, 0.5), (0, 0.7)])(0), 0.7);
}

#[test]
fn a_line_holds_its_ends_and_a_ramp_is_zero_until_it_begins() {
    let threshold = linear(0.2, 0.05, 0, 10_000);
    assert_eq!([threshold(0), threshold(10_000), threshold(u64::MAX)], [0.2, 0.05, 0.05]);
    assert!((threshold(5_000) - 0.125).abs() < 1e-15);
    let weight = ramp(0.3, 10, 20);
    assert_eq!([0, 10, 20, 21].map(&weight), [0.0, 0.0, 0.3, 0.3]);
    assert!((weight(15) - 0.15).abs() < 1e-15);
    let step = ramp(0.3, 10, 10);
    assert_eq!([9, 10].map(&step), [0.0, 0.3]);
    assert_eq!([9, 10].map(ramp(0.3, 10, 4)), [0.0, 0.3]);
}

#[test]
fn report_002_warms_up_over_ten_epochs() {
    let rate = warmup(1e-4, 10, constant(1e-4));
    for (epoch, printed) in [(0, "1.0e-5"), (5, "6.0e-5"), (9, "1.0e-4"), (10, "1.0e-4")] {
        assert_eq!(format!("{:.1e}", rate(epoch)), printed);
    }
}

proptest! {
    #[test]
    fn every_schedule_stays_between_its_ends(
        (a, b) in (0f64..10.0, 0f64..10.0), from in 0u64..50, length in 0u64..50, power in 0.1f64..3.0, step in 0u64..200,
    ) {
        let inside = |x: f64, low: f64, high: f64| (low - 1e-12..=high + 1e-12).contains(&x);
        prop_assert!(inside(linear(a, b, from, from + length)(step), a.min(b), a.max(b)));
        prop_assert!(inside(ramp(a, from, from + length)(step), 0.0, a));
        let decay = polynomial_decay(a, length, power);
        prop_assert!(inside(decay(step), 0.0, a));
        prop_assert!(decay(step + 1) <= decay(step));
        let one_of = piecewise(a, vec![(from, b)])(step);
        prop_assert_eq!(one_of, if step < from { a } else { b });
    }
}
