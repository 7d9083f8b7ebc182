//! What holds for every input.

use proptest::collection::vec;
use proptest::prelude::*;
use trimtab_metrics::{BinaryCounts, BinaryEvaluator, BinaryHistogram, exact};

type Pixels = Vec<(f32, i8)>;

/// Probabilities of all magnitudes near both ends, as well as anything an `f32` can hold.
fn probability() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => 0.0_f32..=1.0,
        2 => (0.0_f32..=1.0).prop_map(|u| u * 1e-6),
        2 => (0.0_f32..=1.0).prop_map(|u| 1.0 - u * 1e-6),
        2 => (0_u8..=8).prop_map(|k| f32::from(k) / 8.0),
        1 => any::<u32>().prop_map(f32::from_bits),
    ]
}

fn pixels() -> impl Strategy<Value = Pixels> {
    vec((probability(), -1_i8..=1), 0..400)
}

fn split(pixels: &[(f32, i8)]) -> (Vec<f32>, Vec<i8>) {
    pixels.iter().copied().unzip()
}

fn histogram(pixels: &[(f32, i8)]) -> BinaryHistogram {
    let (p, y) = split(pixels);
    let mut histogram = BinaryHistogram::new();
    histogram.push(&p, &y).expect("labels are binary");
    histogram
}

fn evaluator(pixels: &[(f32, i8)], limit: usize) -> BinaryEvaluator {
    let (p, y) = split(pixels);
    let mut evaluator = BinaryEvaluator::with_exact_limit(limit);
    evaluator.push(&p, &y).expect("labels are binary");
    evaluator
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_metric_is_in_the_unit_interval_or_undefined(pixels in pixels(), limit in 0_usize..500) {
        for metric in evaluator(&pixels, limit).report(0.5) {
            let low = if metric.name == "best_threshold" { -1.0 } else { 0.0 };
            let ok = |v: f64| v.is_nan() || (low..=1.0).contains(&v);
            prop_assert!(ok(metric.value), "{metric:?}");
            prop_assert!(metric.floor.is_none_or(ok), "{metric:?}");
        }
    }

    #[test]
    fn merging_is_pushing_both(a in pixels(), b in pixels()) {
        let mut merged = histogram(&a);
        merged.merge(&histogram(&b));
        prop_assert_eq!(merged, histogram(&[a, b].concat()));
    }

    #[test]
    fn merging_evaluators_is_pushing_both(a in pixels(), b in pixels(), limit in 0_usize..500) {
        let mut merged = evaluator(&a, limit);
        merged.merge(&evaluator(&b, limit));
        let both = evaluator(&[a, b].concat(), limit);
        prop_assert_eq!(merged.is_exact(), both.is_exact());
        prop_assert_eq!(format!("{:?}", merged.report(0.5)), format!("{:?}", both.report(0.5)));
    }

    #[test]
    fn order_does_not_matter(pixels in pixels(), limit in 0_usize..500) {
        let mut reversed = pixels.clone();
        reversed.reverse();
        prop_assert_eq!(histogram(&pixels), histogram(&reversed));
        let (one, other) = (evaluator(&pixels, limit), evaluator(&reversed, limit));
        prop_assert_eq!(format!("{:?}", one.report(0.5)), format!("{:?}", other.report(0.5)));
    }

    #[test]
    fn rank_metrics_ignore_a_monotone_transform(pixels in vec((0.0_f32..=1.0, 0_i8..=1), 1..400)) {
        // A power of two scales floats without rounding, so the order is kept to the last bit.
        let scaled: Pixels = pixels.iter().map(|&(p, y)| (p * 2.0_f32.powi(-12), y)).collect();
        let (p, y) = split(&pixels);
        let (q, _) = split(&scaled);
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        prop_assert!(same(exact::auc(&p, &y).unwrap(), exact::auc(&q, &y).unwrap()));
        prop_assert!(same(
            exact::average_precision(&p, &y).unwrap(),
            exact::average_precision(&q, &y).unwrap()
        ));
        let (binned, scaled) = (histogram(&pixels), histogram(&scaled));
        let room = binned.auc_error_bound() + scaled.auc_error_bound() + 1e-12;
        prop_assert!(room.is_nan() || (binned.auc() - scaled.auc()).abs() <= room);
    }

    #[test]
    fn the_histogram_stays_within_its_own_error_bound(pixels in pixels()) {
        let (p, y) = split(&pixels);
        let binned = histogram(&pixels);
        let (exact, bound) = (exact::auc(&p, &y).unwrap(), binned.auc_error_bound());
        prop_assert_eq!(exact.is_nan(), binned.auc().is_nan());
        prop_assert!(exact.is_nan() || (exact - binned.auc()).abs() <= bound + 1e-12);
    }

    #[test]
    fn counts_at_an_edge_are_exact(pixels in pixels(), k in 0_u16..=4096) {
        let threshold = f64::from(k) / 4096.0;
        prop_assert_eq!(BinaryHistogram::effective_threshold(threshold), threshold);
        let valid: Pixels = pixels
            .iter()
            .filter(|(p, _)| p.is_finite())
            .map(|&(p, y)| (p.clamp(0.0, 1.0), y))
            .collect();
        let (p, y) = split(&valid);
        let expected = BinaryCounts::count(&p, &y, threshold).unwrap();
        prop_assert_eq!(histogram(&pixels).counts_at(threshold), expected);
        prop_assert_eq!(evaluator(&pixels, 1000).counts_at(threshold), expected);
    }

    #[test]
    fn the_best_threshold_gives_the_best_f1(pixels in pixels(), limit in 0_usize..500) {
        let evaluator = evaluator(&pixels, limit);
        let (threshold, f1) = evaluator.best_threshold();
        if !threshold.is_nan() {
            prop_assert_eq!(evaluator.counts_at(threshold).f1(), f1);
        }
        for k in 0..=64 {
            prop_assert!(evaluator.counts_at(f64::from(k) / 64.0).f1() <= f1);
        }
    }

    #[test]
    fn every_pixel_is_accounted_for(pixels in pixels()) {
        let histogram = histogram(&pixels);
        let all = histogram.valid() + histogram.ignored() + histogram.non_finite();
        prop_assert_eq!(all, pixels.len() as u64);
        prop_assert_eq!(histogram.counts_at(0.5).total(), histogram.valid());
    }
}
