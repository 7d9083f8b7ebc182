//! Convolutions against PyTorch (`goldens/conv.py`) and against plain loops in `f64`, on every instruction set.

use proptest::prelude::*;
use serde_json::Value;
use trimtab_kernels::Isa;
use trimtab_kernels::conv::{Conv, backward_bias, backward_input, backward_weight, forward, transposed};

const ISAS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

/// Numbers in -1..1 from a seed.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
    .take(len)
    .collect()
}

/// What the functions read.
#[derive(Clone)]
struct Data {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Of a transposed convolution.
    input_bias: Vec<f32>,
    dy: Vec<f32>,
}

impl Data {
    fn new(c: &Conv, seed: u64) -> Self {
        Self {
            x: noise(seed, c.input_len()),
            weight: noise(seed + 1000, c.weight_len()),
            bias: noise(seed + 2000, c.output),
            input_bias: noise(seed + 3000, c.input),
            dy: noise(seed + 4000, c.output_len()),
        }
    }

    fn nothing_but_nan(c: &Conv) -> Self {
        let mut data = Self::new(c, 0);
        let all = [&mut data.x, &mut data.weight, &mut data.bias, &mut data.input_bias, &mut data.dy];
        all.into_iter().for_each(|tensor| tensor.fill(f32::NAN));
        data
    }
}

/// What the functions write; the transposed convolution reads `dy`.
#[derive(Debug, PartialEq)]
struct Results<T> {
    y: Vec<T>,
    dx: Vec<T>,
    transposed: Vec<T>,
    dweight: Vec<T>,
    dbias: Vec<T>,
}

fn positions(c: &Conv) -> usize {
    c.out_size().iter().product()
}

fn kernels(c: &Conv, data: &Data) -> Results<f32> {
    kernels_after(c, data, || ())
}

/// Calls `before` before each of the functions.
fn kernels_after(c: &Conv, data: &Data, before: impl Fn()) -> Results<f32> {
    let Data { x, weight, bias, input_bias, dy } = data;
    // Not a number where nothing is written.
    let written = |len: usize, function: &dyn Fn(&mut [f32])| {
        before();
        let mut to = vec![f32::NAN; len];
        function(&mut to);
        to
    };
    Results {
        y: written(c.output_len(), &|y| forward(c, x, weight, Some(bias), y)),
        dx: written(c.input_len(), &|dx| backward_input(c, dy, weight, dx)),
        transposed: written(c.input_len(), &|y| transposed(c, dy, weight, Some(input_bias), y)),
        dweight: written(c.weight_len(), &|dweight| backward_weight(c, x, dy, dweight)),
        dbias: written(c.output, &|dbias| backward_bias(c.batch, c.output, positions(c), dy, dbias)),
    }
}

impl Results<f32> {
    fn bits(&self) -> Results<u32> {
        let bits = |of: &[f32]| of.iter().map(|x| x.to_bits()).collect();
        Results {
            y: bits(&self.y),
            dx: bits(&self.dx),
            transposed: bits(&self.transposed),
            dweight: bits(&self.dweight),
            dbias: bits(&self.dbias),
        }
    }
}

/// The definition: every output, input channel of its group, and tap.
fn naive(c: &Conv, data: &Data) -> Results<f64> {
    let wide = |of: &[f32]| -> Vec<f64> { of.iter().map(|x| f64::from(*x)).collect() };
    let (x, weight, dy) = (wide(&data.x), wide(&data.weight), wide(&data.dy));
    let out = c.out_size();
    let (inputs, outputs) = (c.input / c.groups, c.output / c.groups);
    let (x_plane, y_plane): (usize, usize) = (c.size.iter().product(), positions(c));
    let [k0, k1, k2] = c.kernel;
    let filled = |bias: &[f32], plane: usize| -> Vec<f64> {
        (0..c.batch).flat_map(|_| bias).flat_map(|b| std::iter::repeat_n(f64::from(*b), plane)).collect()
    };
    let mut y = filled(&data.bias, y_plane);
    let (mut dx, mut dweight, mut dbias) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; c.output]);
    // The read index where output `o` meets tap `t`, if it is not in the padding.
    let meets = |d: usize, o: usize, t: usize| {
        (o * c.stride[d] + t * c.dilation[d]).checked_sub(c.padding[d]).filter(|i| *i < c.size[d])
    };
    for image in 0..c.batch {
        for (o, dbias) in dbias.iter_mut().enumerate() {
            let y_at = (image * c.output + o) * y_plane;
            *dbias += dy[y_at..y_at + y_plane].iter().sum::<f64>();
            for i in 0..inputs {
                let x_at = (image * c.input + o / outputs * inputs + i) * x_plane;
                for tap in 0..k0 * k1 * k2 {
                    let w_at = (o * inputs + i) * k0 * k1 * k2 + tap;
                    let (tz, ty, tx) = (tap / (k1 * k2), tap / k2 % k1, tap % k2);
                    let (w, mut dw) = (weight[w_at], 0.0);
                    for oz in 0..out[0] {
                        let Some(z) = meets(0, oz, tz) else { continue };
                        for oy in 0..out[1] {
                            let Some(y_) = meets(1, oy, ty) else { continue };
                            let x_row = x_at + (z * c.size[1] + y_) * c.size[2];
                            let y_row = y_at + (oz * out[1] + oy) * out[2];
                            for ox in 0..out[2] {
                                let Some(x_) = meets(2, ox, tx) else { continue };
                                y[y_row + ox] += w * x[x_row + x_];
                                dx[x_row + x_] += w * dy[y_row + ox];
                                dw += x[x_row + x_] * dy[y_row + ox];
                            }
                        }
                    }
                    dweight[w_at] += dw;
                }
            }
        }
    }
    let transposed = filled(&data.input_bias, x_plane).iter().zip(&dx).map(|(b, x)| b + x).collect();
    Results { y, dx, transposed, dweight, dbias }
}

/// Within 1e-4 of the largest magnitude, or of the one that sums of `terms` products have on average where they happen to
/// cancel.
fn assert_close(what: &str, ours: &[f32], theirs: &[f64], terms: usize) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold((terms as f64).sqrt() / 3.0, |most, x| most.max(x.abs()));
    for (k, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let same = ours.is_nan() && theirs.is_nan() || (f64::from(*ours) - theirs).abs() <= 1e-4 * largest;
        assert!(same, "{what}[{k}]: {ours} against {theirs}, the largest is {largest}");
    }
}

fn assert_all_close(what: &str, c: &Conv, ours: &Results<f32>, theirs: &Results<f64>) {
    let taps: usize = c.kernel.iter().product();
    let all = |name: &str| format!("{what}, {name} of {c:?}");
    assert_close(&all("y"), &ours.y, &theirs.y, c.input / c.groups * taps);
    assert_close(&all("dx"), &ours.dx, &theirs.dx, c.output / c.groups * taps);
    assert_close(&all("transposed"), &ours.transposed, &theirs.transposed, c.output / c.groups * taps);
    assert_close(&all("dweight"), &ours.dweight, &theirs.dweight, c.batch * positions(c));
    assert_close(&all("dbias"), &ours.dbias, &theirs.dbias, c.batch * positions(c));
}

fn agrees_with_definition(c: &Conv) {
    let data = Data::new(c, 7);
    let expected = naive(c, &data);
    for isa in ISAS {
        isa.scoped(|| assert_all_close(&format!("{isa:?}"), c, &kernels(c, &data), &expected));
    }
}

/// Multiplications of one pass.
fn cost(c: &Conv) -> usize {
    c.output_len() * (c.input / c.groups) * c.kernel.iter().product::<usize>()
}

/// Makes sizes, then batch, then channels smaller until `most` multiplications suffice.
fn affordable(mut c: Conv, most: usize) -> Conv {
    while cost(&c) > most {
        let largest =
            if c.size[0] > c.size[1].max(c.size[2]) { 0 } else { 1 + usize::from(c.size[2] >= c.size[1]) };
        if c.size[largest] > 7 {
            c.size[largest] /= 2;
        } else if c.batch > 1 {
            c.batch = 1;
        } else if c.groups > 1 {
            (c.input, c.output, c.groups) = (c.input / c.groups, c.output / c.groups, 1);
        } else if c.input.max(c.output) > 1 {
            (c.input, c.output) = (c.input.div_ceil(2), c.output.div_ceil(2));
        } else {
            break;
        }
    }
    c
}

/// Size, kernel, stride, padding, dilation of a dimension.
fn dimension(sizes: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 5]> {
    let size = prop_oneof![2 => 1..=6usize, 3 => sizes];
    let kernel = prop_oneof![3 => 1..=3usize, 1 => 1..=7usize];
    let stride = prop_oneof![2 => Just(1), 2 => 1..=4usize];
    let padding = prop_oneof![1 => Just(0), 2 => 0..=5usize];
    let dilation = prop_oneof![2 => Just(1), 1 => 1..=4usize];
    (size, kernel, stride, padding, dilation).prop_map(|(n, k, s, p, d)| [n, k, s, p, d])
}

fn conv(sizes: std::ops::RangeInclusive<usize>, most: usize) -> impl Strategy<Value = Conv> {
    let channels = prop_oneof![
        3 => (1..=3usize, 1..=20usize, 1..=20usize),
        1 => (1..=20usize, Just(1), 1..=2usize),
    ];
    let batch = prop_oneof![1 => Just(0), 12 => 1..=3usize];
    let dimensions = (1..=3usize).prop_flat_map(move |n| prop::collection::vec(dimension(sizes.clone()), n));
    (batch, channels, dimensions).prop_map(move |(batch, (groups, input, output), dimensions)| {
        let of = |which: usize, fill: usize| {
            let missing = 3 - dimensions.len();
            std::array::from_fn(|d| d.checked_sub(missing).map_or(fill, |d| dimensions[d][which]))
        };
        let c = Conv {
            batch,
            input: groups * input,
            output: groups * output,
            groups,
            size: of(0, 1),
            kernel: of(1, 1),
            stride: of(2, 1),
            padding: of(3, 0),
            dilation: of(4, 1),
        };
        affordable(c, most)
    })
}

/// The seldom ones: several passes over channels, several parts of rows, many tiles, cut rows, far reaches.
fn special() -> Vec<Conv> {
    let plain = |batch, input, output, size: [usize; 3], kernel: [usize; 3]| Conv {
        batch,
        input,
        output,
        groups: 1,
        size,
        kernel,
        stride: [1; 3],
        padding: kernel.map(|k| k / 2),
        dilation: [1; 3],
    };
    vec![
        plain(2, 150, 130, [1, 8, 9], [1, 3, 3]),
        Conv { groups: 2, stride: [1, 2, 1], ..plain(1, 300, 150, [1, 7, 5], [1, 3, 3]) },
        plain(1, 520, 260, [1, 5, 7], [1, 1, 1]),
        // Taps farther apart than a tile is long: each has a part of the copy of its own.
        Conv { padding: [0, 60, 60], dilation: [1, 60, 60], ..plain(1, 3, 4, [1, 100, 90], [1, 3, 3]) },
        Conv { padding: [9; 3], dilation: [9; 3], ..plain(2, 3, 2, [20, 19, 22], [3, 3, 2]) },
        Conv { dilation: [1, 33, 50], stride: [1, 2, 3], ..plain(1, 2, 9, [1, 110, 120], [1, 3, 3]) },
        // Steps beyond the kernel.
        Conv { stride: [1, 17, 40], ..plain(2, 3, 9, [1, 80, 100], [1, 3, 5]) },
        // Small images, many of them.
        plain(11, 40, 33, [1, 5, 6], [1, 3, 3]),
        Conv { groups: 2, stride: [1, 2, 1], ..plain(70, 6, 4, [1, 3, 4], [1, 2, 3]) },
        plain(5, 9, 70, [3, 4, 17], [1, 3, 3]),
        plain(130, 3, 9, [1, 1, 1], [1, 1, 1]),
        // Nothing happens along some dimensions.
        plain(2, 5, 6, [6, 7, 8], [3, 1, 1]),
        Conv { stride: [2, 1, 1], dilation: [1, 3, 2], ..plain(2, 5, 6, [9, 40, 41], [2, 1, 1]) },
        plain(3, 6, 5, [7, 13, 17], [1, 1, 1]),
        plain(2, 3, 9, [4, 6, 5], [1, 3, 1]),
        Conv { padding: [1, 0, 0], ..plain(1, 3, 4, [3, 6, 5], [1, 1, 1]) },
        // So large a weight that the sums for its gradient are not split as usual.
        plain(9, 1000, 61, [1, 2, 3], [1, 3, 3]),
        plain(1, 5, 9, [1, 100, 100], [1, 3, 3]),
        Conv { stride: [1, 2, 3], dilation: [1, 3, 2], ..plain(2, 3, 10, [1, 100, 101], [1, 5, 5]) },
        Conv {
            padding: [0, 6, 6],
            groups: 30,
            dilation: [1, 2, 2],
            ..plain(1, 30, 30, [1, 41, 39], [1, 7, 7])
        },
        plain(1, 1, 1, [1, 230, 310], [1, 5, 3]),
        plain(1, 2, 3, [1, 3, 1301], [1, 3, 5]),
        Conv { stride: [1, 2, 2], ..plain(2, 3, 5, [1, 2, 1300], [1, 2, 3]) },
        Conv { stride: [1, 1, 3], dilation: [1, 1, 2], ..plain(2, 7, 5, [1, 1, 2000], [1, 1, 7]) },
        Conv { groups: 3, padding: [0, 0, 700], ..plain(1, 6, 3, [1, 1, 513], [1, 1, 2]) },
        plain(1, 3, 4, [24, 25, 26], [3, 3, 3]),
        Conv { stride: [2, 2, 2], padding: [1, 0, 2], ..plain(1, 6, 5, [19, 24, 23], [3, 3, 4]) },
        // The copied input of a tile, or of a single position, is larger than the cache.
        Conv { padding: [0, 30, 60], dilation: [1, 60, 60], ..plain(1, 3, 4, [1, 90, 130], [1, 3, 3]) },
        Conv { padding: [25; 3], dilation: [25; 3], ..plain(1, 2, 3, [3, 4, 5], [3, 3, 3]) },
        // Phases that no tap reaches; the kernel never meets the image in some places.
        Conv { stride: [1, 9, 7], ..plain(1, 5, 6, [1, 60, 50], [1, 3, 2]) },
        Conv { stride: [3, 4, 4], padding: [5, 3, 4], ..plain(2, 4, 3, [3, 10, 7], [1, 1, 1]) },
        Conv { padding: [0, 5, 9], ..plain(1, 2, 9, [1, 4, 3], [1, 2, 3]) },
        // Empty outputs, and an empty input with an output.
        Conv { padding: [0; 3], ..plain(2, 3, 4, [1, 4, 30], [1, 5, 3]) },
        Conv { padding: [0; 3], dilation: [4, 4, 4], ..plain(1, 1, 2, [8, 30, 30], [3, 3, 3]) },
        Conv { padding: [0, 2, 2], ..plain(2, 3, 4, [1, 5, 0], [1, 3, 3]) },
        plain(0, 3, 4, [1, 5, 6], [1, 3, 3]),
    ]
}

#[test]
fn special_geometries_agree_with_the_definition() {
    special().iter().for_each(agrees_with_definition);
}

#[test]
fn any_number_of_channels_agrees_with_the_definition() {
    for rows in 1..=20 {
        for other in [1, 3] {
            let c = Conv {
                batch: 1,
                input: other,
                output: rows,
                groups: 1,
                size: [1, 5, 11],
                kernel: [1, 3, 2],
                stride: [1; 3],
                padding: [0, 1, 1],
                dilation: [1; 3],
            };
            agrees_with_definition(&c);
            agrees_with_definition(&Conv { input: rows, output: other, ..c });
        }
    }
}

#[test]
fn without_channels_only_the_bias_is_left() {
    let c = Conv {
        batch: 2,
        input: 0,
        output: 3,
        groups: 1,
        size: [1, 4, 5],
        kernel: [1, 3, 3],
        stride: [1, 2, 1],
        padding: [0, 1, 1],
        dilation: [1; 3],
    };
    for c in [c, Conv { input: 3, output: 0, ..c }] {
        let data = Data::new(&c, 19);
        let expected = naive(&c, &data);
        for isa in ISAS {
            let ours = pool(1).install(|| isa.scoped(|| kernels_after(&c, &data, spoil_temporary_memory)));
            assert_all_close(&format!("{isa:?}"), &c, &ours, &expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn random_geometries_agree_with_the_definition(c in conv(1..=40, 1_000_000)) {
        agrees_with_definition(&c);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn wide_images_agree_with_the_definition(c in conv(1..=40, 20_000), width in 513..=2600usize) {
        let size = [1, c.size[1].min(3), width];
        agrees_with_definition(&Conv { batch: c.batch.min(1), size, ..c });
    }

    /// `<forward(x), dy> = <x, backward_input(dy)> = <weight, backward_weight(x, dy)>`, of larger ones.
    #[test]
    fn gradients_are_adjoint_to_the_convolution(c in conv(1..=120, 20_000_000), isa in 0..3usize) {
        let data = Data { bias: vec![0.0; c.output], ..Data::new(&c, 11) };
        let results = ISAS[isa].scoped(|| kernels(&c, &data));
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let pairs = [(&results.y, &data.dy), (&data.x, &results.dx), (&data.weight, &results.dweight)];
        let products = pairs.map(|(a, b)| dot(a, b));
        // What they have on average.
        let scale = (cost(&c) as f64 / 27.0).sqrt();
        for product in products {
            prop_assert!((product - products[0]).abs() <= 1e-4 * scale.max(1.0), "{products:?} of {c:?}");
        }
    }

    /// The loss is linear in each argument, so that central differences of any width are exact.
    #[test]
    fn gradients_equal_finite_differences(c in conv(1..=9, 20_000), at in any::<prop::sample::Index>()) {
        let data = Data::new(&c, 3);
        let loss = |data: &Data| -> f64 {
            naive(&c, data).y.iter().zip(&data.dy).map(|(y, r)| y * f64::from(*r)).sum()
        };
        let check = |name: &str, gradient: &[f32], of: fn(&mut Data) -> &mut Vec<f32>| {
            if gradient.is_empty() {
                return;
            }
            let k = at.index(gradient.len());
            let moved = |by: f32| {
                let mut data = data.clone();
                of(&mut data)[k] += by;
                (f64::from(of(&mut data)[k]), loss(&data))
            };
            let ((from, low), (to, high)) = (moved(-0.5), moved(0.5));
            let slope = (high - low) / (to - from);
            let largest = gradient.iter().fold(1.0, |most: f64, x| most.max(f64::from(*x).abs()));
            let ours = f64::from(gradient[k]);
            assert!((slope - ours).abs() <= 1e-4 * largest, "{name}[{k}]: {ours} against {slope}, {c:?}");
        };
        for isa in ISAS {
            let results = isa.scoped(|| kernels(&c, &data));
            check("dx", &results.dx, |data| &mut data.x);
            check("dweight", &results.dweight, |data| &mut data.weight);
            check("dbias", &results.dbias, |data| &mut data.bias);
        }
    }

    /// One element that is not a number spoils what depends on it and nothing else.
    #[test]
    fn what_is_not_a_number_spreads_no_farther_than_the_kernel(
        c in conv(1..=20, 100_000),
        at in any::<prop::sample::Index>(),
    ) {
        let mut data = Data::new(&c, 5);
        for tensor in [&mut data.x, &mut data.dy] {
            if !tensor.is_empty() {
                let k = at.index(tensor.len());
                tensor[k] = f32::NAN;
            }
        }
        let expected = naive(&c, &data);
        for isa in ISAS {
            let ours = isa.scoped(|| kernels(&c, &data));
            // Not the weight's gradient: it multiplies zeros with what is near, and so may spread it to other taps.
            let ours = Results { dweight: expected.dweight.iter().map(|x| *x as f32).collect(), ..ours };
            assert_all_close(&format!("{isa:?}"), &c, &ours, &expected);
        }
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn results_are_the_same_bits_in_every_run_and_on_any_number_of_threads() {
    let pools = [1, 2, 3].map(pool);
    for c in special() {
        let data = Data::new(&c, 13);
        for isa in ISAS {
            let run = || isa.scoped(|| kernels(&c, &data).bits());
            let first = run();
            // Not `assert_eq!`: the message would be megabytes.
            assert!(first == run(), "{isa:?}, second run of {c:?}");
            for pool in &pools {
                let same = first == pool.install(run) && first == pool.install(run);
                assert!(same, "{isa:?}, {} threads, {c:?}", pool.current_num_threads());
            }
        }
    }
}

/// Fills this thread's temporary memory with what is not a number, through convolutions that use a lot of it and put
/// hardly any zeros between.
fn spoil_temporary_memory() {
    let point = Conv {
        batch: 1,
        input: 400,
        output: 400,
        groups: 1,
        size: [1, 1, 16],
        kernel: [1; 3],
        stride: [1; 3],
        padding: [0; 3],
        dilation: [1; 3],
    };
    let many_sums = Conv { input: 64, output: 1, size: [1, 64, 64], stride: [1, 2, 2], ..point };
    for c in [point, many_sums, Conv { input: 1, output: 64, ..point }] {
        let Data { mut x, weight, input_bias, dy, .. } = Data::nothing_but_nan(&c);
        transposed(&c, &dy, &weight, Some(&input_bias), &mut x);
    }
}

#[test]
fn what_earlier_calls_left_in_temporary_memory_does_not_matter() {
    for isa in ISAS {
        // One thread: whatever was left behind is met again.
        let used = pool(1);
        for c in special() {
            let data = Data::new(&c, 17);
            let clean = pool(1).install(|| isa.scoped(|| kernels(&c, &data).bits()));
            let spoilt = || isa.scoped(|| kernels_after(&c, &data, spoil_temporary_memory).bits());
            assert!(used.install(spoilt) == clean, "{isa:?}, {c:?}");
        }
    }
}

#[test]
fn results_and_gradients_equal_pytorch() {
    let golden: Value = serde_json::from_str(include_str!("../../../goldens/conv.json")).unwrap();
    for case in golden.as_array().unwrap() {
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        let three = |key: &str| std::array::from_fn(|d| case[key][d].as_u64().unwrap() as usize);
        let exact = |key: &str| -> Vec<f64> {
            case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let floats = |key: &str| -> Vec<f32> { exact(key).iter().map(|x| *x as f32).collect() };
        let c = Conv {
            batch: count("batch"),
            input: count("input"),
            output: count("output"),
            groups: count("groups"),
            size: three("size"),
            kernel: three("kernel"),
            stride: three("stride"),
            padding: three("padding"),
            dilation: three("dilation"),
        };
        let kind = case["kind"].as_str().unwrap();
        let (x, weight, bias, dy) = (floats("x"), floats("weight"), floats("bias"), floats("dy"));
        let [mut y, mut dx, mut dweight, mut dbias] =
            [&dy, &x, &weight, &bias].map(|like| vec![f32::NAN; like.len()]);
        for isa in ISAS {
            isa.scoped(|| {
                if kind == "conv" {
                    forward(&c, &x, &weight, Some(&bias), &mut y);
                    backward_input(&c, &dy, &weight, &mut dx);
                    backward_weight(&c, &x, &dy, &mut dweight);
                } else {
                    transposed(&c, &x, &weight, Some(&bias), &mut y);
                    forward(&c, &dy, &weight, None, &mut dx);
                    backward_weight(&c, &dy, &x, &mut dweight);
                }
                let positions = dy.len() / (c.batch * bias.len());
                backward_bias(c.batch, bias.len(), positions, &dy, &mut dbias);
            });
            for (name, ours) in [("y", &y), ("dx", &dx), ("dweight", &dweight), ("dbias", &dbias)] {
                assert_close(&format!("{isa:?}, {name} of {kind} {c:?}"), ours, &exact(name), 0);
            }
        }
    }
}

#[test]
fn output_sizes_are_pytorchs() {
    let c = Conv {
        batch: 2,
        input: 4,
        output: 6,
        groups: 2,
        size: [5, 8, 9],
        kernel: [1, 3, 4],
        stride: [2, 1, 3],
        padding: [0, 1, 2],
        dilation: [1, 2, 3],
    };
    assert_eq!(c.out_size(), [3, 6, 2]);
    assert_eq!((c.input_len(), c.weight_len(), c.output_len()), (2 * 4 * 360, 6 * 2 * 12, 2 * 6 * 36));
    assert_eq!(Conv { kernel: [6, 3, 4], ..c }.out_size()[0], 0);
}

/// A geometry, and buffers that fit it; each test cuts one.
fn fitting() -> (Conv, Data) {
    let c = Conv {
        batch: 2,
        input: 4,
        output: 6,
        groups: 2,
        size: [1, 5, 6],
        kernel: [1, 3, 3],
        stride: [1; 3],
        padding: [0; 3],
        dilation: [1; 3],
    };
    (c, Data::new(&c, 0))
}

macro_rules! panics {
    ($($name:ident: $message:literal, |$c:ident, $data:ident| $call:expr;)*) => {$(
        #[test]
        #[should_panic(expected = $message)]
        fn $name() {
            #[expect(unused_mut)]
            let (mut $c, mut $data) = fitting();
            $call
        }
    )*};
}

panics! {
    forward_names_a_wrong_x: "input's side", |c, d| forward(&c, &d.x[1..], &d.weight, None, &mut d.dy);
    forward_names_a_wrong_weight: "of the weight", |c, d| forward(&c, &d.x, &d.weight[1..], None, &mut d.dy);
    forward_names_a_wrong_bias: "of the bias", |c, d| forward(&c, &d.x, &d.weight, Some(&d.bias[1..]), &mut d.dy);
    forward_names_a_wrong_y: "output's side", |c, d| forward(&c, &d.x, &d.weight, None, &mut d.dy[1..]);
    backward_input_names_a_wrong_dy: "output's side", |c, d| backward_input(&c, &d.dy[1..], &d.weight, &mut d.x);
    backward_input_names_a_wrong_weight: "of the weight", |c, d| backward_input(&c, &d.dy, &d.weight[1..], &mut d.x);
    backward_input_names_a_wrong_dx: "input's side", |c, d| backward_input(&c, &d.dy, &d.weight, &mut d.x[1..]);
    transposed_names_a_wrong_x: "output's side", |c, d| transposed(&c, &d.dy[1..], &d.weight, None, &mut d.x);
    transposed_names_a_wrong_weight: "of the weight", |c, d| transposed(&c, &d.dy, &d.weight[1..], None, &mut d.x);
    transposed_names_a_wrong_bias: "of the bias", |c, d| transposed(&c, &d.dy, &d.weight, Some(&d.bias), &mut d.x);
    transposed_names_a_wrong_y: "input's side", |c, d| transposed(&c, &d.dy, &d.weight, None, &mut d.x[1..]);
    backward_weight_names_a_wrong_x: "input's side", |c, d| backward_weight(&c, &d.x[1..], &d.dy, &mut d.weight);
    backward_weight_names_a_wrong_dy: "output's side", |c, d| backward_weight(&c, &d.x, &d.dy[1..], &mut d.weight);
    backward_weight_names_a_wrong_dweight: "of the weight", |c, d| backward_weight(&c, &d.x, &d.dy, &mut d.weight[1..]);
    backward_bias_names_a_wrong_dy: "dy", |c, d| backward_bias(c.batch, c.output, 12, &d.dy[1..], &mut d.bias);
    backward_bias_names_a_wrong_dbias: "dbias", |c, d| backward_bias(c.batch, c.output, 12, &d.dy, &mut d.bias[1..]);
    no_groups_is_named: "groups must be", |c, d| forward(&Conv { groups: 0, ..c }, &d.x, &d.weight, None, &mut d.dy);
    channels_that_groups_do_not_divide_are_named: "multiples of groups 3", |c, d| forward(&Conv { groups: 3, ..c }, &d.x, &d.weight, None, &mut d.dy);
    a_kernel_of_zero_is_named: "kernel [1, 0, 3]", |c, d| forward(&Conv { kernel: [1, 0, 3], ..c }, &d.x, &d.weight, None, &mut d.dy);
    a_stride_of_zero_is_named: "stride [1, 0, 1]", |c, d| forward(&Conv { stride: [1, 0, 1], ..c }, &d.x, &d.weight, None, &mut d.dy);
    a_dilation_of_zero_is_named: "dilation [0, 1, 1]", |c, d| forward(&Conv { dilation: [0, 1, 1], ..c }, &d.x, &d.weight, None, &mut d.dy);
}
