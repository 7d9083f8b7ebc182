//! Devices by name: `cpu`, `cuda:0`, `wgpu`, …

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
use burn::tensor::DeviceKind;
use burn::tensor::{DType, Device};

use crate::error::{Result, TrainError};

/// The device of that name.
///
/// # Errors
/// Not a device, or one whose feature this program was built without.
pub fn open(name: &str) -> Result<Device> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index: usize = index.parse().map_err(|_| {
        TrainError::Device(format!(
            "--device {name}: `{index}` is not the number of a device; accepted is e.g. {kind}:0"
        ))
    })?;
    match kind {
        #[cfg(feature = "flex")]
        "cpu" if index == 0 => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(gpu(name, index))),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(gpu(name, index))),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(gpu(name, index))),
        _ if ["cuda", "wgpu", "vulkan", "metal", "rocm"].contains(&kind) => Err(TrainError::Device(format!(
            "--device {name}: this program was built without it; build with `--features {kind}` (here: {})",
            built_in().join(", ")
        ))),
        _ => Err(TrainError::Device(format!(
            "--device {name}: no such device; accepted here: {}",
            built_in().join(", ")
        ))),
    }
}

/// Refuses bf16 where the device does not compute in it.
///
/// # Errors
/// The CPU, whose kernels are f32, or a device without bf16.
pub fn check_bf16(name: &str, device: &Device) -> Result<()> {
    if name.starts_with("cpu") || !device.supports_dtype(DType::BF16) {
        return Err(TrainError::Device(format!(
            "optim.precision = \"bf16\": --device {name} does not compute in bf16; use \"f32\", or a GPU that has it"
        )));
    }
    Ok(())
}

/// The numbered discrete GPU, or without a number the best one there is (integrated ones too).
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn gpu(name: &str, index: usize) -> DeviceKind {
    if name.contains(':') { DeviceKind::DiscreteGpu(index) } else { DeviceKind::DefaultDevice }
}

/// Kinds of devices this program was built with.
pub fn built_in() -> Vec<&'static str> {
    let all = [
        ("cpu", cfg!(feature = "flex")),
        ("cuda", cfg!(feature = "cuda")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("rocm", cfg!(feature = "rocm")),
    ];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}
