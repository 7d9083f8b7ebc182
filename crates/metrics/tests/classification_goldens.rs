//! Against scikit-learn: `goldens/classification_metrics.py` made the numbers.

use serde_json::Value;
use trimtab_metrics::{ClassificationEvaluator, Error, MetricValue};

const GOLDENS: &str = include_str!("../../../goldens/classification_metrics.json");

fn cases() -> Vec<Value> {
    let goldens: Value = serde_json::from_str(GOLDENS).expect("goldens are JSON");
    goldens["cases"].as_array().expect("cases").clone()
}

fn inputs(case: &Value) -> (usize, Vec<f32>, Vec<i32>) {
    let digits = case["probabilities"].as_str().expect("digits");
    let probability = |k: usize| {
        f32::from_bits(u32::from_str_radix(&digits[8 * k..8 * k + 8], 16).expect("hexadecimal digits"))
    };
    let labels = case["labels"].as_array().expect("labels");
    (
        case["classes"].as_u64().expect("classes") as usize,
        (0..digits.len() / 8).map(probability).collect(),
        labels.iter().map(|label| label.as_i64().expect("a label") as i32).collect(),
    )
}

fn evaluator(case: &Value) -> ClassificationEvaluator {
    let (classes, probabilities, labels) = inputs(case);
    let mut evaluator = ClassificationEvaluator::new(classes).expect("classes");
    // In two pieces, the first of three cases at most.
    let cut = labels.len().min(3);
    evaluator.push(&probabilities[..cut * classes], &labels[..cut]).expect("push");
    evaluator.push(&probabilities[cut * classes..], &labels[cut..]).expect("push");
    evaluator
}

#[track_caller]
fn same(case: &Value, metric: &MetricValue, expected: &Value) {
    let expected = expected.as_f64().unwrap_or(f64::NAN);
    let agree = (metric.value.is_nan() && expected.is_nan()) || (metric.value - expected).abs() <= 1e-6;
    assert!(agree, "{}: {} is {}, expected {expected}", case["name"], metric.name, metric.value);
}

#[test]
fn metrics_equal_scikit_learn() {
    for case in cases() {
        let report = evaluator(&case).report();
        for metric in report.iter() {
            same(&case, metric, &case[metric.name]);
        }
        assert_eq!(report.get("f1").is_some(), report.classes == 2);
        for class in &report.per_class {
            let k = class.class;
            same(&case, &class.recall, &case["recall"][k]);
            same(&case, &class.precision, &case["precision"][k]);
            same(&case, &class.f1, &case["per_class_f1"][k]);
            same(&case, &class.auc, &case["aucs"][k]);
            assert_eq!(Some(class.support), case["support"][k].as_u64());
            let row: Vec<Value> = report.confusion[k].iter().map(|&count| Value::from(count)).collect();
            assert_eq!(Value::from(row), case["confusion"][k]);
        }
    }
}

#[test]
fn always_answering_one_class_scores_the_floor() {
    for case in cases() {
        let (classes, _, labels) = inputs(&case);
        let mut best = [0.0_f64; 3];
        let mut floors = [0.0; 3];
        for class in 0..classes {
            let mut row = vec![0.0; classes];
            row[class] = 1.0;
            let mut evaluator = ClassificationEvaluator::new(classes).expect("classes");
            evaluator.push(&row.repeat(labels.len()), &labels).expect("push");
            let report = evaluator.report();
            for (k, name) in ["accuracy", "balanced_accuracy", "macro_f1"].into_iter().enumerate() {
                let metric = report.get(name).expect("metric");
                best[k] = best[k].max(metric.value);
                floors[k] = metric.floor.expect("floor");
            }
            let of_class = &report.per_class[class];
            assert!((of_class.f1.value - of_class.f1.floor.expect("floor")).abs() < 1e-12);
        }
        for (best, floor) in best.into_iter().zip(floors) {
            assert!((best - floor).abs() < 1e-12, "{}: {best} is not {floor}", case["name"]);
        }
    }
}

#[test]
fn always_answering_the_prevalence_scores_the_log_loss_floor() {
    for case in cases() {
        let (classes, _, labels) = inputs(&case);
        let prevalences: Vec<f32> = (0..classes as i32)
            .map(|class| labels.iter().filter(|&&label| label == class).count() as f32 / labels.len() as f32)
            .collect();
        let mut evaluator = ClassificationEvaluator::new(classes).expect("classes");
        evaluator.push(&prevalences.repeat(labels.len()), &labels).expect("push");
        let report = evaluator.report();
        let loss = report.get("log_loss").expect("metric");
        assert!((loss.value - loss.floor.expect("floor")).abs() < 1e-6, "{}", case["name"]);
        assert!(report.get("calibration_error").expect("metric").value < 1e-6);
    }
}

#[test]
fn nothing_measured_is_not_a_number() {
    let mut evaluator = ClassificationEvaluator::new(3).expect("classes");
    evaluator.push(&[0.2, 0.3, 0.5, f32::NAN, 0.5, 0.5], &[-1, 2]).expect("push");
    let report = evaluator.report();
    assert!(report.iter().all(|metric| metric.value.is_nan()));
    assert_eq!((report.valid, report.ignored, report.non_finite), (0, 1, 1));
}

#[test]
fn labels_and_lengths_are_checked_before_anything_is_counted() {
    let mut evaluator = ClassificationEvaluator::new(2).expect("classes");
    let error = evaluator.push(&[0.5; 4], &[0, 2]).expect_err("a third class");
    assert_eq!(error.to_string(), "label 2 at position 1 is none of the 2 classes 0 to 1");
    assert!(matches!(evaluator.push(&[0.5; 3], &[0, 1]), Err(Error::Length { .. })));
    assert!(matches!(ClassificationEvaluator::new(1), Err(Error::Classes { found: 1, .. })));
    assert!(matches!(ClassificationEvaluator::new(usize::MAX), Err(Error::Classes { .. })));
    assert_eq!(evaluator.valid(), 0);
}
