//! A checkpoint opens in PyTorch (`goldens/unet2d_checkpoint.py`). Skipped without a Python that has torch.

use std::collections::BTreeMap;
use std::process::Command;

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use trimtab_nn::models::unet2d::UNet2dConfig;
use trimtab_nn::optim::{AdamW, AdamWConfig};
use trimtab_nn::params;

/// A `.npy` file of f32, version 1.0.
fn npy(values: &[f32], shape: [usize; 4]) -> Vec<u8> {
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}, {}, {}), }}",
        shape[0], shape[1], shape[2], shape[3]
    );
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

#[test]
fn a_trained_checkpoint_gives_the_same_output_in_pytorch() {
    let python = std::env::var("TRIMTAB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let there =
        Command::new(&python).args(["-c", "import torch, numpy"]).output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("skipped: {python} has no torch; set TRIMTAB_PYTHON");
        return;
    }
    let device = Device::flex().autodiff();
    let config = UNet2dConfig { input: 1, output: 1, base: 4 };
    let mut net = config.init(&device, &mut ChaCha8Rng::seed_from_u64(3));
    let shape = [2, 1, 48, 32];
    let mut state = 9u64;
    let mut values = || -> Vec<f32> {
        (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    };
    // A few steps, so that running statistics and biases are not those of the start.
    let mut optimizer = AdamW::new(AdamWConfig::default());
    for _ in 0..3 {
        let x = Tensor::<4>::from_data(TensorData::new(values(), shape), &device);
        let loss = (net.forward_train(x) - 0.7).powf_scalar(2.0).mean();
        let gradients = params::gradients(&net, loss.backward());
        net = optimizer.step(net, gradients, |_| 1e-2, None).0;
    }
    let plain = Device::flex();
    let net = params::copy(config.init(&plain, &mut ChaCha8Rng::seed_from_u64(3)), &params::flat(&net));
    let input = values();
    let x = Tensor::<4>::from_data(TensorData::new(input.clone(), shape), &plain);
    let output: Vec<f32> = net.forward(x).into_data().try_into_vec().unwrap();

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), params::to_safetensors(&net, &BTreeMap::new()))
        .unwrap();
    std::fs::write(dir.path().join("input.npy"), npy(&input, shape)).unwrap();
    std::fs::write(dir.path().join("output.npy"), npy(&output, shape)).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/unet2d_checkpoint.py");
    let out = Command::new(&python).arg(script).arg(dir.path()).arg("4").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    eprintln!("{text}");
}
