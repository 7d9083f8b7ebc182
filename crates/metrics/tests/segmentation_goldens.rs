//! Against scipy, scikit-image, cc3d, surface-distance, gudhi and plain linear algebra:
//! `goldens/segmentation_metrics.py` made the numbers and says how they are stored.

use serde_json::Value;
use trimtab_metrics::betti::{betti, euler_characteristic};
use trimtab_metrics::cldice::cldice;
use trimtab_metrics::components::{Connectivity, components};
use trimtab_metrics::distance::{distance_to, signed_distance};
use trimtab_metrics::skeleton::skeleton;
use trimtab_metrics::surface::surface_distances;
use trimtab_metrics::topology::{TopologyOptions, match_topology};
use trimtab_metrics::voi::{component_voi, variation_of_information};

const GOLDENS: &str = include_str!("../../../goldens/segmentation_metrics.json");

struct Case {
    name: String,
    shape: [usize; 3],
    spacing: [f64; 3],
    prediction: Vec<bool>,
    truth: Vec<bool>,
    expected: Value,
}

fn unpacked(hexadecimal: &Value, voxels: usize) -> Vec<bool> {
    let digits = hexadecimal.as_str().expect("digits").chars().map(|c| c.to_digit(16).expect("a digit"));
    let mut mask: Vec<bool> = digits.flat_map(|digit| [8, 4, 2, 1].map(|bit| digit & bit != 0)).collect();
    mask.truncate(voxels);
    mask
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Null => f64::NAN,
        Value::String(_) => f64::INFINITY,
        other => other.as_f64().expect("a number"),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(number).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|count| count.as_u64().expect("a count")).collect()
}

fn cases() -> Vec<Case> {
    let goldens: Value = serde_json::from_str(GOLDENS).expect("goldens are JSON");
    let case = |expected: &Value| {
        let shape: Vec<usize> = counts(&expected["shape"]).into_iter().map(|axis| axis as usize).collect();
        let voxels = shape.iter().product();
        Case {
            name: format!("{} {shape:?}", expected["name"]),
            shape: shape.try_into().expect("three axes"),
            spacing: numbers(&expected["spacing"]).try_into().expect("three axes"),
            prediction: unpacked(&expected["prediction"], voxels),
            truth: unpacked(&expected["truth"], voxels),
            expected: expected.clone(),
        }
    };
    goldens["cases"].as_array().expect("cases").iter().map(case).collect()
}

#[track_caller]
fn same(case: &Case, what: &str, actual: f64, expected: &Value) {
    let expected = number(expected);
    let agree =
        (actual.is_nan() && expected.is_nan()) || actual == expected || (actual - expected).abs() <= 1e-6;
    assert!(agree, "{}: {what} is {actual}, expected {expected}", case.name);
}

#[test]
fn distances_equal_scipy() {
    for case in cases().iter().filter(|case| case.expected.get("distance").is_some()) {
        let plain = distance_to(&case.truth, case.shape, case.spacing, f64::INFINITY).expect("distance");
        let signed = signed_distance(&case.truth, case.shape, case.spacing, f64::INFINITY).expect("distance");
        for (key, actual) in [("distance", plain), ("signed_distance", signed)] {
            for (&actual, expected) in actual.iter().zip(case.expected[key].as_array().expect("a list")) {
                match expected {
                    // scipy has no distance to nothing.
                    Value::String(_) => assert!(actual.is_infinite(), "{}: {key} is {actual}", case.name),
                    expected => same(case, key, actual, expected),
                }
            }
        }
    }
}

#[test]
fn components_equal_cc3d_and_scipy() {
    let all = [("6", Connectivity::Six), ("18", Connectivity::Eighteen), ("26", Connectivity::TwentySix)];
    for case in cases() {
        for (key, connectivity) in all {
            let found = components(&case.truth, case.shape, connectivity).expect("components");
            let expected = &case.expected["components"][key];
            assert_eq!(found.sizes, counts(&expected["sizes"]), "{} {key}", case.name);
            let checksum = found
                .labels
                .iter()
                .fold(0_u64, |sum, &label| sum.wrapping_mul(31).wrapping_add(u64::from(label)));
            assert_eq!(format!("{checksum:016x}"), expected["checksum"], "{} {key}", case.name);
        }
    }
}

#[test]
fn skeletons_equal_scikit_image_voxel_by_voxel() {
    for case in cases() {
        for (mask, key) in [(&case.prediction, "skeleton_prediction"), (&case.truth, "skeleton_truth")] {
            let found = skeleton(mask, case.shape).expect("skeleton");
            let expected = unpacked(&case.expected[key], mask.len());
            let differing = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
            assert_eq!(differing, 0, "{} {key}: {} voxels", case.name, expected.len());
        }
    }
}

#[test]
fn surface_measures_equal_the_package() {
    for case in cases() {
        let found =
            surface_distances(&case.prediction, &case.truth, case.shape, case.spacing).expect("surface");
        let expected = &case.expected["surface"];
        let area = |elements: &[trimtab_metrics::surface::SurfaceElement]| {
            elements.iter().map(|element| element.area).sum::<f64>()
        };
        same(&case, "area_truth", area(&found.truth_to_prediction), &expected["area_truth"]);
        same(&case, "area_prediction", area(&found.prediction_to_truth), &expected["area_prediction"]);
        for (tolerance, expected) in expected["dice"].as_object().expect("dice") {
            same(&case, "surface dice", found.dice(tolerance.parse().expect("a number")), expected);
        }
        for (percent, expected) in expected["hausdorff"].as_object().expect("hausdorff") {
            same(&case, "hausdorff", found.hausdorff(percent.parse().expect("a number")), expected);
        }
        let (forth, back) = found.averages();
        same(&case, "average forth", forth, &expected["average_truth_to_prediction"]);
        same(&case, "average back", back, &expected["average_prediction_to_truth"]);
        same(&case, "average symmetric", found.average_symmetric(), &expected["average_symmetric"]);
    }
}

#[test]
fn cldice_equals_that_of_the_reference_skeletons() {
    for case in cases() {
        let found = cldice(&case.prediction, &case.truth, case.shape).expect("cldice");
        let expected = &case.expected["cldice"];
        same(&case, "precision", found.precision, &expected["precision"]);
        same(&case, "sensitivity", found.sensitivity, &expected["sensitivity"]);
        same(&case, "cldice", found.cldice, &expected["cldice"]);
    }
}

#[test]
fn variation_of_information_equals_scikit_image() {
    for case in cases() {
        let numbered =
            |mask: &[bool]| components(mask, case.shape, Connectivity::TwentySix).expect("components").labels;
        let (prediction, truth) = (numbered(&case.prediction), numbered(&case.truth));
        let whole = variation_of_information(&prediction, &truth, None).expect("voi");
        let ignoring = variation_of_information(&prediction, &truth, Some(0)).expect("voi");
        let union = component_voi(&case.prediction, &case.truth, case.shape).expect("voi");
        for (key, voi) in [("whole", whole), ("ignoring_background", ignoring), ("union", union)] {
            same(&case, &format!("{key} split"), voi.split, &case.expected["voi"][key][0]);
            same(&case, &format!("{key} merge"), voi.merge, &case.expected["voi"][key][1]);
        }
    }
}

#[test]
fn betti_numbers_equal_gudhi() {
    for case in cases() {
        for (mask, key) in [(&case.prediction, "betti_prediction"), (&case.truth, "betti_truth")] {
            let found = betti(mask, case.shape).expect("betti").0;
            assert_eq!(found.to_vec(), counts(&case.expected[key]), "{} {key}", case.name);
            let euler = found[0] as i64 - found[1] as i64 + found[2] as i64;
            assert_eq!(euler_characteristic(mask, case.shape), Ok(euler));
        }
    }
}

#[test]
fn matched_features_equal_plain_linear_algebra() {
    for case in cases().iter().filter(|case| case.expected.get("matching").is_some()) {
        let options = TopologyOptions::default();
        let found = match_topology(&case.prediction, &case.truth, case.shape, options).expect("matching");
        let expected = case.expected["matching"].as_array().expect("dimensions");
        for (k, (found, expected)) in found.0.iter().zip(expected).enumerate() {
            let found = [found.matched, found.predicted, found.labelled];
            assert_eq!(found.to_vec(), counts(expected), "{} dimension {k}", case.name);
        }
    }
}
