//! Layers: parameters under PyTorch's names and shapes, initial ranges, and what the geometry makes of an input.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use trimtab_nn::layers::Activation::{Identity, Relu};
use trimtab_nn::layers::{BatchNorm2d, ConvConfig, ConvTranspose3d, GroupNorm, LayerNormChannels};
use trimtab_nn::params;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn device() -> Device {
    Device::flex()
}

/// Names, lengths and largest magnitudes of the parameters.
fn parameters(module: &impl Module) -> Vec<(String, usize, f32)> {
    params::flat(module)
        .into_iter()
        .map(|(path, t)| (path, t.dims()[0], t.abs().max().into_scalar::<f32>()))
        .collect()
}

#[test]
fn convolutions_have_pytorchs_parameters_drawn_from_pytorchs_range() {
    let grouped = ConvConfig { groups: 4, stride: 2, ..ConvConfig::same(8, 12, 3) };
    // U(-b, b) with b = 1 / sqrt(inputs of a group x taps).
    let found = parameters(&grouped.init2d(&device(), &mut rng()));
    assert_eq!(
        found.iter().map(|(p, n, _)| (p.as_str(), *n)).collect::<Vec<_>>(),
        [("bias", 12), ("weight", 216)]
    );
    let bound = 1.0 / (2.0f32 * 9.0).sqrt();
    assert!(found.iter().all(|(.., most)| *most <= bound && *most > 0.7 * bound), "{found:?}, bound {bound}");

    let without = ConvConfig { bias: false, ..ConvConfig::same(2, 3, 3) };
    let found = parameters(&without.init3d(&device(), &mut rng()));
    assert_eq!(found.iter().map(|(p, n, _)| (p.as_str(), *n)).collect::<Vec<_>>(), [("weight", 162)]);

    // PyTorch takes the output channels as fan-in here.
    let found = parameters(&ConvTranspose3d::init(6, 2, &device(), &mut rng()));
    let bound = 1.0 / 16f32.sqrt();
    // Of two values the larger may be small.
    assert!(found.iter().all(|(_, n, most)| *most <= bound && (*most > 0.7 * bound || *n < 10)), "{found:?}");
}

#[test]
fn geometry_decides_the_size_of_the_output() {
    let config = ConvConfig { stride: 2, padding: 2, dilation: 2, ..ConvConfig::same(2, 3, 3) };
    let flat = config.init2d(&device(), &mut rng()).forward(Tensor::ones([1, 2, 9, 12], &device()));
    assert_eq!(flat.dims(), [1, 3, 5, 6]);
    let solid = config.init3d(&device(), &mut rng()).forward(Tensor::ones([1, 2, 5, 9, 12], &device()));
    assert_eq!(solid.dims(), [1, 3, 3, 5, 6]);
    let up = ConvTranspose3d::init(2, 3, &device(), &mut rng());
    assert_eq!(up.forward(Tensor::ones([1, 2, 3, 4, 5], &device())).dims(), [1, 3, 6, 8, 10]);
}

#[test]
fn norms_normalise_what_they_say() {
    // Two channels of one sample, far apart.
    let x = Tensor::<4>::from_floats([[[[1.0, 3.0]], [[100.0, 104.0]]]], &device());
    let values = |t: Tensor<4>| -> Vec<f32> {
        t.into_data().try_into_vec::<f32>().unwrap().iter().map(|v| (v * 100.0).round() / 100.0).collect()
    };
    let instance = GroupNorm::init(2, 2, &device());
    assert_eq!(values(instance.forward(x.clone(), Identity)), [-1.0, 1.0, -1.0, 1.0]);
    assert_eq!(values(instance.forward(x.clone(), Relu)), [0.0, 1.0, 0.0, 1.0]);
    let whole = GroupNorm::init(1, 2, &device());
    assert_eq!(values(whole.forward(x.clone(), Identity)), [-1.02, -0.98, 0.96, 1.04]);
    let across = LayerNormChannels::init(2, 1e-6, &device());
    assert_eq!(values(across.forward(x)), [-1.0, -1.0, 1.0, 1.0]);
}

#[test]
#[should_panic(expected = "3 groups do not divide 4 channels")]
fn groups_that_do_not_divide_the_channels_are_named() {
    GroupNorm::init(3, 4, &device());
}

#[test]
fn an_empty_batch_leaves_the_running_statistics_alone() {
    let mut norm = BatchNorm2d::init(2, &device());
    norm.forward_train(Tensor::<4>::ones([1, 2, 3, 3], &device()) * 5.0, Relu);
    let before = parameters(&norm);
    assert_eq!(norm.forward_train(Tensor::ones([0, 2, 3, 3], &device()), Relu).dims(), [0, 2, 3, 3]);
    assert_eq!(parameters(&norm), before);
}

#[test]
fn convolutions_in_bf16_are_near_those_in_f32_and_give_f32_gradients() {
    use burn::tensor::DType;

    let tracked = device().autodiff();
    let values = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).sin()).collect::<Vec<f32>>();
    let x = Tensor::<1>::from_floats(values(2 * 3 * 64).as_slice(), &tracked).reshape([2, 3, 4, 4, 4]);
    let mut rng = rng();
    let mut conv = ConvConfig::same(3, 4, 3).init3d(&tracked, &mut rng);
    let mut up = ConvTranspose3d::init(4, 2, &tracked, &mut rng);
    let full = up.forward(conv.forward(x.clone()));
    (conv.half, up.half) = (true, true);
    let half = up.forward(conv.forward(x));
    assert_eq!(half.dtype(), DType::F32);
    let difference = (half.clone() - full.clone()).abs().max().into_scalar::<f32>();
    let largest = full.abs().max().into_scalar::<f32>();
    assert!(difference > 0.0 && difference < 0.02 * largest, "{difference} of {largest}");
    let gradients = (half.clone() * half).sum().backward();
    for dtype in
        [conv.weight.val().grad(&gradients).unwrap().dtype(), up.bias.val().grad(&gradients).unwrap().dtype()]
    {
        assert_eq!(dtype, DType::F32);
    }
}
