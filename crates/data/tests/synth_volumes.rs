//! Synthetic volumes: same arguments same bits, labels that fit the picture, surfaces without holes, classes that no
//! simple statistic tells apart.

use proptest::prelude::*;
use trimtab_data::synth::{MembraneConfig, OrganConfig, PatchClassConfig, membranes, organ, patch_class};
use trimtab_data::volume::{Shape, Volume, voxels};

fn mean(values: impl Iterator<Item = f32>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), v| (sum + f64::from(v), count + 1));
    sum / f64::from(count.max(1))
}

fn mean_where(volume: &Volume, labels: &[i32], label: i32) -> f64 {
    mean(volume.values.iter().zip(labels).filter(|&(_, &l)| l == label).map(|(&v, _)| v))
}

/// Connected parts of the voxels that `wanted` holds for, sizes in voxels; neighbours share a face.
fn parts(shape: Shape, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    let [_, height, width] = shape;
    let mut seen = vec![false; voxels(shape)];
    let mut sizes = Vec::new();
    for start in 0..seen.len() {
        if seen[start] || !wanted(start) {
            continue;
        }
        seen[start] = true;
        let (mut stack, mut size) = (vec![start], 0);
        while let Some(at) = stack.pop() {
            size += 1;
            let place = [at / (height * width), at / width % height, at % width];
            for (axis, stride) in [height * width, width, 1].into_iter().enumerate() {
                let mut visit = |next: usize| {
                    if !seen[next] && wanted(next) {
                        seen[next] = true;
                        stack.push(next);
                    }
                };
                if place[axis] > 0 {
                    visit(at - stride);
                }
                if place[axis] + 1 < shape[axis] {
                    visit(at + stride);
                }
            }
        }
        sizes.push(size);
    }
    sizes
}

/// Share of pairs that `scores` orders rightly.
fn auc(scores: &[(f64, usize)]) -> f64 {
    let of = |class| scores.iter().filter(move |(_, c)| *c == class).map(|(s, _)| *s);
    let pairs = (of(0).count() * of(1).count()) as f64;
    of(1)
        .map(|p| of(0).map(|n| if p > n { 1.0 } else { f64::from(u8::from(p == n)) / 2.0 }).sum::<f64>())
        .sum::<f64>()
        / pairs
}

#[test]
fn bits_depend_on_seed_and_index_alone() {
    let organs = OrganConfig::default();
    assert_eq!(organ(&organs, 1, 2), organ(&organs, 1, 2));
    assert_ne!(organ(&organs, 1, 2).1, organ(&organs, 1, 3).1);
    assert_ne!(organ(&organs, 1, 2).1, organ(&organs, 2, 2).1);
    let walls = MembraneConfig { shape: [12, 20, 16], ..MembraneConfig::default() };
    assert_eq!(membranes(&walls, 1, 2), membranes(&walls, 1, 2));
    assert_ne!(membranes(&walls, 1, 2).1, membranes(&walls, 1, 3).1);
    let patches = PatchClassConfig::default();
    assert_eq!(patch_class(&patches, 1, 2), patch_class(&patches, 1, 2));
    assert_ne!(patch_class(&patches, 1, 2).0, patch_class(&patches, 1, 3).0);
}

#[test]
fn noise_leaves_the_labels_where_they_are() {
    let quiet = OrganConfig { noise: 0.0, ..OrganConfig::default() };
    assert_eq!(organ(&quiet, 3, 1).1, organ(&OrganConfig::default(), 3, 1).1);
    let walls = MembraneConfig { shape: [16; 3], ..MembraneConfig::default() };
    let quiet = MembraneConfig { noise: 0.0, gaps: 0.6, ..walls.clone() };
    assert_eq!(membranes(&quiet, 3, 1).1, membranes(&walls, 3, 1).1);
}

#[test]
fn the_organ_is_one_body_of_two_touching_parts() {
    for index in 0..6 {
        let (volume, labels) = organ(&OrganConfig::default(), 5, index);
        let shape = volume.shape;
        assert_eq!((volume.channels, volume.values.len(), labels.len()), (1, voxels(shape), voxels(shape)));
        for (side, usual) in shape.into_iter().zip([36.0, 48.0, 36.0]) {
            assert!((side as f64 / usual - 1.0).abs() < 0.17);
        }
        let count = |label| labels.iter().filter(|&&l| l == label).count() as f64 / labels.len() as f64;
        assert!(
            (0.004..0.06).contains(&count(1)) && (0.004..0.06).contains(&count(2)),
            "{} {}",
            count(1),
            count(2)
        );
        let largest = |wanted: &dyn Fn(i32) -> bool| {
            let sizes = parts(shape, |i| wanted(labels[i]));
            *sizes.iter().max().unwrap() as f64 / sizes.iter().sum::<usize>() as f64
        };
        for share in [largest(&|l| l != 0), largest(&|l| l == 1), largest(&|l| l == 2)] {
            assert!(share > 0.97, "{index}: {share}");
        }
        // The front lies at small h.
        let row = |label| {
            let rows = labels.iter().enumerate().filter(|&(_, &l)| l == label);
            mean(rows.map(|(i, _)| (i / shape[2] % shape[1]) as f32))
        };
        assert!(row(1) < row(2));
        assert!(volume.values.iter().all(|v| v.is_finite() && *v >= 0.0));
        // Bright like its parts, not told apart by them.
        let [back, front, rear] = [0, 1, 2].map(|label| mean_where(&volume, &labels, label));
        assert!(front > back + 12.0 && rear > back + 12.0, "{back} {front} {rear}");
    }
}

#[test]
fn walls_are_thin_and_let_nothing_through() {
    let config = MembraneConfig { shape: [40, 44, 48], unlabelled: 0.0, ..MembraneConfig::default() };
    for index in 0..2 {
        let (volume, labels) = membranes(&config, 2, index);
        assert!(labels.iter().all(|&l| l == 0 || l == 1));
        let share = labels.iter().filter(|&&l| l == 1).count() as f64 / labels.len() as f64;
        // A partition into cells of that size has about 3 / cell_size of wall area a volume; thickness 2 doubles it.
        assert!((0.15..0.45).contains(&share), "{share}");
        // Some 40 * 44 * 48 / 20^3 = 11 cells, more at the borders, none of which leaks into another.
        let mut cells = parts(volume.shape, |i| labels[i] == 0);
        cells.retain(|&size| size > 200);
        assert!(cells.len() >= 11, "{cells:?}");
        let largest = *cells.iter().max().unwrap();
        assert!(largest < 2 * 20 * 20 * 20, "{cells:?}");
        let walls = parts(volume.shape, |i| labels[i] == 1);
        let all: usize = walls.iter().sum();
        assert!(*walls.iter().max().unwrap() as f64 > 0.98 * all as f64, "the walls hang together");
        let (inside, wall) = (mean_where(&volume, &labels, 0), mean_where(&volume, &labels, 1));
        assert!(wall > inside + 0.15, "{inside} {wall}");
        assert!(volume.values.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn gaps_dim_walls_but_stay_labelled() {
    let config =
        MembraneConfig { shape: [24, 32, 32], unlabelled: 0.0, noise: 0.0, ..MembraneConfig::default() };
    let whole = membranes(&MembraneConfig { gaps: 0.0, ..config.clone() }, 4, 0);
    let holed = membranes(&MembraneConfig { gaps: 0.3, ..config }, 4, 0);
    assert_eq!(whole.1, holed.1);
    let dimmed = whole
        .0
        .values
        .iter()
        .zip(&holed.0.values)
        .zip(&whole.1)
        .filter(|((a, b), l)| **l == 1 && *a - *b > 0.2);
    let walls = whole.1.iter().filter(|&&l| l == 1).count();
    let share = dimmed.count() as f64 / walls as f64;
    assert!((0.2..0.4).contains(&share), "{share}");
}

#[test]
fn the_share_that_nobody_annotated_is_the_one_asked_for_and_in_one_piece() {
    for share in [0.0, 0.25, 0.56, 1.0] {
        let config = MembraneConfig { shape: [20, 24, 28], unlabelled: share, ..MembraneConfig::default() };
        for index in 0..2 {
            let (volume, labels) = membranes(&config, 6, index);
            let found = labels.iter().filter(|&&l| l == 2).count() as f64 / labels.len() as f64;
            assert!((found - share).abs() < 1e-3, "{found} for {share}");
            let sizes = parts(volume.shape, |i| labels[i] == 2);
            let all: usize = sizes.iter().sum();
            assert!(sizes.iter().max().is_none_or(|&largest| largest as f64 > 0.9 * all as f64), "{sizes:?}");
        }
    }
}

#[test]
fn class_one_has_the_share_asked_for_in_any_stretch() {
    let config = PatchClassConfig { shape: [1, 2, 2], ..PatchClassConfig::default() };
    let classes: Vec<usize> = (0..300).map(|index| patch_class(&config, 1, index).1).collect();
    assert!((49..=51).contains(&classes.iter().sum::<usize>()));
    for stretch in classes.chunks(60) {
        assert!((8..=12).contains(&stretch.iter().sum::<usize>()), "{classes:?}");
    }
    let always = |share| {
        (0..50)
            .map(|i| patch_class(&PatchClassConfig { positive_share: share, ..config.clone() }, 1, i).1)
            .sum::<usize>()
    };
    assert_eq!([always(0.0), always(1.0)], [0, 50]);
}

#[test]
fn simple_statistics_do_not_tell_the_classes_apart() {
    let config = PatchClassConfig { positive_share: 0.5, ..PatchClassConfig::default() };
    let patches: Vec<_> = (0..160).map(|index| patch_class(&config, 3, index)).collect();
    let middle = |v: &Volume| -> Vec<f32> {
        let inside = |i: usize| {
            let [d, h, w] = [i / 1024, i / 32 % 32, i % 32];
            (2..6).contains(&d) && (10..22).contains(&h) && (10..22).contains(&w)
        };
        v.values.iter().enumerate().filter(|&(i, _)| inside(i)).map(|(_, &v)| v).collect()
    };
    let deviation = |values: &[f32]| {
        let centre = mean(values.iter().copied());
        mean(values.iter().map(|v| (f64::from(*v) - centre).powi(2) as f32)).sqrt()
    };
    type Statistic<'a> = &'a dyn Fn(&Volume) -> f64;
    let statistics: [(&str, Statistic); 6] = [
        ("mean", &|v| mean(v.values.iter().copied())),
        ("deviation", &|v| deviation(&v.values)),
        ("largest", &|v| f64::from(v.values.iter().copied().fold(0.0, f32::max))),
        ("mean of the middle", &|v| mean(middle(v).into_iter())),
        ("deviation of the middle", &|v| deviation(&middle(v))),
        ("centre", &|v| f64::from(v.values[(4 * 32 + 16) * 32 + 16])),
    ];
    for (name, statistic) in statistics {
        let scores: Vec<_> = patches.iter().map(|(volume, class)| (statistic(volume), *class)).collect();
        let found = auc(&scores);
        // Standard error 0.046.
        assert!((0.33..0.67).contains(&found), "{name}: {found}");
    }
    for (volume, _) in &patches {
        assert!(volume.values.iter().all(|v| v.fract() == 0.0 && (0.0..=255.0).contains(v)));
    }
}

#[test]
fn a_wide_hole_tells_the_classes_apart_where_nothing_hides_it() {
    let config =
        PatchClassConfig { positive_share: 0.5, noise: 0.0, visibility: 1.0, ..PatchClassConfig::default() };
    let circle = [0, 1, 2, 3, 4, 5, 6, 7].map(|k| (f64::from(k) * std::f64::consts::FRAC_PI_4).sin_cos());
    let scores: Vec<_> = (0..80)
        .map(|index| {
            let (volume, class) = patch_class(&config, 3, index);
            let at = |d: usize, h: f64, w: f64| {
                volume.values[(d * 32 + h.round() as usize) * 32 + w.round() as usize]
            };
            // The darkest voxel of a circle of radius 2, at its brightest place.
            let darkest = |d: usize, h: f64, w: f64| {
                circle
                    .iter()
                    .map(|(sin, cos)| at(d, h + 2.0 * sin, w + 2.0 * cos))
                    .fold(f32::INFINITY, f32::min)
            };
            let places = (2..6).flat_map(|d| (10..22).flat_map(move |h| (10..22).map(move |w| (d, h, w))));
            let best = places.map(|(d, h, w)| darkest(d, f64::from(h), f64::from(w))).fold(0.0, f32::max);
            (f64::from(best), class)
        })
        .collect();
    let found = auc(&scores);
    assert!(found > 0.7, "{found}");
}

#[test]
fn every_shape_and_senseless_values_give_a_volume() {
    for shape in [[1, 1, 1], [0, 5, 3], [2, 1, 9], [7, 3, 3]] {
        let nan = f64::NAN;
        let config =
            OrganConfig { shape, size_variation: nan, noise: -1.0, bias: 7.0, distractors: usize::MAX };
        let (volume, labels) = organ(&config, 1, 0);
        assert!(volume.values.iter().all(|v| v.is_finite()) && labels.len() == volume.values.len());
        let config = MembraneConfig {
            shape,
            cell_size: 0.0,
            thickness: nan,
            waviness: f64::INFINITY,
            gaps: 2.0,
            unlabelled: -1.0,
            noise: nan,
        };
        let (volume, labels) = membranes(&config, 1, 0);
        assert!(volume.values.iter().all(|v| v.is_finite()) && labels.len() == volume.values.len());
        let config = PatchClassConfig { shape, positive_share: nan, noise: f64::INFINITY, visibility: -2.0 };
        let (volume, class) = patch_class(&config, 1, 0);
        assert!(volume.values.iter().all(|v| v.is_finite()) && class < 2);
        assert_eq!(volume.values.len(), voxels(volume.shape));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn volumes_agree_with_their_shape(
        seed: u64,
        index: u64,
        shape in [1usize..12, 1usize..12, 1usize..12],
        cell in 4.0..60.0f64,
        wave in 0.0..0.3f64,
    ) {
        let (volume, labels) = organ(&OrganConfig { shape, ..OrganConfig::default() }, seed, index);
        prop_assert_eq!((volume.values.len(), labels.len()), (voxels(volume.shape), voxels(volume.shape)));
        prop_assert!(labels.iter().all(|l| (0..=2).contains(l)));
        let config = MembraneConfig { shape, cell_size: cell, waviness: wave, ..MembraneConfig::default() };
        let (volume, labels) = membranes(&config, seed, index);
        prop_assert_eq!((volume.shape, volume.values.len()), (shape, labels.len()));
        prop_assert!(labels.iter().all(|l| (0..=2).contains(l)));
        let (volume, _) = patch_class(&PatchClassConfig { shape, ..PatchClassConfig::default() }, seed, index);
        prop_assert_eq!(volume.values.len(), voxels(shape));
    }
}
