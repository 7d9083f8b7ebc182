//! Inputs that define little or nothing.

use trimtab_metrics::{BinaryCounts, BinaryEvaluator, BinaryHistogram, BinaryReport, Error, exact};

/// The same report through the exact path and through the histogram.
fn reports(probabilities: &[f32], labels: &[i8]) -> [BinaryReport; 2] {
    [usize::MAX, 0].map(|limit| {
        let mut evaluator = BinaryEvaluator::with_exact_limit(limit);
        evaluator.push(probabilities, labels).expect("valid input");
        evaluator.report(0.5)
    })
}

fn value(report: &BinaryReport, name: &str) -> f64 {
    report.get(name).expect("metric").value
}

#[test]
fn nothing_measured_is_not_a_number() {
    for (probabilities, labels) in [(&[][..], &[][..]), (&[0.2, 0.7][..], &[-1, -3][..])] {
        for report in reports(probabilities, labels) {
            assert!(report.iter().all(|metric| metric.value.is_nan()));
            assert_eq!(report.valid, 0);
            assert_eq!(report.ignored, labels.len() as u64);
        }
    }
}

#[test]
fn negatives_alone_leave_rank_metrics_undefined() {
    for report in reports(&[0.2, 0.7], &[0, 0]) {
        assert!(value(&report, "auc").is_nan());
        assert!(value(&report, "average_precision").is_nan());
        assert!(value(&report, "best_threshold").is_nan());
        assert_eq!(value(&report, "best_f1"), 0.0);
        assert_eq!(value(&report, "f1"), 0.0);
        assert_eq!(value(&report, "recall"), 0.0);
        assert_eq!(value(&report, "positive_rate"), 0.5);
        assert_eq!(report.get("f1").and_then(|m| m.floor), Some(0.0));
    }
}

#[test]
fn positives_alone_leave_only_the_auc_undefined() {
    for report in reports(&[0.25, 0.75], &[1, 1]) {
        assert!(value(&report, "auc").is_nan());
        assert_eq!(value(&report, "average_precision"), 1.0);
        assert_eq!(value(&report, "best_f1"), 1.0);
        assert!(value(&report, "best_threshold") < 0.25);
        assert_eq!(report.get("f1").and_then(|m| m.floor), Some(1.0));
    }
}

#[test]
fn a_positive_with_probability_zero_needs_a_negative_threshold() {
    for report in reports(&[0.0, 0.0], &[1, 0]) {
        assert_eq!(value(&report, "best_threshold"), -1.0);
        assert_eq!(value(&report, "best_f1"), 2.0 / 3.0);
        assert_eq!(value(&report, "auc"), 0.5);
    }
}

#[test]
fn non_finite_probabilities_are_counted_and_left_out() {
    let probabilities = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.9, f32::NAN];
    for report in reports(&probabilities, &[1, 0, 1, 1, -1]) {
        assert_eq!((report.valid, report.ignored, report.non_finite), (1, 1, 3));
        assert_eq!(value(&report, "mean_probability"), f64::from(0.9_f32));
    }
}

#[test]
fn probabilities_outside_the_unit_interval_are_clamped_and_counted() {
    for report in reports(&[1.000_000_1, -3.0, -0.0, 0.5], &[1, 0, 0, 1]) {
        assert_eq!((report.valid, report.out_of_range), (4, 2));
        assert_eq!(value(&report, "auc"), 1.0);
        assert_eq!(value(&report, "mean_probability"), 0.375);
    }
}

#[test]
fn a_probability_of_one_half_is_predicted_negative() {
    for report in reports(&[0.5, 0.5_f32.next_up()], &[1, 1]) {
        assert_eq!(value(&report, "recall"), 0.5);
    }
}

#[test]
fn lengths_and_labels_are_checked_before_anything_is_counted() {
    let mut histogram = BinaryHistogram::new();
    let mut evaluator = BinaryEvaluator::new();
    let length = Error::Length { probabilities: 2, labels: 1 };
    assert_eq!(histogram.push(&[0.1, 0.2], &[1]), Err(length));
    assert_eq!(evaluator.push(&[0.1, 0.2], &[1]), Err(length));
    let label = Error::Label { index: 2, value: 2 };
    assert_eq!(histogram.push_parallel(&[0.1; 4], &[0, -1, 2, 3]), Err(label));
    assert_eq!(evaluator.push(&[0.1; 4], &[0, -1, 2, 3]), Err(label));
    assert_eq!(exact::auc(&[0.1; 4], &[0, -1, 2, 3]), Err(label));
    assert_eq!((histogram.valid(), evaluator.valid()), (0, 0));
    assert_eq!(
        label.to_string(),
        "label 2 at position 2 is not binary: expected 1 (positive), 0 (negative) or a negative \
         number (ignored)"
    );
}

#[test]
fn threads_do_not_change_the_result() {
    // Enough pixels for several threads, where there are several.
    let pixels = 9_000_000_u32;
    let probabilities: Vec<f32> =
        (0..pixels).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32).collect();
    let labels: Vec<i8> = (0..pixels).map(|i| (i % 3) as i8 - 1).collect();
    let (mut one, mut many) = (BinaryHistogram::new(), BinaryHistogram::new());
    one.push(&probabilities, &labels).expect("valid");
    many.push_parallel(&probabilities, &labels).expect("valid");
    assert_eq!(one, many);
}

#[test]
fn counts_add_up() {
    let mut counts = BinaryCounts::count(&[0.9, 0.1, 0.8, 0.2], &[1, 1, 0, 0], 0.5).expect("valid");
    counts.merge(&counts.clone());
    assert_eq!(counts.total(), 8);
    assert_eq!(counts.f1(), 0.5);
    assert_eq!(counts.iou(), 1.0 / 3.0);
    assert_eq!(counts.accuracy(), 0.5);
    let empty = BinaryCounts::default();
    assert_eq!((empty.f1(), empty.precision(), empty.recall(), empty.iou()), (0.0, 0.0, 0.0, 0.0));
    assert!(empty.accuracy().is_nan() && empty.prevalence().is_nan());
}
