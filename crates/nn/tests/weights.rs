//! Weights of other programs: both containers of `torch.save` (`goldens/pth.py`), safetensors of every float type, names,
//! channels, what does not match, and damaged files.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::{Device, Tensor};
use common::{Lcg, fill};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;
use trimtab_nn::models::resnet3d::{Depth, ResNet3d, ResNet3dConfig};
use trimtab_nn::params::{self, WeightsError, WeightsFile};
use trimtab_nn::weights::{Fit, Names, load, read};

#[derive(Deserialize)]
struct Golden {
    size: [usize; 3],
    features: Vec<f64>,
    tensors: usize,
}

fn golden(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens")).join(file)
}

/// A network whose logits are its pooled features: the classifier is the identity.
fn features_of(config: ResNet3dConfig) -> ResNet3d {
    let n = config.features();
    let config = ResNet3dConfig { classes: n, normalised_head: false, ..config };
    let net = fill(config.init(&Device::flex(), &mut ChaCha8Rng::seed_from_u64(1)), 9);
    let identity: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % (n + 1) == 0))).collect();
    let values = [
        ("fc.weight".to_owned(), Tensor::<1>::from_floats(identity.as_slice(), &Device::flex())),
        ("fc.bias".to_owned(), Tensor::zeros([n], &Device::flex())),
    ];
    params::copy(net, &values.into_iter().collect())
}

fn small(input: usize) -> ResNet3d {
    let config = ResNet3dConfig { width: 2, ..ResNet3dConfig::new(Depth::D10, input, 1) };
    features_of(config)
}

fn fit(least_share: f64) -> Fit {
    Fit { repeat_channels: vec!["conv1.weight".to_owned()], least_share, counted: |_| true }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn check(net: &ResNet3d, x: Tensor<5>, expected: &[f64]) {
    let found = values(net.forward(x));
    assert_eq!(found.len(), expected.len());
    for (ours, theirs) in found.iter().zip(expected) {
        assert!((f64::from(*ours) - theirs).abs() < 1e-4 * theirs.abs().max(1.0), "{ours} against {theirs}");
    }
}

#[test]
fn a_checkpoint_of_either_container_gives_pytorchs_features() {
    let expected: Golden =
        serde_json::from_str(&std::fs::read_to_string(golden("pth.json")).unwrap()).unwrap();
    let [d, h, w] = expected.size;
    let x = Lcg(2).tensor([2, 1, d, h, w], &Device::flex());
    for file in ["pth_zip.pth", "pth_legacy.pth"] {
        for top_level_key in [None, Some("state_dict".to_owned())] {
            let weights = read(&golden(file), &Names { top_level_key, ..Names::default() }).unwrap();
            let (net, report) = load(small(1), &weights, &fit(0.9)).unwrap();
            assert_eq!(report.matched, expected.tensors, "{file}");
            assert_eq!(report.missing, ["fc.weight", "fc.bias"], "{file}");
            assert!(report.unexpected.is_empty() && report.mismatched.is_empty(), "{file}: {report}");
            check(&net, x.clone(), &expected.features);
        }
    }
}

#[test]
fn one_channel_serves_many_by_being_repeated() {
    let weights = read(&golden("pth_zip.pth"), &Names::default()).unwrap();
    let x = Lcg(2).tensor([1, 1, 16, 16, 16], &Device::flex());
    let (one, _) = load(small(1), &weights, &fit(0.9)).unwrap();
    let (four, report) = load(small(4), &weights, &fit(0.9)).unwrap();
    assert!(report.mismatched.is_empty() && report.missing.len() == 2, "{report}");
    let repeated = x.clone().repeat_dim(1, 4);
    for (a, b) in values(one.forward(x)).iter().zip(values(four.forward(repeated))) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    // Only where it is asked for.
    let strict = Fit { repeat_channels: Vec::new(), least_share: 0.5, counted: |_| true };
    let (_, report) = load(small(4), &weights, &strict).unwrap();
    assert_eq!(report.mismatched, [("conv1.weight".to_owned(), vec![2, 4, 7, 7, 7], vec![2, 1, 7, 7, 7])]);
    // And back: the file of four channels serves one by the first of them, scaled.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), params::to_safetensors(&four, &Default::default())).unwrap();
    let (back, _) = load(small(1), &read(file.path(), &Names::default()).unwrap(), &fit(1.0)).unwrap();
    let [back, one] = [back, one].map(|net| values(params::flat(&net)["conv1.weight"].clone()));
    assert!(back.iter().zip(&one).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn too_few_matches_are_refused_with_names_and_what_does_not_match_stays() {
    let weights = read(&golden("pth_zip.pth"), &Names { strip: Vec::new(), ..Names::default() }).unwrap();
    let error = load(small(1), &weights, &fit(0.5)).unwrap_err();
    assert!(matches!(error, WeightsError::TooFew { share: 0.0, .. }));
    let text = error.to_string();
    for part in
        ["pth_zip.pth", "0.0 %", "50.0 %", "missing, e.g. conv1.weight", "unexpected, e.g. module.bn1.bias"]
    {
        assert!(text.contains(part), "{part} not in: {text}");
    }
    let before = params::flat(&small(1));
    let (net, report) = load(small(1), &weights, &fit(0.0)).unwrap();
    assert_eq!(report.matched, 0);
    for (path, value) in params::flat(&net) {
        assert_eq!(values(value), values(before[&path].clone()), "{path}");
    }
}

#[test]
fn names_are_stripped_then_renamed_and_may_not_meet() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |names: &[&str]| {
        let bytes = 1.5f32.to_le_bytes();
        let views = names.iter().map(|n| (*n, TensorView::new(Dtype::F32, vec![1], &bytes).unwrap()));
        std::fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
    };
    let names = Names {
        rename: vec![("encoder.".to_owned(), "layer1.".to_owned()), ("enc".to_owned(), "x".to_owned())],
        ..Names::default()
    };
    let paths = |file: WeightsFile| file.flat(&Device::flex()).into_keys().collect::<Vec<_>>();
    write(&["module.module.encoder.0.weight", "module.bias", "encode"]);
    assert_eq!(paths(read(file.path(), &names).unwrap()), ["bias", "layer1.0.weight", "xode"]);
    write(&["module.a", "a"]);
    let text = read(file.path(), &names).unwrap_err().to_string();
    assert!(text.contains("a and module.a both become a"), "{text}");
    let keyed = Names { top_level_key: Some("model".to_owned()), ..Names::default() };
    let text = read(file.path(), &keyed).unwrap_err().to_string();
    assert!(text.contains("no top-level keys; model was asked for"), "{text}");
    let text = read(&golden("pth_legacy.pth"), &keyed).unwrap_err().to_string();
    assert!(text.contains("model") && text.contains("state_dict"), "{text}");
}

#[test]
fn safetensors_of_all_float_types_become_f32_and_integers_are_left_out() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let numbers = [1.5f32, -0.25, 96.0];
    let parts: [(&str, Dtype, Vec<u8>); 5] = [
        ("f64", Dtype::F64, numbers.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
        ("f32", Dtype::F32, numbers.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("f16", Dtype::F16, numbers.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()),
        ("bf16", Dtype::BF16, numbers.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()),
        ("num_batches_tracked", Dtype::I64, vec![0; 24]),
    ];
    let views = parts.iter().map(|(n, t, bytes)| (*n, TensorView::new(*t, vec![3], bytes).unwrap()));
    std::fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
    let flat = read(file.path(), &Names::default()).unwrap().flat(&Device::flex());
    assert_eq!(flat.keys().collect::<Vec<_>>(), ["bf16", "f16", "f32", "f64"]);
    for (name, tensor) in flat {
        assert_eq!(values(tensor), numbers, "{name}");
    }
}

#[test]
fn values_that_are_not_finite_are_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bad = params::map(small(1), &mut |path, old| if path == "bn1.bias" { old / 0.0 } else { old });
    std::fs::write(file.path(), params::to_safetensors(&bad, &Default::default())).unwrap();
    let weights = read(file.path(), &Names::default()).unwrap();
    let text = load(small(1), &weights, &fit(1.0)).unwrap_err().to_string();
    assert!(text.contains("bn1.bias holds values that are not finite"), "{text}");
}

#[test]
fn damaged_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let mut whole = Vec::new();
    for name in ["pth_zip.pth", "pth_legacy.pth"] {
        whole.push(std::fs::read(golden(name)).unwrap());
    }
    whole.push(params::to_safetensors(&small(1), &Default::default()));
    for bytes in &whole {
        for end in (0..64).chain((64..bytes.len()).step_by(4099)).chain([bytes.len() - 1]) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let text = read(&path, &Names::default()).unwrap_err().to_string();
            assert!(text.contains("w.pth: cannot be read as weights"), "cut at {end}: {text}");
        }
        // One byte changed, in the pickle or a header mostly: an error or other values, never a panic.
        let mut numbers = Lcg(7);
        for _ in 0..150 {
            let mut changed = bytes.clone();
            let [at, to] = [0, 1].map(|_| numbers.vec(1)[0].abs());
            let at = (at * at * changed.len() as f64) as usize;
            changed[at] = (to * 256.0) as u8;
            std::fs::write(&path, &changed).unwrap();
            drop(read(&path, &Names::default()));
        }
    }
    for bytes in
        [&b""[..], b"hello, world: no weights at all", b"\x80\x02}q\x00.", b"PK\x03\x04", &[0x80; 300]]
    {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(read(&path, &Names::default()), Err(WeightsError::Foreign { .. })), "{bytes:?}");
    }
    assert!(matches!(read(dir.path(), &Names::default()), Err(WeightsError::Foreign { .. })));
    assert!(matches!(read(&dir.path().join("none"), &Names::default()), Err(WeightsError::Io { .. })));
}

/// A pickle in the old container: `{"w": <view of shape (rows, 1) with stride 0 of one value>}`.
fn expanded(rows: u32) -> Vec<u8> {
    let mut p = Vec::new();
    p.extend(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.");
    p.extend(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    p.extend(b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(");
    p.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01NtQK\x00J");
    p.extend(rows.to_le_bytes());
    p.extend(b"K\x01\x86K\x00K\x01\x86\x89}tRs.\x80\x02]X\x01\x00\x00\x000a.");
    p.extend(1u64.to_le_bytes());
    p.extend(2.5f32.to_le_bytes());
    p
}

#[test]
fn a_small_file_that_claims_many_values_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), expanded(3)).unwrap();
    let flat = read(file.path(), &Names::default()).unwrap().flat(&Device::flex());
    assert_eq!(values(flat["w"].clone()), [2.5; 3]);
    for rows in [1000, 1 << 28, 1 << 31] {
        std::fs::write(file.path(), expanded(rows)).unwrap();
        let text = read(file.path(), &Names::default()).unwrap_err().to_string();
        assert!(rows == 1 << 31 || text.contains("tensor w of shape"), "{text}");
    }
}

#[test]
fn a_checkpoint_of_a_whole_resnet_50_gives_pytorchs_features() {
    let python = std::env::var("TRIMTAB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let there = Command::new(&python).args(["-c", "import torch"]).output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("skipped: {python} has no torch; set TRIMTAB_PYTHON");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new(&python).arg(golden("pth.py")).arg(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(dir.path().join("resnet50.json")).unwrap();
    let expected: Golden = serde_json::from_str(&text).unwrap();
    let [d, h, w] = expected.size;
    for file in ["resnet50_zip.pth", "resnet50_legacy.pth"] {
        let weights = read(&dir.path().join(file), &Names::default()).unwrap();
        let config = ResNet3dConfig::new(Depth::D50, 1, 1);
        let (net, report) = load(features_of(config), &weights, &fit(0.9)).unwrap();
        assert_eq!(report.matched, expected.tensors);
        check(&net, Lcg(2).tensor([1, 1, d, h, w], &Device::flex()), &expected.features);
    }
}
