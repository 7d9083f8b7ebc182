//! What holds for every mask and class map, and inputs that define little or nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use trimtab_metrics::betti::{betti, euler_characteristic};
use trimtab_metrics::cldice::cldice;
use trimtab_metrics::components::{Connectivity, components};
use trimtab_metrics::distance::{distance_to, signed_distance};
use trimtab_metrics::overlap::{IGNORE, OverlapCounts};
use trimtab_metrics::skeleton::skeleton;
use trimtab_metrics::surface::{surface_dice, surface_distances};
use trimtab_metrics::surface_score::{SurfaceScoreOptions, surface_score, surface_score_floor};
use trimtab_metrics::topology::{FeatureCounts, TopologyOptions, match_topology};
use trimtab_metrics::voi::{Voi, component_voi, variation_of_information, voi_score};
use trimtab_metrics::{Error, VolumeEvaluator};

type Shape = [usize; 3];

const ONES: [f64; 3] = [1.0; 3];

/// Two masks of one shape, from sparse to dense.
fn masks(longest: usize) -> impl Strategy<Value = (Shape, Vec<bool>, Vec<bool>)> {
    (1..=longest, 1..=longest, 1..=longest, 0.05..0.95_f64, 0.0..1.0_f64).prop_flat_map(
        |(d, h, w, fill, noise)| {
            let voxels = d * h * w;
            (vec(0.0..1.0_f64, voxels), vec(0.0..1.0_f64, voxels)).prop_map(move |(a, b)| {
                let truth: Vec<bool> = a.iter().map(|&u| u < fill).collect();
                // The second mask repeats part of the first, so that they have features in common.
                let other = b
                    .iter()
                    .zip(&truth)
                    .map(|(&u, &inside)| if u < noise { u < fill * noise } else { inside });
                ([d, h, w], truth.clone(), other.collect())
            })
        },
    )
}

/// The volume with its axes in another order and the first of them turned round.
fn turned(mask: &[bool], shape: Shape) -> (Vec<bool>, Shape) {
    let [d, h, w] = shape;
    let mut turned = Vec::with_capacity(mask.len());
    for x in (0..w).rev() {
        for z in 0..d {
            turned.extend((0..h).map(|y| mask[(z * h + y) * w + x]));
        }
    }
    (turned, [w, d, h])
}

fn features(a: &[bool], b: &[bool], shape: Shape, block: usize) -> [FeatureCounts; 3] {
    match_topology(a, b, shape, TopologyOptions { block }).expect("valid").0
}

fn at(voxel: usize, [_, h, w]: Shape) -> [f64; 3] {
    [voxel / w / h, voxel / w % h, voxel % w].map(|axis| axis as f64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn distances_are_those_of_the_nearest_voxel(
        (shape, mask, _) in masks(7),
        spacing in [0.3..4.0_f64, 0.3..4.0, 0.3..4.0],
    ) {
        let distance = distance_to(&mask, shape, spacing, 1e6).unwrap();
        let signed = signed_distance(&mask, shape, spacing, 1e6).unwrap();
        let nearest = |voxel: usize, inside: bool| {
            let here = at(voxel, shape);
            let squares = (0..mask.len()).filter(|&other| mask[other] == inside).map(|other| {
                let there = at(other, shape);
                (0..3).map(|axis| ((here[axis] - there[axis]) * spacing[axis]).powi(2)).sum::<f64>()
            });
            squares.fold(f64::INFINITY, f64::min).sqrt().min(1e6)
        };
        for voxel in 0..mask.len() {
            prop_assert!((distance[voxel] - nearest(voxel, true)).abs() < 1e-9);
            let expected = if mask[voxel] { -nearest(voxel, false) } else { nearest(voxel, true) };
            prop_assert!((signed[voxel] - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn touching_voxels_share_a_component_and_sizes_add_up((shape, mask, _) in masks(7)) {
        let reach = [(Connectivity::Six, 1), (Connectivity::Eighteen, 2), (Connectivity::TwentySix, 3)];
        let mut counts = Vec::new();
        for (connectivity, reach) in reach {
            let found = components(&mask, shape, connectivity).unwrap();
            let inside = mask.iter().filter(|&&inside| inside).count();
            prop_assert_eq!(found.sizes.iter().sum::<u64>(), inside as u64);
            for a in 0..mask.len() {
                prop_assert_eq!(found.labels[a] != 0, mask[a]);
                for b in 0..a {
                    let steps: Vec<f64> =
                        at(a, shape).iter().zip(at(b, shape)).map(|(a, b)| (a - b).abs()).collect();
                    let touch = steps.iter().all(|&step| step < 2.0) && steps.iter().sum::<f64>() <= f64::from(reach);
                    if touch && mask[a] && mask[b] {
                        prop_assert_eq!(found.labels[a], found.labels[b]);
                    }
                }
            }
            let largest = found.largest().iter().filter(|&&inside| inside).count() as u64;
            prop_assert_eq!(largest, found.sizes.iter().copied().max().unwrap_or(0));
            counts.push(found.count());
        }
        prop_assert!(counts[0] >= counts[1] && counts[1] >= counts[2]);
    }

    #[test]
    fn a_skeleton_is_a_part_of_the_mask_and_its_own_skeleton((shape, mask, _) in masks(8)) {
        let thin = skeleton(&mask, shape).unwrap();
        prop_assert!(thin.iter().zip(&mask).all(|(&thin, &mask)| mask || !thin));
        prop_assert_eq!(&skeleton(&thin, shape).unwrap(), &thin);
        let connected = |mask: &[bool]| components(mask, shape, Connectivity::TwentySix).unwrap().count();
        prop_assert!(connected(&thin) <= connected(&mask));
    }

    #[test]
    fn the_euler_characteristic_is_that_of_the_betti_numbers_however_the_volume_lies((shape, mask, _) in masks(8)) {
        let found = betti(&mask, shape).unwrap().0;
        let euler = found[0] as i64 - found[1] as i64 + found[2] as i64;
        prop_assert_eq!(euler_characteristic(&mask, shape).unwrap(), euler);
        let (mask, shape) = turned(&mask, shape);
        prop_assert_eq!(betti(&mask, shape).unwrap().0, found);
    }

    #[test]
    fn matched_features_do_not_depend_on_order_or_on_how_the_volume_lies((shape, a, b) in masks(9)) {
        let found = features(&a, &b, shape, 64);
        for (k, counts) in found.iter().enumerate() {
            prop_assert_eq!(counts.predicted, betti(&a, shape).unwrap().0[k]);
            prop_assert_eq!(counts.labelled, betti(&b, shape).unwrap().0[k]);
            prop_assert!(counts.matched <= counts.predicted.min(counts.labelled));
            prop_assert!((0.0..=1.0).contains(&counts.f1()));
        }
        let back = features(&b, &a, shape, 64);
        prop_assert_eq!(found.map(|counts| counts.matched), back.map(|counts| counts.matched));
        let ((a, there), (b, _)) = (turned(&a, shape), turned(&b, shape));
        prop_assert_eq!(features(&a, &b, there, 64), found);
    }

    #[test]
    fn every_feature_of_a_mask_is_matched_with_itself((shape, mask, _) in masks(9), block in 1..12_usize) {
        for counts in features(&mask, &mask, shape, block) {
            prop_assert_eq!((counts.matched, counts.predicted), (counts.labelled, counts.labelled));
        }
    }

    #[test]
    fn a_mask_within_the_other_shares_the_tunnels_it_keeps((shape, a, b) in masks(8)) {
        // With P in G the union is G: everything of G comes from G, and what P matches is the image of P.
        let both: Vec<bool> = a.iter().zip(&b).map(|(&a, &b)| a && b).collect();
        let within = features(&both, &a, shape, 64);
        let empty = features(&vec![false; a.len()], &a, shape, 64);
        for (k, counts) in within.iter().enumerate() {
            prop_assert!(counts.matched <= betti(&both, shape).unwrap().0[k]);
            prop_assert_eq!(empty[k].matched, 0);
        }
    }

    #[test]
    fn surface_measures_are_symmetric_and_perfect_for_equal_masks((shape, a, b) in masks(8)) {
        let there = surface_distances(&a, &b, shape, [2.0, 1.0, 0.5]).unwrap();
        let back = surface_distances(&b, &a, shape, [2.0, 1.0, 0.5]).unwrap();
        prop_assert_eq!(&there.truth_to_prediction, &back.prediction_to_truth);
        let near = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-9;
        prop_assert!(near(there.dice(1.0), back.dice(1.0)));
        prop_assert!(near(there.hausdorff(95.0), back.hausdorff(95.0)));
        prop_assert!(there.dice(1.0).is_nan() || (0.0..=1.0 + 1e-12).contains(&there.dice(1.0)));
        let same = surface_distances(&a, &a, shape, ONES).unwrap();
        if a.contains(&true) {
            prop_assert_eq!((same.dice(0.1), same.hausdorff(100.0), same.average_symmetric()), (1.0, 0.0, 0.0));
        }
    }

    #[test]
    fn information_is_symmetric_and_zero_for_equal_masks((shape, a, b) in masks(7)) {
        let there = component_voi(&a, &b, shape).unwrap();
        let back = component_voi(&b, &a, shape).unwrap();
        prop_assert!((there.split - back.merge).abs() < 1e-9 && (there.merge - back.split).abs() < 1e-9);
        prop_assert!(there.total() >= -1e-12);
        prop_assert_eq!(component_voi(&a, &a, shape).unwrap().total(), 0.0);
    }

    #[test]
    fn the_surface_score_is_in_the_unit_interval_and_one_for_the_truth((shape, a, b) in masks(8)) {
        let options = SurfaceScoreOptions::default();
        let map = |mask: &[bool]| mask.iter().map(|&inside| u8::from(inside)).collect::<Vec<_>>();
        let (a, mut b) = (map(&a), map(&b));
        b[0] = IGNORE;
        let found = surface_score(&a, &b, shape, ONES, &options).unwrap();
        let floor = surface_score_floor(&b, shape, ONES, &options).unwrap();
        for part in [found.score, found.topo_score, found.surface_dice, found.voi_score, floor.score] {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&part));
        }
        let perfect = surface_score(&b, &b, shape, ONES, &options).unwrap();
        prop_assert!((perfect.score - 1.0).abs() < 1e-12);
        // What is predicted on ignored voxels makes no difference.
        let mut other = a.clone();
        other[0] = 1 - other[0];
        prop_assert_eq!(surface_score(&other, &b, shape, ONES, &options).unwrap(), found);
    }

    #[test]
    fn counting_by_pieces_is_counting_at_once(
        pairs in vec((0_u8..4, prop_oneof![4 => 0_u8..4, 1 => Just(IGNORE)]), 0..200),
        cut in 0..200_usize,
    ) {
        let (prediction, labels): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
        let cut = cut.min(labels.len());
        let counted = |range: std::ops::Range<usize>| {
            let mut counts = OverlapCounts::new(4).unwrap();
            counts.push(&prediction[range.clone()], &labels[range]).unwrap();
            counts
        };
        let mut merged = counted(0..cut);
        merged.merge(&counted(cut..labels.len()));
        let whole = counted(0..labels.len());
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(whole.valid() + whole.ignored, labels.len() as u64);
        for (class, counts) in (0_u8..).zip(&whole.classes) {
            let valid = |&(_, &label): &(&u8, &u8)| label != IGNORE;
            let pairs = || prediction.iter().zip(&labels).filter(valid);
            let both = pairs().filter(|&(&p, &y)| p == class && y == class).count() as f64;
            let either = pairs().filter(|&(&p, &y)| p == class || y == class).count() as f64;
            let same = |a: f64, b: f64| (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-12;
            prop_assert!(same(counts.iou(), both / either));
            prop_assert!(same(counts.dice(), 2.0 * both / (both + either)));
        }
    }
}

#[test]
fn an_empty_mask_is_as_far_as_the_cap_and_a_full_one_as_deep() {
    let shape = [2, 3, 4];
    assert_eq!(distance_to(&[false; 24], shape, ONES, 9.0), Ok(vec![9.0; 24]));
    assert_eq!(signed_distance(&[false; 24], shape, ONES, 9.0), Ok(vec![9.0; 24]));
    assert_eq!(signed_distance(&[true; 24], shape, ONES, 9.0), Ok(vec![-9.0; 24]));
    assert_eq!(distance_to(&[true; 24], shape, ONES, f64::INFINITY), Ok(vec![0.0; 24]));
}

#[test]
fn volumes_without_voxels_are_answered() {
    for shape in [[0, 0, 0], [3, 0, 2], [2, 2, 0], [0, 4, 4]] {
        assert_eq!(distance_to(&[], shape, ONES, 1.0), Ok(vec![]));
        assert_eq!(signed_distance(&[], shape, ONES, 1.0), Ok(vec![]));
        assert_eq!(components(&[], shape, Connectivity::TwentySix).map(|found| found.count()), Ok(0));
        assert_eq!(skeleton(&[], shape), Ok(vec![]));
        assert_eq!(betti(&[], shape).map(|betti| betti.0), Ok([0, 0, 0]));
        assert_eq!(features(&[], &[], shape, 64), [FeatureCounts::default(); 3]);
        assert!(surface_dice(&[], &[], shape, ONES, 1.0).is_ok_and(f64::is_nan));
        assert!(cldice(&[], &[], shape).is_ok_and(|found| found.cldice.is_nan()));
        assert_eq!(voi_score(&[], &[], shape, Voi::ALPHA), Ok(1.0));
        let score = surface_score(&[], &[], shape, ONES, &SurfaceScoreOptions::default());
        assert_eq!(score.map(|found| found.score), Ok(1.0));
    }
}

#[test]
fn shapes_and_parameters_are_checked() {
    let mask = [true; 8];
    let error = betti(&mask, [2, 2, 3]).expect_err("too few voxels");
    assert_eq!(error.to_string(), "8 voxels do not fill a volume of 2x2x3");
    let huge = [1 << 40, 1 << 40, 0];
    assert_eq!(skeleton(&[], huge), Err(Error::TooLarge { shape: huge }));
    for spacing in [[0.0, 1.0, 1.0], [1.0, f64::NAN, 1.0], [1.0, 1.0, f64::INFINITY], [-1.0, 1.0, 1.0]] {
        assert!(matches!(distance_to(&mask, [2; 3], spacing, 1.0), Err(Error::Parameter { .. })));
        assert!(surface_distances(&mask, &mask, [2; 3], spacing).is_err());
    }
    let error = distance_to(&mask, [2; 3], ONES, f64::NAN).expect_err("no cap");
    assert_eq!(error.to_string(), "cap is NaN: expected a number above 0, or infinity");
    for block in [0, TopologyOptions::MAX_BLOCK + 1] {
        assert!(match_topology(&mask, &mask, [2; 3], TopologyOptions { block }).is_err());
    }
    assert!(surface_dice(&mask, &mask, [2; 3], ONES, -1.0).is_err());
    assert!(voi_score(&mask, &mask, [2; 3], f64::NAN).is_err());
    assert!(variation_of_information(&[1, 2], &[1], None).is_err());
    let options = SurfaceScoreOptions { mix: [0.0; 3], ..SurfaceScoreOptions::default() };
    assert!(surface_score(&[0; 8], &[0; 8], [2; 3], ONES, &options).is_err());
}

#[test]
fn one_empty_mask_scores_zero_and_is_infinitely_far() {
    let (empty, one) = (vec![false; 27], (0..27).map(|voxel| voxel == 13).collect::<Vec<_>>());
    for (a, b) in [(&empty, &one), (&one, &empty)] {
        let found = surface_distances(a, b, [3; 3], ONES).expect("valid");
        assert_eq!((found.dice(2.0), found.hausdorff(95.0)), (0.0, f64::INFINITY));
        assert_eq!(cldice(a, b, [3; 3]).expect("valid").cldice, 0.0);
        let counts = match_topology(a, b, [3; 3], TopologyOptions::default()).expect("valid");
        assert_eq!(counts.score([1.0; 3]), Ok(0.0));
    }
}

#[test]
fn a_loop_larger_than_a_block_is_seen_only_by_a_larger_block() {
    // A square ring of 12 x 12 voxels, cut in four by blocks of 6.
    let ring: Vec<bool> =
        (0..144).map(|voxel| [voxel / 12, voxel % 12].iter().any(|at| at % 11 == 0)).collect();
    let tunnels = |block| features(&ring, &ring, [1, 12, 12], block)[1].labelled;
    assert_eq!((tunnels(6), tunnels(12), tunnels(64)), (0, 1, 1));
}

#[test]
fn a_ring_elsewhere_is_a_tunnel_that_does_not_match() {
    let ring = |left: usize| -> Vec<bool> {
        (0..7 * 15)
            .map(|voxel| {
                let (y, x) = (voxel / 15, voxel % 15);
                (1..6).contains(&y)
                    && (left..left + 5).contains(&x)
                    && (y % 4 == 1 || (x - left).is_multiple_of(4))
            })
            .collect()
    };
    let found = features(&ring(1), &ring(8), [1, 7, 15], 64);
    assert_eq!(
        found.map(|counts| (counts.matched, counts.predicted, counts.labelled)),
        [(0, 1, 1), (0, 1, 1), (0, 0, 0)]
    );
    // Three columns further the hole of the one is half covered by the other, but is there still.
    let near = features(&ring(1), &ring(2), [1, 7, 15], 64);
    assert_eq!(near[0].matched, 1);
}

#[test]
fn class_maps_are_checked_before_anything_is_counted() {
    let mut counts = OverlapCounts::new(3).expect("classes");
    let error = counts.push(&[0, 3, 1], &[0, IGNORE, 7]).expect_err("label 7");
    assert_eq!(error.to_string(), "label 7 at position 2 is none of the 3 classes 0 to 2");
    let error = counts.push(&[0, 3], &[0, 1]).expect_err("prediction 3");
    assert_eq!(error.to_string(), "prediction 3 at position 1 is none of the 3 classes 0 to 2");
    assert!(counts.push(&[0], &[0, 1]).is_err());
    assert_eq!((counts.valid(), counts.ignored), (0, 0));
    assert!(counts.mean_iou().is_nan() && counts.accuracy().is_nan());
    assert!(OverlapCounts::new(0).is_err() && OverlapCounts::new(256).is_err());
}

#[test]
fn cases_without_the_class_are_left_out_of_its_mean() {
    let mut evaluator = VolumeEvaluator::new(3).expect("classes");
    evaluator.push(&[0, 1, 1, 0], &[0, 1, 0, 0]).expect("valid");
    evaluator.push(&[0, 0, 0, 0], &[0, 0, 0, IGNORE]).expect("valid");
    evaluator.push(&[0, 0, 2, 0], &[0, 0, 0, 0]).expect("valid");
    let report = evaluator.report();
    let one = &report.per_class[1];
    assert_eq!((one.cases_labelled, one.cases_counted), (1, 1));
    assert!((one.dice.value - 2.0 / 3.0).abs() < 1e-12);
    assert!(one.dice_by_case[1].is_nan() && one.dice_by_case[2].is_nan());
    // Everywhere: 2/5 in the first case, 0 in the others, where it predicts what is not there.
    assert!((one.dice_everywhere - 0.4 / 3.0).abs() < 1e-12);
    assert_eq!(one.dice_nowhere, 0.0);
    let two = &report.per_class[2];
    assert_eq!((two.cases_labelled, two.cases_counted, two.dice.value), (0, 1, 0.0));
    assert!(two.dice_nowhere.is_nan());
    assert!((report.get("dice").expect("metric").value - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!((report.cases, report.valid, report.ignored), (3, 11, 1));
    assert!(serde_json::to_string(&report).is_ok_and(|text| text.contains("null")));
}

#[test]
fn constant_predictors_do_not_beat_the_floor_of_volumes() {
    let labels = [[0_u8, 1, 1, 2, 0, IGNORE], [0, 0, 0, 0, 0, 1], [2, 2, 2, 0, 1, 1]];
    let mut best = 0.0_f64;
    let mut floor = f64::NAN;
    for class in 0..3 {
        let mut evaluator = VolumeEvaluator::new(3).expect("classes");
        for labels in &labels {
            evaluator.push(&[class; 6], labels).expect("valid");
        }
        let report = evaluator.report();
        let dice = report.get("dice").expect("metric");
        best = best.max(dice.value);
        floor = dice.floor.expect("floor");
        let of_class = &report.per_class[usize::from(class)];
        assert!((of_class.dice.value - of_class.dice_everywhere).abs() < 1e-12);
    }
    assert!((best - floor).abs() < 1e-12, "{best} is not {floor}");
}

#[test]
fn no_volumes_are_not_a_number() {
    let report = VolumeEvaluator::new(2).expect("classes").report();
    assert!(report.iter().all(|metric| metric.value.is_nan() && metric.floor.is_none_or(f64::is_nan)));
    assert!(VolumeEvaluator::new(1).is_err());
}
