//! Against scikit-learn: `goldens/metrics.py` made the numbers and describes the inputs.

use serde_json::Value;
use trimtab_metrics::{BinaryCounts, BinaryEvaluator, BinaryHistogram, BinaryReport, exact, floors};

const GOLDENS: &str = include_str!("../../../goldens/metrics.json");
/// What the histogram may lose to its bins.
const BINNED: f64 = 1e-3;
/// The same where all probabilities lie in an interval of .0025 around 1/3, which is 82 bins.
const BINNED_NARROW: f64 = 5e-3;

struct Case {
    name: String,
    expected: Value,
    probabilities: Vec<f32>,
    labels: Vec<i8>,
}

impl Case {
    fn expected(&self, key: &str) -> f64 {
        self.expected[key].as_f64().unwrap_or(f64::NAN)
    }

    fn check(&self, what: &str, actual: f64, key: &str, tolerance: f64) {
        let expected = self.expected(key);
        let agree = (actual.is_nan() && expected.is_nan()) || (actual - expected).abs() <= tolerance;
        assert!(agree, "{}: {what} {key} is {actual}, scikit-learn says {expected}", self.name);
    }
}

/// The sigmoid-like bend of `goldens/metrics.py`.
fn logit(v: f64, label: i8) -> f64 {
    let x = (v + 0.25 * f64::from(label)) / 1.25;
    let a = x * x * x * x;
    let y = 1.0 - x;
    let b = y * y * y * y;
    a / (a + b)
}

fn shape(name: &str, v: f64, label: i8) -> f64 {
    match name {
        "informative" => logit(v, label),
        "weak" => (v + 0.05 * f64::from(label)) / 1.05,
        "chance" => v,
        "constant" => 0.25,
        "ties" => (logit(v, label) * 8.0).floor() / 8.0,
        "perfect" if label == 1 => 0.5 + 0.5 * v,
        "perfect" => 0.499 * v,
        "inverted" => 1.0 - logit(v, label),
        "near_zero" => logit(v, label) * 1e-6,
        "near_one" => 1.0 - logit(v, 1 - label) * 1e-5,
        "narrow" => 0.33 + 0.002 * (v + 0.25 * f64::from(label)),
        "saturated" => (3.0 * logit(v, label) - 1.0).clamp(0.0, 1.0),
        unknown => panic!("shape {unknown} is in metrics.json but not here"),
    }
}

fn cases() -> Vec<Case> {
    let goldens: Value = serde_json::from_str(GOLDENS).expect("goldens are JSON");
    let samples = goldens["samples"].as_u64().expect("samples");
    let cases = goldens["cases"].as_array().expect("cases");
    cases.iter().map(|expected| case(expected, samples)).collect()
}

fn case(expected: &Value, samples: u64) -> Case {
    let mut state = expected["seed"].as_u64().expect("seed");
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / 16_777_216.0
    };
    let name = expected["shape"].as_str().expect("shape");
    let prevalence = expected["prevalence"].as_f64().expect("prevalence");
    let (mut probabilities, mut labels, mut checksum) = (Vec::new(), Vec::new(), 0_u64);
    for _ in 0..samples {
        let (u, v) = (draw(), draw());
        let label = i8::from(u < prevalence);
        let probability = shape(name, v, label) as f32;
        checksum = checksum
            .wrapping_mul(31)
            .wrapping_add(2 * u64::from(probability.to_bits()) + u64::from(label == 1));
        probabilities.push(probability);
        labels.push(label);
    }
    let case = Case {
        name: format!("{name} at prevalence {prevalence}"),
        expected: expected.clone(),
        probabilities,
        labels,
    };
    assert_eq!(
        format!("{checksum:016x}"),
        expected["checksum"].as_str().expect("checksum"),
        "{}: the inputs are those of the Python side",
        case.name,
    );
    case
}

fn report_agrees(case: &Case, what: &str, report: &BinaryReport, tolerance: f64) {
    let value = |name| report.get(name).expect("metric").value;
    for name in ["f1", "precision", "recall", "iou", "positive_rate"] {
        case.check(what, value(name), name, 1e-12);
    }
    for name in ["auc", "average_precision", "best_f1"] {
        case.check(what, value(name), name, tolerance);
    }
    case.check(what, value("mean_probability"), "mean_probability", 1e-12);
    case.check(what, value("prevalence"), "measured_prevalence", 1e-12);
    // The reported best threshold gives the reported best F1 on every path.
    let best = value("best_threshold");
    if !best.is_nan() {
        let counts = BinaryCounts::count(&case.probabilities, &case.labels, best).expect("counts");
        assert_eq!(counts.f1(), value("best_f1"), "{}: {what}", case.name);
    }
}

#[test]
fn exact_metrics_equal_scikit_learn() {
    for case in cases() {
        let (p, y) = (&case.probabilities, &case.labels);
        case.check("exact", exact::auc(p, y).expect("auc"), "auc", 1e-12);
        let ap = exact::average_precision(p, y).expect("ap");
        case.check("exact", ap, "average_precision", 1e-12);
        let best = exact::best_threshold(p, y).expect("best").1;
        case.check("exact", best, "best_f1", 1e-12);
        let accuracy = BinaryCounts::count(p, y, 0.5).expect("counts").accuracy();
        case.check("exact", accuracy, "accuracy", 1e-12);

        let mut evaluator = BinaryEvaluator::new();
        evaluator.push(p, y).expect("push");
        assert!(evaluator.is_exact());
        report_agrees(&case, "evaluator", &evaluator.report(0.5), 1e-12);
    }
}

#[test]
fn the_histogram_equals_scikit_learn_within_its_bins() {
    for case in cases() {
        let mut histogram = BinaryHistogram::new();
        histogram.push(&case.probabilities, &case.labels).expect("push");
        let narrow = case.expected["shape"] == "narrow";
        let tolerance = if narrow { BINNED_NARROW } else { BINNED };
        report_agrees(&case, "histogram", &histogram.report(0.5), tolerance);
        let bound = histogram.auc_error_bound();
        if !bound.is_nan() {
            case.check("histogram, by its own bound", histogram.auc(), "auc", bound + 1e-12);
        }
    }
}

#[test]
fn beyond_its_limit_the_evaluator_is_the_histogram() {
    for case in cases() {
        let mut histogram = BinaryHistogram::new();
        histogram.push(&case.probabilities, &case.labels).expect("push");
        let mut evaluator = BinaryEvaluator::with_exact_limit(case.labels.len() / 2);
        for (p, y) in case.probabilities.chunks(999).zip(case.labels.chunks(999)) {
            evaluator.push(p, y).expect("push");
        }
        assert!(!evaluator.is_exact());
        // Through text, since NaN is not equal to itself.
        assert_eq!(format!("{:?}", evaluator.report(0.5)), format!("{:?}", histogram.report(0.5)),);
    }
}

#[test]
fn no_blind_predictor_beats_its_floor() {
    for case in cases() {
        if !["chance", "constant"].contains(&case.expected["shape"].as_str().expect("shape")) {
            continue;
        }
        let mut histogram = BinaryHistogram::new();
        histogram.push(&case.probabilities, &case.labels).expect("push");
        for metric in histogram.report(0.5) {
            if let Some(floor) = metric.floor {
                assert!(
                    metric.value <= floor + 0.02,
                    "{}: {} {} over its floor {floor}",
                    case.name,
                    metric.name,
                    metric.value,
                );
            }
        }
        assert!(histogram.counts_at(0.5).accuracy() <= floors::accuracy(histogram.prevalence()));
    }
}
