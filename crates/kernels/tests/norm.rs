//! Normalisations against a plain f64 version, finite differences and PyTorch (`goldens/norm.py`).

use proptest::prelude::*;
use trimtab_kernels::Isa;
use trimtab_kernels::norm::{self, Activation, Shape};

const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    BatchTrain,
    BatchEval,
    Group(usize),
    /// Rows are `[batch, channels]`.
    Layer,
    LayerChannels,
}

impl Kind {
    fn parameters(self, shape: Shape) -> usize {
        if self == Self::Layer { shape.inner } else { shape.channels }
    }

    /// How many means and variances there are.
    fn statistics(self, shape: Shape) -> usize {
        match self {
            Self::BatchTrain | Self::BatchEval => shape.channels,
            Self::Group(groups) => shape.batch * groups,
            Self::Layer => shape.batch * shape.channels,
            Self::LayerChannels => shape.batch * shape.inner,
        }
    }

    /// Which parameter and which statistics element `i` has.
    fn of(self, shape: Shape, i: usize) -> (usize, usize) {
        let (b, c, p) = (i / shape.inner / shape.channels, i / shape.inner % shape.channels, i % shape.inner);
        match self {
            Self::BatchTrain | Self::BatchEval => (c, c),
            Self::Group(groups) => (c, b * groups + c / (shape.channels / groups)),
            Self::Layer => (p, b * shape.channels + c),
            Self::LayerChannels => (c, b * shape.inner + p),
        }
    }
}

#[derive(Debug, Clone)]
struct Case {
    kind: Kind,
    shape: Shape,
    epsilon: f32,
    activation: Activation,
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Of `BatchEval`.
    given: (Vec<f32>, Vec<f32>),
}

/// y, dx, dweight, dbias, means, and variances (batch) or their inverse roots.
#[derive(Debug, Clone, PartialEq)]
struct Results<T>([Vec<T>; 6]);
const NAMES: [&str; 6] = ["y", "dx", "dweight", "dbias", "mean", "variance or rstd"];

impl Case {
    /// Random numbers around `level`; `dy` is 0 where rounding might decide what the activation lets through.
    fn random(kind: Kind, shape: Shape, activation: Activation, level: f32, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |n: usize, low: f32, high: f32| -> Vec<f32> {
            (0..n)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    low + (high - low) * ((state >> 40) as f32 / (1 << 24) as f32)
                })
                .collect()
        };
        let n = shape.batch * shape.channels * shape.inner;
        let (parameters, channels) = (kind.parameters(shape), shape.channels);
        let mut case = Self {
            kind,
            shape,
            epsilon: 1e-3,
            activation,
            x: draw(n, level - 2.0, level + 2.0),
            dy: draw(n, -1.0, 1.5),
            weight: draw(parameters, -1.5, 2.0),
            bias: draw(parameters, -1.0, 1.0),
            given: (draw(channels, level - 1.0, level + 1.0), draw(channels, 0.1, 3.0)),
        };
        let z = case.naive().1;
        for (dy, z) in case.dy.iter_mut().zip(z) {
            if z.abs() < 1e-3 {
                *dy = 0.0;
            }
        }
        case
    }

    fn ours(&self) -> Results<f32> {
        let Self { kind, shape, epsilon, activation, x, dy, weight, bias, given } = self;
        let (kind, shape, epsilon, act) = (*kind, *shape, *epsilon, *activation);
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        let (mut dw, mut db) = (vec![f32::NAN; weight.len()], vec![f32::NAN; bias.len()]);
        let mut mean = vec![f32::NAN; kind.statistics(shape)];
        let mut spread = mean.clone();
        match kind {
            Kind::BatchTrain => {
                norm::batch_train(shape, epsilon, act, x, weight, bias, &mut y, &mut mean, &mut spread);
                norm::batch_train_backward(
                    shape,
                    epsilon,
                    act,
                    x,
                    weight,
                    bias,
                    &mean,
                    &spread,
                    dy,
                    Some(&mut dx),
                    &mut dw,
                    &mut db,
                );
            }
            Kind::BatchEval => {
                (mean, spread) = given.clone();
                norm::batch_eval(shape, epsilon, act, x, weight, bias, &mean, &spread, &mut y);
                norm::batch_eval_backward(
                    shape,
                    epsilon,
                    act,
                    x,
                    weight,
                    bias,
                    &mean,
                    &spread,
                    dy,
                    Some(&mut dx),
                    &mut dw,
                    &mut db,
                );
            }
            Kind::Group(groups) => {
                let (w, b) = (Some(weight.as_slice()), Some(bias.as_slice()));
                norm::group(shape, groups, epsilon, act, x, w, b, &mut y, &mut mean, &mut spread);
                let (dx, dw, db) =
                    (Some(dx.as_mut_slice()), Some(dw.as_mut_slice()), Some(db.as_mut_slice()));
                norm::group_backward(shape, groups, act, x, w, b, &mean, &spread, dy, dx, dw, db);
            }
            Kind::Layer => {
                let (rows, len) = (shape.batch * shape.channels, shape.inner);
                norm::layer(rows, len, epsilon, act, x, weight, bias, &mut y, &mut mean, &mut spread);
                norm::layer_backward(
                    rows,
                    len,
                    act,
                    x,
                    weight,
                    bias,
                    &mean,
                    &spread,
                    dy,
                    Some(&mut dx),
                    &mut dw,
                    &mut db,
                );
            }
            Kind::LayerChannels => {
                norm::layer_channels(shape, epsilon, act, x, weight, bias, &mut y, &mut mean, &mut spread);
                norm::layer_channels_backward(
                    shape,
                    act,
                    x,
                    weight,
                    bias,
                    &mean,
                    &spread,
                    dy,
                    Some(&mut dx),
                    &mut dw,
                    &mut db,
                );
            }
        }
        Results([y, dx, dw, db, mean, spread])
    }

    /// The results; `z` before the activation; the magnitudes that rounding errors of the results are measured against:
    /// the largest of the terms that are added up, because of `dx` little may be left.
    fn naive(&self) -> (Results<f64>, Vec<f64>, [f64; 6]) {
        let Self { kind, shape, epsilon, activation, x, dy, weight, bias, given } = self;
        let constant = *kind == Kind::BatchEval;
        let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|&v| f64::from(v)).collect() };
        let (x, dy, weight, bias) = (wide(x), wide(dy), wide(weight), wide(bias));
        let index: Vec<_> = (0..x.len()).map(|i| kind.of(*shape, i)).collect();
        let statistics = kind.statistics(*shape);
        let mut count = vec![0.0; statistics];
        index.iter().for_each(|&(_, s)| count[s] += 1.0);
        let average = |values: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0; statistics];
            index.iter().enumerate().for_each(|(i, &(_, s))| sums[s] += values(i));
            sums.iter().zip(&count).map(|(sum, n)| if *n > 0.0 { sum / n } else { 0.0 }).collect()
        };
        let (mut mean, mut variance) = (wide(&given.0), wide(&given.1));
        if !constant {
            mean = average(&|i| x[i]);
            variance = average(&|i| (x[i] - mean[index[i].1]).powi(2));
        }
        let rstd: Vec<f64> = variance.iter().map(|v| 1.0 / (v + f64::from(*epsilon)).sqrt()).collect();
        let normal: Vec<f64> = (0..x.len()).map(|i| (x[i] - mean[index[i].1]) * rstd[index[i].1]).collect();
        let z: Vec<f64> = (0..x.len()).map(|i| normal[i] * weight[index[i].0] + bias[index[i].0]).collect();
        let slope = match activation {
            Activation::Identity => 1.0,
            Activation::Relu => 0.0,
            Activation::LeakyRelu(slope) => f64::from(*slope),
        };
        let factor = |i: usize| if z[i] > 0.0 { 1.0 } else { slope };
        let y: Vec<f64> = (0..x.len()).map(|i| z[i] * factor(i)).collect();
        let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; bias.len()]);
        for (i, &(p, _)) in index.iter().enumerate() {
            dweight[p] += dy[i] * factor(i) * normal[i];
            dbias[p] += dy[i] * factor(i);
        }
        let g = |i: usize| dy[i] * factor(i) * weight[index[i].0];
        let (g_mean, product_mean) = (average(&g), average(&|i| g(i) * normal[i]));
        let through = if constant { 0.0 } else { 1.0 };
        let term = |i: usize| rstd[index[i].1] * g(i);
        let dx: Vec<f64> = (0..x.len())
            .map(|i| {
                let s = index[i].1;
                term(i) - through * rstd[s] * (g_mean[s] + normal[i] * product_mean[s])
            })
            .collect();
        let largest = |v: &[f64]| v.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        let terms = (0..x.len()).map(|i| term(i).abs()).fold(0.0, f64::max);
        let batch = matches!(kind, Kind::BatchTrain | Kind::BatchEval);
        let spread = if batch { variance } else { rstd };
        let scales = [
            largest(&z),
            terms,
            largest(&dweight).max(1.0),
            largest(&dbias),
            largest(&mean),
            largest(&spread),
        ];
        (Results([y, dx, dweight, dbias, mean, spread]), z, scales)
    }

    fn check(&self, tolerance: f64) {
        let (theirs, _, scales) = self.naive();
        for isa in ISAS {
            let ours = isa.scoped(|| self.ours());
            for (k, name) in NAMES.iter().enumerate() {
                assert_eq!(ours.0[k].len(), theirs.0[k].len(), "{name}");
                for (i, (ours, theirs)) in ours.0[k].iter().zip(&theirs.0[k]).enumerate() {
                    assert!(
                        (f64::from(*ours) - theirs).abs() <= tolerance * scales[k].max(1e-3),
                        "{:?} {:?} {:?} {isa:?} {name}[{i}]: {ours} against {theirs}",
                        self.kind,
                        self.shape,
                        self.activation,
                    );
                }
            }
        }
    }
}

fn shape(batch: usize, channels: usize, inner: usize) -> Shape {
    Shape { batch, channels, inner }
}

const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Relu, Activation::LeakyRelu(0.2)];

fn kinds(channels: usize) -> [Kind; 7] {
    let half = if channels.is_multiple_of(2) { channels / 2 } else { 1 };
    let groups = [Kind::Group(1), Kind::Group(half), Kind::Group(channels)];
    [Kind::BatchTrain, Kind::BatchEval, Kind::Layer, Kind::LayerChannels, groups[0], groups[1], groups[2]]
}

fn cases(largest_channels: usize, largest_inner: usize) -> impl Strategy<Value = Case> {
    let sizes = (0..4usize, 1..=largest_channels, 1..=largest_inner);
    (sizes, 0..7usize, 0..3usize, -3.0..3.0f32, any::<u64>()).prop_map(
        |((batch, channels, inner), kind, activation, level, seed)| {
            let shape = shape(batch, channels, inner);
            Case::random(kinds(channels)[kind], shape, ACTIVATIONS[activation], level, seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn small_shapes_equal_plain_f64(case in cases(20, 90)) {
        case.check(1e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn larger_planes_equal_plain_f64(case in cases(6, 9000)) {
        case.check(1e-4);
    }

    #[test]
    fn many_channels_equal_plain_f64(case in cases(700, 40)) {
        case.check(1e-4);
    }

    #[test]
    fn activation_alone_equals_its_definition(
        x in prop::collection::vec(-2.0..2.0f32, 0..100),
        slope in 0.0..=1.0f32,
    ) {
        for activation in [Activation::Identity, Activation::Relu, Activation::LeakyRelu(slope)] {
            for isa in ISAS {
                let below = match activation {
                    Activation::Identity => 1.0,
                    Activation::Relu => 0.0,
                    Activation::LeakyRelu(slope) => slope,
                };
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                let dy: Vec<f32> = x.iter().map(|x| x * 3.0 - 1.0).collect();
                isa.scoped(|| {
                    norm::activation(activation, &x, &mut y);
                    norm::activation_backward(activation, &y, &dy, &mut dx);
                });
                for i in 0..x.len() {
                    prop_assert_eq!(y[i], if x[i] > 0.0 { x[i] } else { below * x[i] });
                    prop_assert_eq!(dx[i], if y[i] > 0.0 { dy[i] } else { below * dy[i] });
                }
            }
        }
    }
}

/// Large enough for several parts a region, several chunks and gathered planes, none of them a round number.
fn large_shapes() -> [Shape; 4] {
    [shape(2, 3, 20_011), shape(50, 2, 997), shape(3, 40, 1030), shape(2100, 21, 1)]
}

#[test]
fn divided_regions_equal_plain_f64() {
    for shape in large_shapes() {
        for kind in kinds(shape.channels) {
            Case::random(kind, shape, Activation::LeakyRelu(0.1), 0.5, 1).check(1e-4);
        }
    }
}

#[test]
fn bits_depend_neither_on_the_run_nor_on_threads_nor_on_instructions() {
    for shape in large_shapes() {
        for kind in kinds(shape.channels) {
            let case = Case::random(kind, shape, Activation::Relu, 0.5, 2);
            let bits = |results: Results<f32>| {
                results.0.map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let once = bits(case.ours());
            assert!(once == bits(case.ours()), "{kind:?} {shape:?}");
            for (threads, isa) in [1, 3, 5].into_iter().zip(ISAS) {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let other = pool.install(|| isa.scoped(|| case.ours()));
                assert!(once == bits(other), "{kind:?} {shape:?} {threads} threads, {isa:?}");
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let shape = shape(3, 4, 5);
    for kind in kinds(4) {
        for activation in ACTIVATIONS {
            let case = Case::random(kind, shape, activation, 0.3, 7);
            let [_, dx, dweight, dbias, ..] = case.ours().0;
            // In f64, far enough from the kinks.
            let loss = |case: &Case| -> f64 {
                let (results, ..) = case.naive();
                results.0[0].iter().zip(&case.dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            type Field = fn(&mut Case) -> &mut Vec<f32>;
            let fields: [(&str, Field, &[f32]); 3] = [
                ("dx", |case| &mut case.x, &dx),
                ("dweight", |case| &mut case.weight, &dweight),
                ("dbias", |case| &mut case.bias, &dbias),
            ];
            for (name, field, gradient) in fields {
                for (i, &ours) in gradient.iter().enumerate().step_by(2) {
                    let (mut up, mut down) = (case.clone(), case.clone());
                    field(&mut up)[i] += 1e-4;
                    field(&mut down)[i] -= 1e-4;
                    let step = f64::from(field(&mut up)[i]) - f64::from(field(&mut down)[i]);
                    let numeric = (loss(&up) - loss(&down)) / step;
                    assert!(
                        (f64::from(ours) - numeric).abs() <= 1e-4 * numeric.abs().max(3.0),
                        "{kind:?} {activation:?} {name}[{i}]: {ours} against {numeric}"
                    );
                }
            }
        }
    }
}

#[test]
fn outputs_and_gradients_equal_pytorch() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../../goldens/norm.json")).unwrap();
    let numbers = |v: &serde_json::Value| -> Vec<f32> {
        v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let size = |name: &str| golden[name].as_u64().unwrap() as usize;
    let shape = shape(size("batch"), size("channels"), size("inner"));
    for (name, values) in golden["cases"].as_object().unwrap() {
        let (norm, activation) = name.split_once(' ').unwrap();
        let kind = match norm.split_once('/').unwrap_or((norm, "")) {
            ("batch_train", _) => Kind::BatchTrain,
            ("batch_eval", _) => Kind::BatchEval,
            ("group", groups) => Kind::Group(groups.parse().unwrap()),
            ("layer", _) => Kind::Layer,
            ("layer_channels", _) => Kind::LayerChannels,
            other => panic!("no such case: {other:?}"),
        };
        let activation = match activation {
            "identity" => Activation::Identity,
            "relu" => Activation::Relu,
            "leaky_relu" => Activation::LeakyRelu(golden["slope"].as_f64().unwrap() as f32),
            other => panic!("no such case: {other}"),
        };
        let first = |v: &str| numbers(&golden[v])[..kind.parameters(shape)].to_vec();
        let case = Case {
            kind,
            shape,
            epsilon: golden["epsilon"].as_f64().unwrap() as f32,
            activation,
            x: numbers(&golden["x"]),
            dy: numbers(&golden["dy"]),
            weight: first("weight"),
            bias: first("bias"),
            given: (numbers(&golden["mean"]), numbers(&golden["variance"])),
        };
        for isa in ISAS {
            let ours = isa.scoped(|| case.ours());
            for (k, ours) in ours.0[..4].iter().enumerate() {
                let theirs = numbers(&values[NAMES[k]]);
                assert_eq!(ours.len(), theirs.len());
                for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                    assert!(
                        (ours - theirs).abs() <= 1e-5 * theirs.abs().max(1.0),
                        "{name} {isa:?} {}[{i}]: {ours} against {theirs}",
                        NAMES[k]
                    );
                }
            }
        }
    }
}

#[test]
fn variance_is_accurate_where_it_is_small_against_the_mean() {
    for kind in [Kind::BatchTrain, Kind::Group(2), Kind::Layer, Kind::LayerChannels] {
        let shape = if kind == Kind::LayerChannels { shape(2, 300, 33) } else { shape(3, 4, 5003) };
        let mut case = Case::random(kind, shape, Activation::Identity, 1e4, 3);
        case.weight.fill(1.0);
        // What a shift by the first element would stumble over.
        let odd: Vec<usize> = (0..2).map(|k| k * case.x.len() / 2).collect();
        for outlier in [false, true] {
            if outlier {
                odd.iter().for_each(|&i| case.x[i] = 0.0);
            }
            let (theirs, ..) = case.naive();
            for isa in ISAS {
                let ours = isa.scoped(|| case.ours());
                for (ours, theirs) in ours.0[5].iter().zip(&theirs.0[5]) {
                    let error = (f64::from(*ours) - theirs).abs() / theirs;
                    assert!(error < 1e-4, "{kind:?} outlier {outlier} {isa:?}: {ours} against {theirs}");
                }
                for (ours, theirs) in ours.0[4].iter().zip(&theirs.0[4]) {
                    let error = (f64::from(*ours) - theirs).abs() / theirs;
                    assert!(error < 5e-7, "{kind:?} outlier {outlier} {isa:?}: {ours} against {theirs}");
                }
            }
        }
    }
}

#[test]
fn nothing_has_mean_and_variance_zero_and_no_gradient() {
    for shape in [shape(0, 4, 5), shape(2, 4, 0), shape(0, 4, 20_000)] {
        let case = Case::random(Kind::BatchTrain, shape, Activation::Relu, 0.0, 4);
        assert_eq!(case.ours().0[1..], [vec![], vec![0.0; 4], vec![0.0; 4], vec![0.0; 4], vec![0.0; 4]]);
        for kind in kinds(4) {
            if kind == Kind::Layer && shape.inner == 0 {
                continue;
            }
            let case = Case::random(kind, shape, Activation::Relu, 0.0, 4);
            let [_, _, dweight, dbias, ..] = case.ours().0;
            let zeros = vec![0.0; kind.parameters(shape)];
            assert_eq!((&dweight, &dbias), (&zeros, &zeros), "{kind:?}");
        }
    }
}

#[test]
fn nan_is_not_hidden() {
    let shape = shape(2, 4, 37);
    for kind in kinds(4) {
        let mut case = Case::random(kind, shape, Activation::Relu, 0.0, 6);
        case.x[50] = f32::NAN;
        let (parameter, statistic) = kind.of(shape, 50);
        for isa in ISAS {
            let [y, dx, dweight, _, mean, spread] = isa.scoped(|| case.ours()).0;
            assert!(y[50].is_nan() && dweight[parameter].is_nan(), "{kind:?} {isa:?}");
            if kind != Kind::BatchEval {
                assert!(mean[statistic].is_nan() && spread[statistic].is_nan(), "{kind:?} {isa:?}");
                assert!(dx[50].is_nan(), "{kind:?} {isa:?}");
            }
        }
    }
}

#[test]
fn what_is_not_wanted_changes_nothing_else() {
    let shape = shape(2, 6, 40);
    for kind in kinds(6) {
        let mut case = Case::random(kind, shape, Activation::Relu, 0.2, 5);
        let Case { epsilon, activation: act, .. } = case;
        let [_, dx, dweight, dbias, mean, spread] = case.ours().0;
        let (mut dw, mut db) = (vec![f32::NAN; dweight.len()], vec![f32::NAN; dbias.len()]);
        let (x, dy, w, b) = (&case.x, &case.dy, &case.weight, &case.bias);
        let (m, s) = (&mean, &spread);
        match kind {
            Kind::BatchTrain => {
                norm::batch_train_backward(shape, epsilon, act, x, w, b, m, s, dy, None, &mut dw, &mut db);
            }
            Kind::BatchEval => {
                norm::batch_eval_backward(shape, epsilon, act, x, w, b, m, s, dy, None, &mut dw, &mut db);
            }
            Kind::Layer => norm::layer_backward(12, 40, act, x, w, b, m, s, dy, None, &mut dw, &mut db),
            Kind::LayerChannels => {
                norm::layer_channels_backward(shape, act, x, w, b, m, s, dy, None, &mut dw, &mut db);
            }
            Kind::Group(groups) => {
                let backward = |dx: Option<&mut [f32]>, dw: Option<&mut [f32]>, db: Option<&mut [f32]>| {
                    norm::group_backward(shape, groups, act, x, Some(w), Some(b), m, s, dy, dx, dw, db);
                };
                backward(None, Some(&mut dw), None);
                backward(None, None, Some(&mut db));
                let mut alone = vec![f32::NAN; dx.len()];
                backward(Some(&mut alone), None, None);
                assert_eq!(alone, dx);
            }
        }
        assert_eq!((&dw, &db), (&dweight, &dbias), "{kind:?}");
        if let Kind::Group(groups) = kind {
            case.weight.fill(1.0);
            case.bias.fill(0.0);
            let with = case.ours().0;
            let (mut y, mut dx) = (vec![f32::NAN; case.x.len()], vec![f32::NAN; case.x.len()]);
            let (mut mean, mut rstd) = (mean.clone(), spread.clone());
            norm::group(shape, groups, epsilon, act, &case.x, None, None, &mut y, &mut mean, &mut rstd);
            norm::group_backward(
                shape,
                groups,
                act,
                &case.x,
                None,
                None,
                &mean,
                &rstd,
                &case.dy,
                Some(&mut dx),
                None,
                None,
            );
            assert_eq!((&y, &dx), (&with[0], &with[1]));
        }
    }
}

#[test]
#[should_panic(expected = "dweight")]
fn a_slice_of_another_length_is_named() {
    let (x, one) = ([0.0; 4], [1.0; 2]);
    let (shape, act) = (shape(1, 2, 2), Activation::Relu);
    norm::batch_eval_backward(
        shape,
        1e-5,
        act,
        &x,
        &one,
        &one,
        &one,
        &one,
        &x,
        None,
        &mut [0.0],
        &mut [0.0; 2],
    );
}
