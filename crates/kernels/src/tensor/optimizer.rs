//! Updates of parameters, on flat tensors without gradients.

use burn::tensor::Tensor;

use crate::optimizer::{AdamW, Sgd, UpdateSize};
#[cfg(feature = "flex")]
use {
    super::glue::slice,
    crate::optimizer::{self, AdamWPart, SgdPart},
    burn::backend::Flex,
    burn::backend::flex::FlexTensor,
};

/// A parameter and what AdamW knows of it; all tensors of one length.
pub struct AdamWUpdate {
    /// The parameter.
    pub parameter: Tensor<1>,
    /// Its gradient.
    pub gradient: Tensor<1>,
    /// First moment; zeros at first.
    pub mean: Tensor<1>,
    /// Second moment; zeros at first.
    pub square: Tensor<1>,
    /// Number of this update, from 1.
    pub updates: u64,
    /// Learning rate.
    pub rate: f64,
}

/// One update of all parameters at once: [`crate::optimizer::adamw`]. On the CPU the tensors are changed in place where nobody
/// else holds them.
///
/// Returns the sizes of the updates if `measured`.
///
/// # Panics
/// Where the tensors of a parameter differ in length, or `updates` is 0. The parameters are lost then.
pub fn adamw(constants: &AdamW, updates: &mut [AdamWUpdate], measured: bool) -> Vec<UpdateSize> {
    #[cfg(feature = "flex")]
    if updates.iter().all(|u| [&u.parameter, &u.gradient, &u.mean, &u.square].into_iter().all(plain)) {
        return adamw_cpu(constants, updates, measured);
    }
    let mut sizes = Vec::new();
    for u in &mut *updates {
        let gradient = u.gradient.clone();
        u.mean = u.mean.clone() * constants.beta1 + gradient.clone() * (1.0 - constants.beta1);
        u.square = u.square.clone() * constants.beta2 + gradient.clone() * gradient * (1.0 - constants.beta2);
        let correction1 = 1.0 - constants.beta1.powf(u.updates as f64);
        let correction2 = (1.0 - constants.beta2.powf(u.updates as f64)).sqrt();
        let denominator = u.square.clone().sqrt() / correction2 + constants.epsilon;
        let change = u.mean.clone() / denominator * (u.rate / correction1);
        let new = u.parameter.clone() * (1.0 - u.rate * constants.weight_decay) - change;
        let old = std::mem::replace(&mut u.parameter, new.clone());
        if measured {
            let delta = new - old.clone();
            sizes.extend([(delta.clone() * delta).sum(), (old.clone() * old).sum()]);
        }
    }
    if sizes.is_empty() {
        return Vec::new();
    }
    // One read from the device.
    let all = Tensor::cat(sizes, 0).into_data().convert::<f32>();
    let values: Vec<f32> = all.try_into_vec().expect("converted to f32 just now");
    let size = |pair: &[f32]| UpdateSize { change: f64::from(pair[0]), parameter: f64::from(pair[1]) };
    values.chunks_exact(2).map(size).collect()
}

#[cfg(feature = "flex")]
fn adamw_cpu(constants: &AdamW, updates: &mut [AdamWUpdate], measured: bool) -> Vec<UpdateSize> {
    let mut held: Vec<[FlexTensor; 4]> = updates
        .iter_mut()
        .map(|u| {
            let gradient = u.gradient.clone();
            // Taken out, so that nobody else holds them; anything can stand in.
            let take = |t: &mut Tensor<1>| primitive(std::mem::replace(t, gradient.clone()));
            [take(&mut u.parameter), take(&mut u.mean), take(&mut u.square), primitive(gradient.clone())]
        })
        .collect();
    let mut sizes = vec![UpdateSize::default(); if measured { updates.len() } else { 0 }];
    let mut parts: Vec<AdamWPart> = held
        .iter_mut()
        .zip(&*updates)
        .map(|([parameter, mean, square, gradient], u)| AdamWPart {
            parameter: parameter.storage_mut(),
            mean: mean.storage_mut(),
            square: square.storage_mut(),
            gradient: slice(gradient),
            updates: u.updates,
            rate: u.rate,
        })
        .collect();
    optimizer::adamw(constants, &mut parts, measured.then_some(&mut sizes[..]));
    for (u, [parameter, mean, square, _]) in updates.iter_mut().zip(held) {
        u.parameter = Tensor::from_primitive::<Flex>(parameter);
        u.mean = Tensor::from_primitive::<Flex>(mean);
        u.square = Tensor::from_primitive::<Flex>(square);
    }
    sizes
}

/// A parameter and what SGD knows of it; all tensors of one length.
pub struct SgdUpdate {
    /// The parameter.
    pub parameter: Tensor<1>,
    /// Its gradient.
    pub gradient: Tensor<1>,
    /// With momentum; not used without.
    pub velocity: Option<Tensor<1>>,
    /// Number of this update, from 1; the first sets the velocity.
    pub updates: u64,
    /// Learning rate.
    pub rate: f64,
}

/// One update of all parameters at once by stochastic gradient descent: [`crate::optimizer::sgd`]. On the CPU the tensors are
/// changed in place where nobody else holds them.
///
/// # Panics
/// Where the tensors of a parameter differ in length, or `updates` is 0. The parameters are lost then.
pub fn sgd(constants: &Sgd, updates: &mut [SgdUpdate]) {
    let momentum = constants.momentum != 0.0;
    for u in &mut *updates {
        u.velocity = momentum.then(|| u.velocity.take().unwrap_or_else(|| u.parameter.zeros_like()));
    }
    #[cfg(feature = "flex")]
    if updates.iter().all(|u| plain(&u.parameter) && plain(&u.gradient) && u.velocity.iter().all(plain)) {
        return sgd_cpu(constants, updates);
    }
    for u in updates {
        let gradient = u.gradient.clone() + u.parameter.clone() * constants.weight_decay;
        let step = match u.velocity.take() {
            None => gradient,
            Some(velocity) => {
                let velocity = match u.updates {
                    1 => gradient.clone(),
                    _ => velocity * constants.momentum + gradient.clone() * (1.0 - constants.dampening),
                };
                u.velocity = Some(velocity.clone());
                if constants.nesterov { gradient + velocity * constants.momentum } else { velocity }
            }
        };
        u.parameter = u.parameter.clone() - step * u.rate;
    }
}

#[cfg(feature = "flex")]
fn sgd_cpu(constants: &Sgd, updates: &mut [SgdUpdate]) {
    let mut held: Vec<(FlexTensor, Option<FlexTensor>, FlexTensor)> = updates
        .iter_mut()
        .map(|u| {
            let parameter = primitive(std::mem::replace(&mut u.parameter, u.gradient.clone()));
            (parameter, u.velocity.take().map(primitive), primitive(u.gradient.clone()))
        })
        .collect();
    let mut parts: Vec<SgdPart> = held
        .iter_mut()
        .zip(&*updates)
        .map(|((parameter, velocity, gradient), u)| SgdPart {
            parameter: parameter.storage_mut(),
            velocity: velocity.as_mut().map_or(&mut [], |v| v.storage_mut()),
            gradient: slice(gradient),
            updates: u.updates,
            rate: u.rate,
        })
        .collect();
    optimizer::sgd(constants, &mut parts, None);
    for (u, (parameter, velocity, _)) in updates.iter_mut().zip(held) {
        u.parameter = Tensor::from_primitive::<Flex>(parameter);
        u.velocity = velocity.map(Tensor::from_primitive::<Flex>);
    }
}

/// Sum of squares of all elements: [`crate::optimizer::sum_of_squares`]; 0 for none. One read from the device.
pub fn sum_of_squares<'a>(tensors: impl IntoIterator<Item = &'a Tensor<1>>) -> f64 {
    let tensors: Vec<&Tensor<1>> = tensors.into_iter().collect();
    #[cfg(feature = "flex")]
    if tensors.iter().all(|t| plain(t)) {
        let held: Vec<FlexTensor> = tensors.iter().map(|t| primitive((*t).clone())).collect();
        let slices: Vec<&[f32]> = held.iter().map(slice).collect();
        return optimizer::sum_of_squares(&slices);
    }
    let squares: Vec<Tensor<1>> = tensors.iter().map(|t| ((*t).clone() * (*t).clone()).sum()).collect();
    if squares.is_empty() { 0.0 } else { f64::from(Tensor::cat(squares, 0).sum().into_scalar::<f32>()) }
}

/// All tensors times `factor`: [`crate::optimizer::scale`], in place on the CPU where nobody else holds them.
pub fn scale(tensors: Vec<Tensor<1>>, factor: f64) -> Vec<Tensor<1>> {
    #[cfg(feature = "flex")]
    if tensors.iter().all(plain) {
        let mut held: Vec<FlexTensor> = tensors.into_iter().map(primitive).collect();
        let mut parts: Vec<&mut [f32]> = held.iter_mut().map(FlexTensor::storage_mut).collect();
        optimizer::scale(&mut parts, factor);
        return held.into_iter().map(Tensor::from_primitive::<Flex>).collect();
    }
    tensors.into_iter().map(|t| t * factor).collect()
}

/// `keep target + (1 - keep) source` of each pair (target, source): [`crate::optimizer::average`], in place on the CPU where
/// nobody else holds the target.
///
/// # Panics
/// Where the lengths of a pair differ.
pub fn average(pairs: Vec<(Tensor<1>, Tensor<1>)>, keep: f64) -> Vec<Tensor<1>> {
    #[cfg(feature = "flex")]
    if pairs.iter().all(|(target, source)| plain(target) && plain(source)) {
        let mut held: Vec<(FlexTensor, FlexTensor)> =
            pairs.into_iter().map(|(target, source)| (primitive(target), primitive(source))).collect();
        let mut parts: Vec<(&mut [f32], &[f32])> =
            held.iter_mut().map(|(target, source)| (target.storage_mut(), slice(source))).collect();
        optimizer::average(&mut parts, keep);
        return held.into_iter().map(|(target, _)| Tensor::from_primitive::<Flex>(target)).collect();
    }
    pairs.into_iter().map(|(target, source)| target * keep + source * (1.0 - keep)).collect()
}

/// Whether the functions of this module take `x` in place: f32 on the CPU, without autodiff around it.
#[cfg(feature = "flex")]
fn plain(x: &Tensor<1>) -> bool {
    !x.is_autodiff() && super::glue::takes(x)
}

/// The primitive of a [`plain`] tensor, contiguous and alone in its memory.
#[cfg(feature = "flex")]
fn primitive(tensor: Tensor<1>) -> FlexTensor {
    let primitive = tensor.try_into_primitive::<Flex>().expect("`plain` saw that it is on this backend");
    let len = primitive.layout().num_elements();
    if primitive.is_contiguous() && primitive.storage::<f32>().len() == len {
        return primitive;
    }
    super::glue::of_vec(slice(&primitive.to_contiguous()).to_vec(), [len])
}
