//! The kernels as operations on Burn's tensors: outputs and gradients against Burn's own operators in f64, which is also the
//! way that other backends take.
#![cfg(feature = "flex")]

use std::cell::Cell;

use burn::tensor::ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use trimtab_kernels::norm::Activation::{self, Identity, LeakyRelu, Relu};
use trimtab_kernels::optimizer::{AdamW, Sgd};
use trimtab_kernels::resize::Mode;
use trimtab_kernels::tensor::*;

/// A function of flat tensors (reshaped inside), the lengths of its inputs, and its name.
type Case = (&'static str, Vec<usize>, Box<dyn Fn(&[Tensor<1>]) -> Tensor<1>>);

fn case(name: &'static str, lengths: &[usize], f: impl Fn(&[Tensor<1>]) -> Tensor<1> + 'static) -> Case {
    (name, lengths.to_vec(), Box::new(f))
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
}

fn values(x: Tensor<1>) -> Vec<f64> {
    x.into_data().convert::<f64>().try_into_vec().unwrap()
}

/// Values of a rough bell shape, the same in every run: each test has a thread, and so a sequence, of its own (the device's
/// generator is shared by all).
fn random(n: usize) -> Tensor<1> {
    thread_local!(static STATE: Cell<u64> = const { Cell::new(1) });
    let uniform = || {
        let next =
            STATE.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        STATE.set(next);
        (next >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..n).map(|_| 1.7 * (0..4).map(|_| uniform()).sum::<f32>()).collect();
    Tensor::from_data(TensorData::new(values, [n]), &Device::flex())
}

/// Output, and the gradients by those inputs that are `tracked`.
fn run(
    case: &Case,
    inputs: &[Tensor<1>],
    tracked: &[bool],
    weight: &Tensor<1>,
) -> (Vec<f64>, Vec<Option<Vec<f64>>>) {
    let inputs: Vec<Tensor<1>> = inputs
        .iter()
        .zip(tracked)
        .map(|(x, tracked)| {
            let x = Tensor::from_inner(x.clone());
            if *tracked { x.require_grad() } else { x }
        })
        .collect();
    let output = case.2(&inputs);
    let mut gradients = (output.clone() * Tensor::from_inner(weight.clone())).sum().backward();
    let gradients = inputs.iter().map(|x| x.grad_remove(&mut gradients).map(values)).collect();
    (values(output.inner()), gradients)
}

fn close(name: &str, what: &str, ours: &[f64], reference: &[f64]) {
    assert_eq!(ours.len(), reference.len(), "{name}: length of {what}");
    let scale = reference.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in ours.iter().zip(reference).enumerate() {
        assert!((a - b).abs() <= 1e-4 * scale, "{name}: {what}[{i}] is {a}, not {b} (scale {scale})");
    }
}

fn cases() -> Vec<Case> {
    let conv = |x: &[Tensor<1>], x_shape: [usize; 4], w_shape: [usize; 4], options: ConvOptions<2>| {
        let (x, w) = (x[0].clone().reshape(x_shape), x[1].clone().reshape(w_shape));
        (x, w, options)
    };
    let norms: [Activation; 3] = [Identity, Relu, LeakyRelu(0.1)];
    let mut all = vec![
        case("conv1d", &[2 * 4 * 31, 6 * 2 * 3, 6], |x| {
            let options = ConvOptions::new([2], [1], [2], 2);
            flat(conv1d(
                x[0].clone().reshape([2, 4, 31]),
                x[1].clone().reshape([6, 2, 3]),
                Some(x[2].clone()),
                options,
            ))
        }),
        case("conv2d", &[2 * 5 * 9 * 12, 7 * 5 * 9, 7], move |x| {
            let (a, w, o) = conv(x, [2, 5, 9, 12], [7, 5, 3, 3], ConvOptions::new([1; 2], [1; 2], [1; 2], 1));
            flat(conv2d(a, w, Some(x[2].clone()), o))
        }),
        case("conv2d without bias, strided, dilated", &[2 * 4 * 15 * 11, 6 * 4 * 9], move |x| {
            let (a, w, o) =
                conv(x, [2, 4, 15, 11], [6, 4, 3, 3], ConvOptions::new([2, 3], [2, 1], [2, 1], 1));
            flat(conv2d(a, w, None, o))
        }),
        case("conv2d depthwise", &[2 * 6 * 12 * 12, 6 * 49, 6], move |x| {
            let (a, w, o) =
                conv(x, [2, 6, 12, 12], [6, 1, 7, 7], ConvOptions::new([1; 2], [3; 2], [1; 2], 6));
            flat(conv2d(a, w, Some(x[2].clone()), o))
        }),
        case("conv3d", &[2 * 3 * 5 * 6 * 7, 4 * 3 * 27, 4], |x| {
            let options = ConvOptions::new([1, 2, 1], [1; 3], [1; 3], 1);
            let (a, w) = (x[0].clone().reshape([2, 3, 5, 6, 7]), x[1].clone().reshape([4, 3, 3, 3, 3]));
            flat(conv3d(a, w, Some(x[2].clone()), options))
        }),
        case("conv_transpose1d", &[2 * 4 * 9, 4 * 3 * 4, 3], |x| {
            let options = ConvTransposeOptions::new([2], [1], [1], [1], 1);
            let (a, w) = (x[0].clone().reshape([2, 4, 9]), x[1].clone().reshape([4, 3, 4]));
            flat(conv_transpose1d(a, w, Some(x[2].clone()), options))
        }),
        case("conv_transpose2d", &[2 * 6 * 5 * 7, 6 * 2 * 9, 4], |x| {
            let options = ConvTransposeOptions::new([2, 3], [1, 0], [1, 2], [1, 2], 2);
            let (a, w) = (x[0].clone().reshape([2, 6, 5, 7]), x[1].clone().reshape([6, 2, 3, 3]));
            flat(conv_transpose2d(a, w, Some(x[2].clone()), options))
        }),
        case("conv_transpose3d", &[4 * 3 * 4 * 5, 4 * 3 * 8, 3], |x| {
            let options = ConvTransposeOptions::new([2; 3], [0; 3], [0; 3], [1; 3], 1);
            let (a, w) = (x[0].clone().reshape([1, 4, 3, 4, 5]), x[1].clone().reshape([4, 3, 2, 2, 2]));
            flat(conv_transpose3d(a, w, Some(x[2].clone()), options))
        }),
        case("max_pool2d", &[2 * 3 * 9 * 11], |x| {
            let options =
                MaxPoolOptions { stride: [2; 2], padding: [(1, 1); 2], ..MaxPoolOptions::new([3; 2]) };
            flat(max_pool2d(x[0].clone().reshape([2, 3, 9, 11]), options))
        }),
        case("max_pool3d", &[2 * 3 * 6 * 8 * 10], |x| {
            flat(max_pool3d(x[0].clone().reshape([2, 3, 6, 8, 10]), MaxPoolOptions::new([2; 3])))
        }),
        case("max_pool3d, overlapping", &[2 * 7 * 8 * 9], |x| {
            let options =
                MaxPoolOptions { stride: [2, 1, 2], padding: [(1, 1); 3], ..MaxPoolOptions::new([3; 3]) };
            flat(max_pool3d(x[0].clone().reshape([1, 2, 7, 8, 9]), options))
        }),
        case("avg_pool2d", &[2 * 3 * 9 * 11], |x| {
            let options = AvgPoolOptions {
                padding: [(1, 1); 2],
                count_include_pad: false,
                ..AvgPoolOptions::new([3; 2])
            };
            flat(avg_pool2d(x[0].clone().reshape([2, 3, 9, 11]), options))
        }),
        case("avg_pool3d", &[2 * 7 * 8 * 9], |x| {
            let options = AvgPoolOptions {
                stride: [2; 3],
                padding: [(1, 1); 3],
                count_include_pad: false,
                ..AvgPoolOptions::new([3; 3])
            };
            flat(avg_pool3d(x[0].clone().reshape([1, 2, 7, 8, 9]), options))
        }),
        case("adaptive_avg_pool2d", &[2 * 3 * 9 * 11], |x| {
            flat(adaptive_avg_pool2d(x[0].clone().reshape([2, 3, 9, 11]), [4, 1]))
        }),
        case("adaptive_avg_pool3d", &[2 * 7 * 8 * 9], |x| {
            flat(adaptive_avg_pool3d(x[0].clone().reshape([1, 2, 7, 8, 9]), [1; 3]))
        }),
        case("join_channels", &[2 * 3 * 35, 2 * 4 * 35], |x| {
            flat(join_channels(x[0].clone().reshape([2, 3, 5, 7]), x[1].clone().reshape([2, 4, 5, 7])))
        }),
        case("gelu", &[100], |x| gelu(x[0].clone())),
        case("scaled_residual", &[2 * 3 * 35, 2 * 3 * 35, 3], |x| {
            let [a, b] = [&x[0], &x[1]].map(|t| t.clone().reshape([2, 3, 5, 7]));
            flat(scaled_residual(a, b, x[2].clone()))
        }),
    ];
    for mode in [Mode::Nearest, Mode::Linear { align_corners: false }, Mode::Linear { align_corners: true }] {
        all.push(case("interpolate2d", &[2 * 3 * 5 * 7], move |x| {
            flat(interpolate2d(x[0].clone().reshape([2, 3, 5, 7]), [10, 4], mode))
        }));
        // A ratio at which f32 rounds across an element.
        all.push(case("interpolate2d 14 to 46", &[2 * 14], move |x| {
            flat(interpolate2d(x[0].clone().reshape([1, 1, 2, 14]), [2, 46], mode))
        }));
        all.push(case("interpolate3d", &[2 * 3 * 5 * 7], move |x| {
            flat(interpolate3d(x[0].clone().reshape([1, 2, 3, 5, 7]), [6, 5, 15], mode))
        }));
    }
    for act in norms {
        let lengths = [3 * 4 * 30, 4, 4];
        all.push(case("batch_norm_train", &lengths, move |x| {
            let x4 = x[0].clone().reshape([3, 4, 5, 6]);
            flat(batch_norm_train(x4, x[1].clone(), x[2].clone(), 1e-5, act).output)
        }));
        all.push(case("batch_norm", &[lengths[0], 4, 4, 4], move |x| {
            let x4 = x[0].clone().reshape([3, 4, 5, 6]);
            let mean = x[3].clone().detach();
            let variance = mean.clone() * mean.clone() + 0.5;
            flat(batch_norm(x4, x[1].clone(), x[2].clone(), mean, variance, 1e-5, act))
        }));
        all.push(case("group_norm", &lengths, move |x| {
            flat(group_norm(x[0].clone().reshape([3, 4, 5, 6]), x[1].clone(), x[2].clone(), 2, 1e-5, act))
        }));
        all.push(case("layer_norm", &[3 * 4 * 30, 30, 30], move |x| {
            flat(layer_norm(x[0].clone().reshape([3, 4, 30]), x[1].clone(), x[2].clone(), 1e-5, act))
        }));
        all.push(case("layer_norm_channels", &lengths, move |x| {
            flat(layer_norm_channels(
                x[0].clone().reshape([3, 4, 5, 6]),
                x[1].clone(),
                x[2].clone(),
                1e-5,
                act,
            ))
        }));
        all.push(case("activation", &[100], move |x| activation(x[0].clone(), act)));
    }
    all
}

#[test]
fn outputs_and_gradients_are_those_of_burn_in_f64_whichever_inputs_are_tracked() {
    for case in cases() {
        let inputs: Vec<Tensor<1>> = case.1.iter().map(|n| random(*n)).collect();
        let output = case.2(&inputs);
        let weight = random(output.dims()[0]);
        let wide = |t: &Tensor<1>| t.clone().cast(DType::F64);
        let all = vec![true; inputs.len()];
        let wide_inputs: Vec<Tensor<1>> = inputs.iter().map(wide).collect();
        let (y64, g64) = run(&case, &wide_inputs, &all, &wide(&weight));
        let (y, g) = run(&case, &inputs, &all, &weight);
        close(case.0, "output", &y, &y64);
        for (i, (g, g64)) in g.iter().zip(&g64).enumerate() {
            match (g, g64) {
                (Some(g), Some(g64)) => close(case.0, &format!("gradient {i}"), g, g64),
                // Statistics of a norm are constants.
                (None, None) => assert_eq!((case.0, i), ("batch_norm", 3)),
                _ => panic!("{}: gradient {i} is there in one type only", case.0),
            }
        }
        // Every choice of tracked inputs gives the same gradients for those.
        for bits in 1..(1usize << inputs.len()) - 1 {
            let tracked: Vec<bool> = (0..inputs.len()).map(|i| bits >> i & 1 == 1).collect();
            if (0..inputs.len()).all(|i| !tracked[i] || g[i].is_none()) {
                continue;
            }
            let (_, some) = run(&case, &inputs, &tracked, &weight);
            for (i, tracked) in tracked.into_iter().enumerate() {
                let expected = if tracked { g[i].as_ref() } else { None };
                assert_eq!(some[i].as_ref(), expected, "{}: gradient {i}, tracked {bits:b}", case.0);
            }
        }
    }
}

#[test]
fn views_are_read_as_what_they_show() {
    let x = random(2 * 9 * 8 * 3).reshape([2, 9, 8, 3]).swap_dims(1, 3).slice([0..2, 0..3, 1..7, 2..9]);
    let w = random(9 * 4 * 3).reshape([3, 3, 3, 4]).swap_dims(0, 3);
    let options = ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
    let copied = |t: &Tensor<4>| Tensor::<4>::from_data(t.clone().into_data(), &Device::flex());
    let of_view = conv2d(x.clone(), w.clone(), None, options.clone());
    let of_copy = conv2d(copied(&x), copied(&w), None, options);
    assert_eq!(of_view.into_data(), of_copy.into_data());
}

#[test]
fn a_tensor_used_twice_gets_the_sum_of_its_gradients() {
    let device = Device::flex().autodiff();
    let x = Tensor::<4>::random([1, 2, 6, 6], Distribution::Default, &device).require_grad();
    let w = Tensor::<4>::random([2, 2, 3, 3], Distribution::Default, &device);
    let options = ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
    let once = conv2d(x.clone(), w.clone(), None, options.clone()).sum().backward();
    let y = conv2d(x.clone(), w.clone(), None, options.clone()) + conv2d(x.clone(), w, None, options);
    let twice = y.sum().backward();
    let [once, twice] = [once, twice].map(|g| values(flat(x.grad(&g).unwrap())));
    close("conv2d", "gradient", &twice, &once.iter().map(|g| 2.0 * g).collect::<Vec<_>>());
}

#[test]
fn statistics_of_the_batch_are_its_mean_and_biased_variance_without_gradient() {
    let device = Device::flex().autodiff();
    let x = Tensor::<3>::from_floats([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 6.0], [1.0, -1.0]]], &device);
    let (one, zero) = (Tensor::ones([2], &device), Tensor::zeros([2], &device));
    let out = batch_norm_train(x.require_grad(), one, zero, 1e-5, Identity);
    assert!(!out.mean.is_autodiff() && !out.variance.is_autodiff());
    assert_eq!(values(out.mean), [3.0, 0.0]);
    assert_eq!(values(out.variance), [3.5, 0.5]);
}

#[test]
fn an_update_changes_nothing_that_somebody_else_holds() {
    let make = |x: f32| Tensor::<1>::full([1000], x, &Device::flex());
    let mut updates = [AdamWUpdate {
        parameter: make(1.0),
        gradient: make(0.5),
        mean: make(0.0),
        square: make(0.0),
        updates: 1,
        rate: 0.1,
    }];
    let (held, gradient) = (updates[0].parameter.clone(), updates[0].gradient.clone());
    let sizes = adamw(&AdamW::default(), &mut updates, true);
    assert_eq!(values(held), vec![1.0; 1000]);
    assert_eq!(values(gradient), vec![0.5; 1000]);
    // The first step of Adam is the rate, against the sign of the gradient; the decay is 0.1 * 0.01.
    close("adamw", "parameter", &values(updates[0].parameter.clone()), &vec![1.0 - 0.1 - 0.001; 1000]);
    assert!((sizes[0].change - 1000.0 * 0.101f64.powi(2)).abs() < 1e-3, "{}", sizes[0].change);
    // And in f64, by Burn's operators, the same.
    let wide = |t: Tensor<1>| t.cast(DType::F64);
    let mut again = [AdamWUpdate {
        parameter: wide(make(1.0)),
        gradient: wide(make(0.5)),
        mean: wide(make(0.0)),
        square: wide(make(0.0)),
        updates: 1,
        rate: 0.1,
    }];
    adamw(&AdamW::default(), &mut again, false);
    close("adamw", "parameter", &values(updates[0].parameter.clone()), &values(again[0].parameter.clone()));
    close("adamw", "moment", &values(updates[0].square.clone()), &values(again[0].square.clone()));
}

#[test]
fn sgd_on_the_cpu_is_sgd_by_burns_operators() {
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let constants = Sgd { momentum, dampening: 0.0, nesterov, weight_decay: 0.01 };
        let start = random(1000);
        let mut both = [start.clone(), start.cast(DType::F64)].map(|parameter| {
            let gradient = parameter.clone() * 0.3 + 0.1;
            [SgdUpdate { parameter, gradient, velocity: None, updates: 1, rate: 0.1 }]
        });
        for step in 1..=3 {
            for updates in &mut both {
                updates[0].updates = step;
                sgd(&constants, updates);
            }
        }
        let [ours, reference] = both.map(|[u]| values(u.parameter));
        close("sgd", "parameter", &ours, &reference);
    }
}

#[test]
fn tensors_of_an_autodiff_device_are_updated_too() {
    let device = Device::flex().autodiff();
    let make = |x: f32| Tensor::<1>::full([10], x, &device);
    let mut updates = [AdamWUpdate {
        parameter: make(1.0),
        gradient: make(0.5),
        mean: make(0.0),
        square: make(0.0),
        updates: 1,
        rate: 0.1,
    }];
    adamw(&AdamW::default(), &mut updates, false);
    close("adamw", "parameter", &values(updates[0].parameter.clone()), &[0.899; 10]);
    assert!((sum_of_squares([&make(2.0)]) - 40.0).abs() < 1e-6);
}

#[test]
#[should_panic(expected = "the second tensor is F64 where the first is F32")]
fn a_weight_of_another_type_is_named() {
    let w = Tensor::<4>::ones([2, 2, 3, 3], &Device::flex()).cast(DType::F64);
    conv2d(Tensor::ones([1, 2, 8, 8], &Device::flex()), w, None, ConvOptions::new([1; 2], [1; 2], [1; 2], 1));
}

#[test]
#[should_panic(
    expected = "conv2d: an input of [1, 3, 8, 8] has 3 channels, a weight of [4, 2, 3, 3] takes 2"
)]
fn channels_that_do_not_fit_are_named() {
    let device = Device::flex();
    let (x, w) = (Tensor::<4>::ones([1, 3, 8, 8], &device), Tensor::ones([4, 2, 3, 3], &device));
    conv2d(x, w, None, ConvOptions::new([1; 2], [1; 2], [1; 2], 1));
}

#[test]
#[should_panic(
    expected = "conv2d: a kernel of [1, 5, 5] with dilation [1, 1, 1] is larger than the input of [1, 3, 3]"
)]
fn a_kernel_larger_than_the_image_is_named() {
    let device = Device::flex();
    let (x, w) = (Tensor::<4>::ones([1, 1, 3, 3], &device), Tensor::ones([1, 1, 5, 5], &device));
    conv2d(x, w, None, ConvOptions::new([1; 2], [0; 2], [1; 2], 1));
}

#[test]
#[should_panic(expected = "conv_transpose2d: nothing is left of 1 positions without padding 1")]
fn a_transposed_convolution_without_output_is_named() {
    let device = Device::flex();
    let (x, w) = (Tensor::<4>::ones([1, 1, 1, 1], &device), Tensor::ones([1, 1, 1, 1], &device));
    conv_transpose2d(x, w, None, ConvTransposeOptions::new([1; 2], [1; 2], [0; 2], [1; 2], 1));
}

#[test]
#[should_panic(expected = "3 scales for [2, 6, 5]")]
fn scales_that_are_not_one_a_channel_are_named() {
    let device = Device::flex();
    let x = Tensor::<3>::ones([2, 6, 5], &device);
    scaled_residual(x.clone(), x, Tensor::ones([3], &device));
}

#[test]
fn gradient_checkpointing_gives_the_same_gradients() {
    let gradients =
        [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()].map(|device| {
            device.seed(3);
            let x = Tensor::<4>::random([2, 3, 8, 8], Distribution::Default, &device).require_grad();
            let w = Tensor::<4>::random([4, 3, 3, 3], Distribution::Default, &device).require_grad();
            let (one, zero) = (Tensor::ones([4], &device), Tensor::zeros([4], &device));
            let y = conv2d(x.clone() * 2.0, w.clone(), None, ConvOptions::new([1; 2], [1; 2], [1; 2], 1));
            let y = batch_norm_train(y, one, zero, 1e-5, Relu).output;
            let g = (max_pool2d(y, MaxPoolOptions::new([2; 2])).powi_scalar(2)).sum().backward();
            [values(flat(x.grad(&g).unwrap())), values(flat(w.grad(&g).unwrap()))]
        });
    assert_eq!(gradients[0], gradients[1]);
}

#[test]
fn averages_and_norms_are_what_they_say_and_leave_shared_tensors_alone() {
    let (target, source) = (random(1000), random(1000));
    let held = target.clone();
    let before = values(held.clone());
    let expected: Vec<f64> =
        before.iter().zip(values(source.clone())).map(|(t, s)| 0.9 * t + 0.1 * s).collect();
    let averaged = average(vec![(target.clone(), source.clone())], 0.9).remove(0);
    close("average", "target", &values(averaged), &expected);
    let doubled: Vec<f64> = before.iter().map(|v| 2.0 * v).collect();
    close("scale", "target", &values(scale(vec![target.clone()], 2.0).remove(0)), &doubled);
    assert_eq!(values(held), before);
    let sum: f64 = before.iter().chain(&values(source.clone())).map(|v| v * v).sum();
    assert!((sum_of_squares([&target, &source]) - sum).abs() < 1e-6 * sum);
    assert_eq!(sum_of_squares([]), 0.0);
}

#[test]
fn an_empty_batch_goes_through_forward_and_backward() {
    let device = Device::flex().autodiff();
    let x = Tensor::<4>::zeros([0, 3, 8, 8], &device).require_grad();
    let w = Tensor::<4>::ones([4, 3, 3, 3], &device).require_grad();
    let y = conv2d(x.clone(), w.clone(), None, ConvOptions::new([1; 2], [1; 2], [1; 2], 1));
    assert_eq!(y.dims(), [0, 4, 8, 8]);
    let gradients = max_pool2d(y, MaxPoolOptions::new([2; 2])).sum().backward();
    assert_eq!(x.grad(&gradients).unwrap().dims(), [0, 3, 8, 8]);
    assert_eq!(values(flat(w.grad(&gradients).unwrap())), vec![0.0; 108]);
}
