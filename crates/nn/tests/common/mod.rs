//! Numbers and weights that `goldens/unet2d.py` and `goldens/resnet3d.py` make alike.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use trimtab_nn::params;

/// Uniform numbers in -1..1, as `Lcg` in `goldens/unet2d.py`.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn vec(&mut self, n: usize) -> Vec<f64> {
        let next = |_| {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 40) as f64 / f64::from(1 << 23) - 1.0
        };
        (0..n).map(next).collect()
    }

    pub fn tensor<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values: Vec<f32> = self.vec(shape.iter().product()).iter().map(|v| *v as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// Parameters and buffers by the rule of `fill` in `goldens/resnet3d.py`.
pub fn fill<M: Module>(net: M, seed: u64) -> M {
    let mut rng = Lcg(seed);
    let bytes = params::to_safetensors(&net, &BTreeMap::new());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shapes: BTreeMap<String, Vec<usize>> =
        file.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
    let values = shapes.into_iter().map(|(path, shape)| {
        let around_one = path.ends_with("weight") || path.ends_with("running_var");
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let value = |u: f64| match shape.len() {
            1 => u / 10.0 + f64::from(u8::from(around_one)),
            _ => u / fan_in.sqrt(),
        };
        let values: Vec<f32> = rng.vec(shape.iter().product()).into_iter().map(|u| value(u) as f32).collect();
        (path, Tensor::<1>::from_floats(values.as_slice(), &Device::flex()))
    });
    params::copy(net, &values.collect())
}
