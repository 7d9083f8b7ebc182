//! The U-Net against PyTorch (`goldens/unet2d_steps.py`): parameters, 20 training steps, inference; its running
//! statistics, freezing and weights files.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::Deserialize;
use trimtab_nn::losses::{dice_loss, focal_loss};
use trimtab_nn::models::unet2d::{UNet2d, UNet2dConfig, group_of};
use trimtab_nn::optim::{AdamW, AdamWConfig, Buffers, average, clip_by_global_norm, global_norm};
use trimtab_nn::params::{self, WeightsError, WeightsFile};

#[derive(Deserialize)]
struct Golden {
    float32: Run,
    parameters: u64,
}
#[derive(Deserialize)]
struct Run {
    loss: Vec<f64>,
    gradient_norm: Vec<f64>,
    eval_mean: f64,
    eval_first: Vec<f64>,
}

/// As `goldens/unet2d.py`.
struct Lcg(u64);
impl Lcg {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / f64::from(1 << 23) - 1.0
    }
    fn vec(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.next()).collect()
    }
}

fn unet(base: usize, device: &Device) -> UNet2d {
    UNet2dConfig { input: 1, output: 1, base }.init(device, &mut ChaCha8Rng::seed_from_u64(1))
}

fn fill(net: UNet2d, seed: u64) -> UNet2d {
    let mut rng = Lcg(seed);
    let device = Device::flex();
    let shapes: BTreeMap<String, Vec<usize>> = shapes(&net);
    let values = params::flat(&net)
        .iter()
        .filter(|(path, _)| !params::is_buffer(path))
        .map(|(path, tensor)| {
            let u = rng.vec(tensor.dims()[0]);
            let fan_in = shapes[path].iter().skip(1).product::<usize>() as f64;
            let value: Vec<f32> = u
                .into_iter()
                .map(|u| match (path.contains("norm"), shapes[path].len() > 1) {
                    (true, _) => u / 10.0 + if path.ends_with("weight") { 1.0 } else { 0.0 },
                    (false, true) => u / fan_in.sqrt(),
                    (false, false) => u / 10.0,
                } as f32)
                .collect();
            (path.clone(), Tensor::<1>::from_floats(value.as_slice(), &device))
        })
        .collect();
    params::copy(net, &values)
}

fn shapes(net: &UNet2d) -> BTreeMap<String, Vec<usize>> {
    let bytes = params::to_safetensors(net, &BTreeMap::new());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect()
}

/// 5x5 mean with zero padding, divided by 25 everywhere, as `avg_pool2d(x, 5, 1, 2)`.
fn smooth(x: &[f64], b: usize, size: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for n in 0..b {
        for y in 0..size as isize {
            for x0 in 0..size as isize {
                let mut sum = 0.0;
                for dy in -2..=2 {
                    for dx in -2..=2 {
                        let (yy, xx) = (y + dy, x0 + dx);
                        if (0..size as isize).contains(&yy) && (0..size as isize).contains(&xx) {
                            sum += x[n * size * size + yy as usize * size + xx as usize];
                        }
                    }
                }
                out.push(sum / 25.0);
            }
        }
    }
    out
}

fn tensor4(values: &[f64], shape: [usize; 4], device: &Device) -> Tensor<4> {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[test]
fn base_64_has_31_042_369_parameters() {
    let counts = params::parameter_counts(&unet(64, &Device::flex()), group_of);
    assert_eq!(counts.values().sum::<u64>(), 31_042_369);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["decoder", "encoder", "head"]);
}

#[test]
fn twenty_steps_of_adamw_with_clipping_equal_pytorch() {
    let golden: Golden = serde_json::from_str(include_str!("../../../goldens/unet2d_steps.json")).unwrap();
    let device = Device::flex().autodiff();
    let mut net = fill(unet(4, &device), 1);
    assert_eq!(params::parameter_counts(&net, group_of).values().sum::<u64>(), golden.parameters);
    let mut optimizer = AdamW::new(AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() });
    let mut rng = Lcg(2);
    for step in 0..20 {
        let x = rng.vec(2 * 32 * 32);
        let s = smooth(&x, 2, 32);
        let valid: Vec<f64> = s.iter().map(|s| f64::from(s.abs() > 0.01)).collect();
        let target: Vec<f64> = s.iter().zip(&valid).map(|(s, v)| f64::from(*s > 0.05) * v).collect();
        let shape = [2, 1, 32, 32];
        let logits = net.forward_train(tensor4(&x, shape, &device));
        let (t, v) = (tensor4(&target, shape, &device), tensor4(&valid, shape, &device));
        let loss = focal_loss(logits.clone(), t.clone(), v.clone(), 0.7, 2.0, 1.0) * 0.7
            + dice_loss(logits, t, v, 1.0) * 0.3;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let mut gradients = params::gradients(&net, loss.backward());
        let norm = global_norm(&gradients);
        clip_by_global_norm(&mut gradients, norm, 0.05);
        net = optimizer.step(net, gradients, |_| 1e-3, None).0;
        assert!(
            (value - golden.float32.loss[step]).abs() < 1e-4,
            "step {step}: {value} against {}",
            golden.float32.loss[step]
        );
        let theirs = golden.float32.gradient_norm[step];
        assert!((norm - theirs).abs() < 5e-3 * theirs, "step {step}: gradient norm {norm} against {theirs}");
    }
    // Inference: the running statistics agree too.
    let plain = Device::flex();
    let net = params::copy(unet(4, &plain), &params::flat(&net));
    let logits: Vec<f32> = net
        .forward(tensor4(&Lcg(3).vec(32 * 48), [1, 1, 32, 48], &plain))
        .into_data()
        .try_into_vec()
        .unwrap();
    let mean = logits.iter().map(|v| f64::from(*v)).sum::<f64>() / logits.len() as f64;
    assert!((mean - golden.float32.eval_mean).abs() < 1e-3, "{mean} against {}", golden.float32.eval_mean);
    for (ours, theirs) in logits.iter().zip(&golden.float32.eval_first) {
        assert!((f64::from(*ours) - theirs).abs() < 5e-3, "{ours} against {theirs}");
    }
}

#[test]
fn one_seed_gives_one_network_and_training_repeats_bit_for_bit() {
    let run = || {
        let device = Device::flex().autodiff();
        let mut net = unet(2, &device);
        let mut optimizer = AdamW::new(AdamWConfig::default());
        let x = tensor4(&Lcg(5).vec(2 * 16 * 16), [2, 1, 16, 16], &device);
        for _ in 0..3 {
            let loss = net.forward_train(x.clone()).powf_scalar(2.0).mean();
            let gradients = params::gradients(&net, loss.backward());
            net = optimizer.step(net, gradients, |_| 1e-2, Some(group_of)).0;
        }
        params::to_safetensors(&net, &BTreeMap::new())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_frozen_encoder_neither_learns_nor_moves_its_statistics() {
    let device = Device::flex().autodiff();
    let mut net = unet(2, &device).set_encoder_frozen(true);
    let before = params::flat(&net);
    let x = tensor4(&Lcg(5).vec(2 * 16 * 16), [2, 1, 16, 16], &device);
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let mut train = |mut net: UNet2d| {
        let loss = net.forward_train(x.clone()).powf_scalar(2.0).mean();
        let gradients = params::gradients(&net, loss.backward());
        let trained: Vec<String> = gradients.keys().cloned().collect();
        (optimizer.step(net, gradients, |_| 1e-2, None).0, trained)
    };
    let (after, trained);
    (net, trained) = train(net);
    after = params::flat(&net);
    assert!(trained.iter().all(|path| !path.starts_with("encoder")));
    for (path, old) in &before {
        let same = old.clone().into_data() == after[path].clone().into_data();
        assert_eq!(same, path.starts_with("encoder"), "{path}");
    }
    let (_, trained) = train(net.set_encoder_frozen(false));
    assert!(trained.iter().any(|path| path.starts_with("encoder")));
    assert!(trained.iter().all(|path| !params::is_buffer(path)));
}

#[test]
fn an_average_follows_the_live_weights_without_touching_them() {
    let (live, start) = (unet(2, &Device::flex()), fill(unet(2, &Device::flex()), 9));
    let live_flat = params::flat(&live);
    let value =
        |flat: &params::Flat, path: &str| flat[path].clone().into_data().try_into_vec::<f32>().unwrap()[0];
    let (path, buffer) = ("head.weight", "encoder.0.norm1.running_var");
    let (old, new) = (value(&params::flat(&start), path), value(&live_flat, path));
    let averaged = params::flat(&average(start.clone(), &live_flat, 0.75, Buffers::Copy));
    assert!((value(&averaged, path) - (0.75 * old + 0.25 * new)).abs() < 1e-6);
    assert_eq!(value(&averaged, buffer), value(&live_flat, buffer));
    let copied = params::flat(&average(start, &live_flat, 0.0, Buffers::Average));
    assert_eq!(value(&copied, path), new);
    assert_eq!(value(&params::flat(&live), path), new);
}

#[test]
fn weights_and_optimizer_survive_a_file_bit_for_bit() {
    let device = Device::flex().autodiff();
    let x = tensor4(&Lcg(5).vec(2 * 16 * 16), [2, 1, 16, 16], &device);
    let step = |mut net: UNet2d, optimizer: &mut AdamW| {
        let loss = net.forward_train(x.clone()).powf_scalar(2.0).mean();
        let gradients = params::gradients(&net, loss.backward());
        optimizer.step(net, gradients, |_| 1e-2, None).0
    };
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let mut net = step(unet(2, &device), &mut optimizer);
    net = step(net, &mut optimizer);

    let dir = tempfile::tempdir().unwrap();
    let (weights, moments) = (dir.path().join("model.safetensors"), dir.path().join("optimizer.safetensors"));
    std::fs::write(&weights, params::to_safetensors(&net, &BTreeMap::new())).unwrap();
    std::fs::write(&moments, params::flat_to_safetensors(&optimizer.state(), &BTreeMap::new())).unwrap();

    let loaded = WeightsFile::read(&weights).unwrap().load(fill(unet(2, &device), 4)).unwrap();
    let mut restored = AdamW::new(AdamWConfig::default());
    let plain = Device::flex();
    restored.restore(WeightsFile::read(&moments).unwrap().flat(&plain), &plain);
    let (straight, resumed) = (step(net, &mut optimizer), step(loaded, &mut restored));
    let bytes = |net: &UNet2d| params::to_safetensors(net, &BTreeMap::new());
    assert_eq!(bytes(&straight), bytes(&resumed));
}

#[test]
fn weights_of_another_architecture_or_a_damaged_file_are_refused_with_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let bytes = params::to_safetensors(&unet(4, &Device::flex()), &BTreeMap::new());
    std::fs::write(&path, &bytes).unwrap();
    let error = WeightsFile::read(&path).unwrap().load(unet(2, &Device::flex())).unwrap_err();
    assert!(matches!(error, WeightsError::Architecture { .. }));
    let text = error.to_string();
    assert!(text.contains("another architecture") && text.contains("another shape"), "{text}");
    for end in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..end]).unwrap();
        assert!(matches!(WeightsFile::read(&path), Err(WeightsError::Format { .. })), "cut at {end}");
    }
}
