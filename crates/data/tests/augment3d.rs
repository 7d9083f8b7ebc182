//! Augmentation of volumes: each transformation against SciPy, PyTorch (`goldens/augment3d.py`) or plain arithmetic,
//! frequencies against probabilities, and what must hold for any draw.

use proptest::prelude::*;
use serde_json::Value;
use trimtab_data::augment3d::{Augment3d, Chance, Draw3d, Elastic, Intensity};
use trimtab_data::rng::{Stream, rng};
use trimtab_data::volume::{IGNORE, Shape, VolumePatch, voxels};

/// The generator of the golden program.
fn draws(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / 16_777_216.0
    };
    (0..count).map(|_| draw()).collect()
}

fn drawn(seed: u64, shape: Shape) -> VolumePatch {
    let values = draws(seed, voxels(shape));
    let image = values.iter().map(|&v| v as f32).collect();
    let labels = values.iter().map(|v| (v * 4.0) as u8).collect();
    VolumePatch { channels: 1, shape, image, labels }
}

/// Voxel number as value, and modulo 3 as label.
fn numbered(channels: usize, shape: Shape) -> VolumePatch {
    let image = (0..channels * voxels(shape)).map(|i| i as f32).collect();
    let labels = (0..voxels(shape)).map(|i| (i % 3) as u8).collect();
    VolumePatch { channels, shape, image, labels }
}

fn one(intensity: Intensity) -> Draw3d {
    Draw3d { intensities: vec![intensity], ..Draw3d::default() }
}

fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// Everything nnU-Net does and a deformation, each time.
fn always(target: Shape) -> Augment3d {
    let sure = |chance: Chance| Chance { probability: 1.0, ..chance };
    let usual = Augment3d::nnunet(target);
    Augment3d {
        rotation: sure(usual.rotation),
        scaling: sure(usual.scaling),
        elastic: Chance::new(1.0, 0.5, 3.0),
        elastic_sigma: [2.0, 5.0],
        noise: sure(usual.noise),
        blur: sure(usual.blur),
        brightness: sure(usual.brightness),
        contrast: sure(usual.contrast),
        low_resolution: sure(usual.low_resolution),
        inverted_gamma: sure(usual.inverted_gamma),
        gamma: sure(usual.gamma),
        ..usual
    }
}

#[test]
fn transformations_agree_with_scipy_and_pytorch() {
    let golden: Vec<Value> = serde_json::from_str(include_str!("../../../goldens/augment3d.json")).unwrap();
    let mut checked = 0;
    for case in &golden {
        let three = |key: &str| -> [f64; 3] { serde_json::from_value(case[key].clone()).unwrap() };
        let shape = three("shape").map(|n| n as usize);
        let patch = drawn(case["seed"].as_u64().unwrap(), shape);
        let mut target = shape;
        let kind = case["kind"].as_str().unwrap();
        let draw = match kind {
            "blur" => one(Intensity { blur: Some(three("sigmas")), ..Intensity::default() }),
            "low_resolution" => {
                one(Intensity { low_resolution: Some(three("zoom")), ..Intensity::default() })
            }
            "contrast" => one(Intensity { contrast: case["factor"].as_f64(), ..Intensity::default() }),
            "gamma" => one(Intensity { gamma: case["power"].as_f64(), ..Intensity::default() }),
            "inverted_gamma" => {
                one(Intensity { inverted_gamma: case["power"].as_f64(), ..Intensity::default() })
            }
            "affine" => {
                target = three("target").map(|n| n as usize);
                Draw3d { rotation: Some(three("degrees")), scale: Some(three("scale")), ..Draw3d::default() }
            }
            other => panic!("unknown kind {other}"),
        };
        let found = draw.apply(patch.clone(), target);
        let expected: Vec<f64> = serde_json::from_value(case["values"].clone()).unwrap();
        assert_eq!(found.image.len(), expected.len());
        for (i, (a, b)) in found.image.iter().zip(&expected).enumerate() {
            assert!((f64::from(*a) - b).abs() < 4e-6, "{kind} {shape:?} voxel {i}: {a} for {b}");
        }
        if case["labels"].is_array() {
            let expected: Vec<u8> = serde_json::from_value(case["labels"].clone()).unwrap();
            assert_eq!(found.labels, expected);
        } else {
            assert_eq!(found.labels, patch.labels);
        }
        checked += 1;
    }
    assert_eq!(checked, 13);
}

#[test]
fn quarter_turns_permute_the_axes() {
    let n = 5;
    let patch = numbered(2, [n; 3]);
    let at = |p: &VolumePatch, c: usize, [d, h, w]: [usize; 3]| p.image[((c * n + d) * n + h) * n + w];
    let last = n - 1;
    // Where the voxel that ends at (d, h, w) comes from.
    type Source = fn([usize; 3], usize) -> [usize; 3];
    let turns: [([f64; 3], Source); 4] = [
        ([90.0, 0.0, 0.0], |[d, h, w], last| [d, last - w, h]),
        ([0.0, 90.0, 0.0], |[d, h, w], last| [w, h, last - d]),
        ([0.0, 0.0, 90.0], |[d, h, w], last| [last - h, d, w]),
        ([180.0, 0.0, 0.0], |[d, h, w], last| [d, last - h, last - w]),
    ];
    for (degrees, source) in turns {
        let draw = Draw3d { rotation: Some(degrees), ..Draw3d::default() };
        assert_eq!(draw.source_shape([n; 3]), [n; 3]);
        let turned = draw.apply(patch.clone(), [n; 3]);
        for c in 0..2 {
            for i in 0..n * n * n {
                let to = [i / (n * n), i / n % n, i % n];
                let from = source(to, last);
                let (found, expected) = (at(&turned, c, to), at(&patch, c, from));
                assert!((found - expected).abs() < 2e-3, "{degrees:?} {to:?}: {found} for {expected}");
                let from = (from[0] * n + from[1]) * n + from[2];
                assert_eq!(turned.labels[i], patch.labels[from]);
            }
        }
    }
}

#[test]
fn scale_one_and_angle_zero_crop_like_no_transformation() {
    for (source, target) in
        [([6, 7, 8], [6, 7, 8]), ([7, 9, 8], [4, 4, 4]), ([3, 5, 4], [6, 6, 6]), ([1, 5, 9], [1, 8, 2])]
    {
        let patch = numbered(2, source);
        let plain = Draw3d::default().apply(patch.clone(), target);
        let identity = Draw3d { rotation: Some([0.0; 3]), scale: Some([1.0; 3]), ..Draw3d::default() }
            .apply(patch, target);
        assert_eq!(plain, identity, "{source:?} to {target:?}");
    }
}

#[test]
fn a_crop_is_the_middle_and_what_is_missing_is_padded() {
    let patch = numbered(1, [1, 3, 4]);
    let cropped = Draw3d::default().apply(patch.clone(), [1, 1, 2]);
    assert_eq!((cropped.image, cropped.labels), (vec![5.0, 6.0], vec![2, 0]));
    let padded = Draw3d { pad_label: 9, ..Draw3d::default() }.apply(patch, [1, 5, 4]);
    assert_eq!(padded.image[..5], [0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(padded.labels[..6], [9, 9, 9, 9, 0, 1]);
    assert_eq!(padded.labels[16..], [9; 4]);
}

#[test]
fn scaling_by_two_shows_every_other_voxel() {
    let patch = numbered(1, [9; 3]);
    let draw = Draw3d { scale: Some([2.0; 3]), ..Draw3d::default() };
    assert_eq!(draw.source_shape([5; 3]), [9; 3]);
    let small = draw.apply(patch.clone(), [5; 3]);
    assert_eq!(small.image[1] - small.image[0], 2.0);
    assert_eq!(small.image[124], patch.image[728]);
    assert!(small.labels.iter().zip(&small.image).all(|(&l, &v)| v as usize % 3 == usize::from(l)));
}

#[test]
fn mirroring_twice_is_the_identity_and_once_reverses_an_axis() {
    for axis in 0..3 {
        let mut draw = Draw3d::default();
        draw.mirror[axis] = true;
        for shape in [[2, 3, 4], [5, 1, 3], [1, 1, 1]] {
            let patch = numbered(2, shape);
            let once = draw.apply(patch.clone(), shape);
            let stride: usize = shape[axis + 1..].iter().product();
            assert_eq!(once.image[0], ((shape[axis] - 1) * stride) as f32);
            assert_eq!(once.labels[0], patch.labels[(shape[axis] - 1) * stride]);
            assert_eq!(draw.apply(once, shape), patch);
        }
    }
}

#[test]
fn brightness_multiplies_the_channels_it_is_drawn_for() {
    let patch = numbered(2, [2, 3, 4]);
    let bright = Intensity { brightness: Some(1.2), ..Intensity::default() };
    let draw = Draw3d { intensities: vec![Intensity::default(), bright], ..Draw3d::default() };
    let after = draw.apply(patch.clone(), patch.shape);
    assert_eq!(after.image[..24], patch.image[..24]);
    assert!(after.image[24..].iter().zip(&patch.image[24..]).all(|(a, b)| (a - 1.2 * b).abs() < 1e-4));
}

#[test]
fn gamma_keeps_mean_and_deviation_and_order() {
    for (power, inverted) in [(0.7, false), (1.5, false), (0.7, true), (1.5, true)] {
        let patch = drawn(3, [6, 7, 8]);
        let gamma = Some(power);
        let intensity = if inverted {
            Intensity { inverted_gamma: gamma, ..Intensity::default() }
        } else {
            Intensity { gamma, ..Intensity::default() }
        };
        let after = one(intensity).apply(patch.clone(), patch.shape);
        let ((mean, std), (new_mean, new_std)) = (moments(&patch.image), moments(&after.image));
        assert!((mean - new_mean).abs() < 1e-6 && (std - new_std).abs() < 1e-6);
        let mut order: Vec<usize> = (0..patch.image.len()).collect();
        order.sort_by(|&a, &b| patch.image[a].total_cmp(&patch.image[b]));
        assert!(order.windows(2).all(|w| after.image[w[0]] <= after.image[w[1]] + 1e-6));
        assert_ne!(after.image, patch.image);
    }
}

#[test]
fn noise_has_the_deviation_drawn_and_differs_between_channels() {
    let shape = [20, 31, 33];
    let still = VolumePatch { channels: 2, shape, image: vec![0.5; 2 * voxels(shape)], labels: Vec::new() };
    let after = Draw3d { noise: Some(0.1), seed: [3, 4], ..Draw3d::default() }.apply(still, shape);
    let (first, second) = after.image.split_at(voxels(shape));
    for channel in [first, second] {
        let (mean, std) = moments(channel);
        assert!((mean - 0.5).abs() < 3e-3 && (std - 0.1).abs() < 2e-3, "{mean} {std}");
        // Normal: 31.7 % beyond one standard deviation, 4.6 % beyond two.
        let beyond = |k: f64| {
            channel.iter().filter(|&&v| (f64::from(v) - 0.5).abs() > k * 0.1).count() as f64
                / channel.len() as f64
        };
        assert!((beyond(1.0) - 0.317).abs() < 0.01 && (beyond(2.0) - 0.046).abs() < 0.006);
    }
    assert_ne!(first, second);
}

#[test]
fn a_deformation_moves_no_voxel_further_than_alpha_and_smoothly() {
    let shape = [17, 33, 40];
    // The coordinate along an axis as the value: the change is the displacement.
    for axis in 0..3 {
        let place = |i: usize| [i / (33 * 40), i / 40 % 33, i % 40][axis] as f32;
        let elastic = Elastic { alpha: [2.0; 3], sigma: 6.0 };
        let draw = Draw3d { elastic: Some(elastic), seed: [1, 7], ..Draw3d::default() };
        let source = draw.source_shape(shape);
        assert_eq!(source, [21, 37, 44]);
        let image = (0..voxels(source)).map(|i| [i / (37 * 44), i / 44 % 37, i % 44][axis] as f32 - 2.0);
        let patch = VolumePatch {
            channels: 1,
            shape: source,
            image: image.collect(),
            labels: vec![1; voxels(source)],
        };
        let after = draw.apply(patch, shape);
        let shifts: Vec<f32> = after.image.iter().enumerate().map(|(i, v)| v - place(i)).collect();
        let most = shifts.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!((1.2..=2.001).contains(&most), "{most}");
        assert!(after.labels.iter().all(|&l| l == 1), "nothing comes from outside");
        let steepest = shifts.chunks(40).flat_map(|r| r.windows(2)).map(|w| (w[1] - w[0]).abs());
        assert!(steepest.fold(0.0, f32::max) < 2.0 * 1.2 / 6.0);
    }
}

#[test]
fn frequencies_are_the_probabilities() {
    const DRAWS: u64 = 4000;
    let target = [40, 56, 40];
    let augment = Augment3d { elastic: Chance::new(0.35, 1.0, 2.0), ..Augment3d::nnunet(target) };
    let mut counts = [0usize; 15];
    for index in 0..DRAWS {
        let draw = augment.draw(2, target, &mut rng(9, Stream::Augment, index));
        let [first, second] = draw.intensities[..] else { panic!("two channels") };
        let made = [
            draw.rotation.is_some(),
            draw.scale.is_some(),
            draw.elastic.is_some(),
            draw.mirror[0],
            draw.mirror[1],
            draw.mirror[2],
            draw.noise.is_some(),
            first.blur.is_some(),
            second.blur.is_some(),
            first.brightness.is_some(),
            second.contrast.is_some(),
            first.low_resolution.is_some(),
            second.low_resolution.is_some(),
            first.inverted_gamma.is_some(),
            second.gamma.is_some(),
        ];
        counts.iter_mut().zip(made).for_each(|(count, made)| *count += usize::from(made));
        for (intensity, other) in [(first, second), (second, first)] {
            assert_eq!(intensity.brightness.is_some(), other.brightness.is_some());
            assert!(intensity.blur.iter().flatten().all(|s| (0.5..1.0).contains(s)));
            assert!(intensity.brightness.iter().chain(&intensity.contrast).all(|f| (0.75..1.25).contains(f)));
            assert!(intensity.gamma.iter().chain(&intensity.inverted_gamma).all(|g| (0.7..1.5).contains(g)));
            assert!(intensity.low_resolution.iter().flatten().all(|z| (0.5..1.0).contains(z)));
        }
        assert!(draw.rotation.iter().flatten().all(|a| a.abs() <= 30.0));
        assert!(draw.scale.iter().flatten().all(|s| (0.7..1.4).contains(s)));
        assert!(draw.noise.iter().all(|s| (0.0..0.1).contains(s)));
    }
    let expected = [0.2, 0.2, 0.35, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.15, 0.15, 0.125, 0.125, 0.1, 0.3];
    for (i, (count, p)) in counts.iter().zip(expected).enumerate() {
        let (found, error) = (*count as f64 / DRAWS as f64, (p * (1.0 - p) / DRAWS as f64).sqrt());
        assert!((found - p).abs() < 4.0 * error, "number {i}: {found} for {p}");
    }
}

#[test]
fn factors_fall_below_and_above_one_equally_often() {
    let augment = Augment3d { gamma: Chance::new(1.0, 0.7, 1.5), ..Augment3d::none() };
    let above = (0..2000).filter(|&index| {
        let draw = augment.draw(1, [4; 3], &mut rng(2, Stream::Augment, index));
        draw.intensities[0].gamma.unwrap() > 1.0
    });
    // Standard deviation 22.
    assert!((900..1100).contains(&above.count()));
}

#[test]
fn flat_patches_are_turned_in_the_plane_alone() {
    let target = [16, 64, 60];
    let augment = always(target);
    assert_eq!(augment.thin, Some(0));
    assert_eq!(Augment3d::nnunet([64, 64, 16]).thin, Some(2));
    assert_eq!(Augment3d::nnunet([32, 96, 96]).thin, None);
    let mut largest = 0.0f64;
    for index in 0..300 {
        let draw = augment.draw(1, target, &mut rng(1, Stream::Augment, index));
        let [d, h, w] = draw.rotation.unwrap();
        assert_eq!((h, w), (0.0, 0.0));
        largest = largest.max(d.abs());
        assert_eq!(draw.scale.unwrap()[0], 1.0);
        assert_eq!(draw.elastic.unwrap().alpha[0], 0.0);
        assert!(draw.intensities[0].low_resolution.is_none_or(|z| z[0] == 1.0));
        assert_eq!(draw.source_shape(target)[0], 16);
    }
    assert!(largest > 150.0);
    assert_eq!(augment.source_shape(target)[0], 16);
}

#[test]
fn the_source_is_the_target_when_nothing_moves() {
    for target in [[40, 56, 40], [1, 5, 7], [9, 9, 9]] {
        assert_eq!(Augment3d::none().source_shape(target), target);
        assert_eq!(Augment3d::light().source_shape(target), target);
    }
}

#[test]
fn a_source_of_the_shape_asked_for_is_never_left() {
    for target in [[12, 17, 12], [9, 40, 33], [16, 16, 16], [1, 20, 20], [2, 3, 1]] {
        let augment = always(target);
        let worst = augment.source_shape(target);
        for index in 0..150 {
            let draw = augment.draw(1, target, &mut rng(4, Stream::Augment, index));
            let needed = draw.source_shape(target);
            for axis in 0..3 {
                assert!(needed[axis] <= worst[axis], "{needed:?} within {worst:?}");
                assert_eq!((needed[axis] - target[axis]) % 2, 0);
            }
            let labels = vec![1; voxels(needed)];
            let source = VolumePatch { channels: 1, shape: needed, image: vec![0.0; voxels(needed)], labels };
            let spatial = Draw3d { noise: None, intensities: Vec::new(), ..draw };
            let patch = spatial.apply(source, target);
            assert!(patch.labels.iter().all(|&l| l == 1), "{target:?} {spatial:?}");
        }
    }
}

#[test]
fn the_worst_source_is_not_larger_than_some_draw_needs() {
    let target = [40, 56, 40];
    let augment = Augment3d { elastic: Chance::new(0.0, 0.0, 0.0), ..always(target) };
    let worst = augment.source_shape(target);
    let mut most = [0; 3];
    for index in 0..20_000 {
        let needed = augment.draw(1, target, &mut rng(4, Stream::Augment, index)).source_shape(target);
        most = [0, 1, 2].map(|axis| most[axis].max(needed[axis]));
    }
    for axis in 0..3 {
        assert!(worst[axis] - most[axis] <= 6, "{worst:?}, {most:?} of 20000 draws");
    }
}

#[test]
fn changing_one_probability_leaves_the_other_strengths() {
    let target = [8, 9, 10];
    let with = always(target);
    let without = Augment3d { rotation: Chance { probability: 0.0, ..with.rotation }, ..with };
    let draw = |augment: &Augment3d| augment.draw(2, target, &mut rng(6, Stream::Augment, 1));
    assert_eq!(Draw3d { rotation: None, ..draw(&with) }, draw(&without));
}

#[test]
fn constants_zeros_and_single_voxels_stay_finite() {
    for shape in [[1, 1, 1], [1, 4, 5], [3, 3, 3], [0, 3, 3], [6, 1, 2]] {
        for value in [0.0, -3.5, 1e30] {
            for index in 0..30 {
                let patch = VolumePatch {
                    channels: 2,
                    shape,
                    image: vec![value; 2 * voxels(shape)],
                    labels: vec![1; voxels(shape)],
                };
                let after = always(shape).apply(patch, shape, &mut rng(3, Stream::Augment, index));
                assert!(after.image.iter().all(|v| v.is_finite()), "{shape:?} {value}");
            }
        }
    }
}

#[test]
fn senseless_configurations_do_nothing_worse_than_nothing() {
    let bad = Chance { probability: 1.0, range: [f64::NAN, f64::INFINITY] };
    let odd = Chance { probability: 1.0, range: [-5.0, -7.0] };
    for chance in [bad, odd] {
        let augment = Augment3d {
            rotation: chance,
            scaling: chance,
            elastic: chance,
            elastic_sigma: chance.range,
            noise: chance,
            blur: chance,
            low_resolution: chance,
            inverted_gamma: chance,
            gamma: chance,
            brightness: bad,
            contrast: bad,
            thin: Some(7),
            ..Augment3d::none()
        };
        let patch = numbered(1, [5, 6, 7]);
        let source = augment.source_shape(patch.shape);
        assert!(source.iter().all(|&n| n < 100), "{source:?}");
        let after = augment.apply(patch.clone(), patch.shape, &mut rng(3, Stream::Augment, 0));
        assert!(after.image.iter().all(|v| v.is_finite()));
    }
}

proptest! {
    #[test]
    fn nothing_is_the_identity(seed: u64, d in 1usize..6, h in 1usize..6, w in 1usize..6, channels in 1usize..3) {
        let patch = numbered(channels, [d, h, w]);
        let after = Augment3d::none().apply(patch.clone(), patch.shape, &mut rng(seed, Stream::Augment, 0));
        prop_assert_eq!(after, patch);
    }

    #[test]
    fn flips_move_picture_and_labels_together(seed: u64, d in 1usize..6, h in 1usize..6, w in 1usize..6) {
        let patch = numbered(1, [d, h, w]);
        let after = Augment3d::light().apply(patch.clone(), patch.shape, &mut rng(seed, Stream::Augment, 0));
        let mut sorted = after.image.clone();
        sorted.sort_by(f32::total_cmp);
        prop_assert_eq!(&sorted, &patch.image);
        prop_assert!(after.image.iter().zip(&after.labels).all(|(&v, &l)| v as usize % 3 == usize::from(l)));
    }

    #[test]
    fn any_draw_gives_finite_patches_of_the_shape_asked_for_with_the_labels_there_were(
        seed: u64,
        source in [1usize..14, 1usize..14, 1usize..14],
        target in [1usize..12, 1usize..12, 1usize..12],
        channels in 1usize..3,
        labelled: bool,
    ) {
        let mut patch = numbered(channels, source);
        if !labelled {
            patch.labels.clear();
        }
        let made = || always(target).apply(patch.clone(), target, &mut rng(seed, Stream::Augment, 5));
        let after = made();
        prop_assert_eq!((after.channels, after.shape), (channels, target));
        prop_assert_eq!(after.image.len(), channels * voxels(target));
        prop_assert!(after.image.iter().all(|v| v.is_finite()));
        if labelled {
            prop_assert_eq!(after.labels.len(), voxels(target));
            prop_assert!(after.labels.iter().all(|&l| l < 3 || l == IGNORE));
        } else {
            prop_assert!(after.labels.is_empty());
        }
        prop_assert_eq!(after, made());
    }
}
