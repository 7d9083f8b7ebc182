//! Deep supervision: a loss at several resolutions of a decoder, Lee et al. 2015, <https://arxiv.org/abs/1409.5185>, with the
//! weights of nnU-Net, Isensee et al. 2021, <https://doi.org/10.1038/s41592-020-01008-z>.

use burn::tensor::kind::Basic;
use burn::tensor::{Int, Tensor, TensorData};

/// Weights `1/2^i` of `levels` outputs, finest first, divided by their sum; with `drop_lowest` (nnU-Net) the last is 0, unless
/// it is the only one.
pub fn deep_supervision_weights(levels: usize, drop_lowest: bool) -> Vec<f64> {
    let used = if drop_lowest && levels > 1 { levels - 1 } else { levels };
    let weights = (0..levels).map(|i| if i < used { 0.5f64.powi(i as i32) } else { 0.0 });
    let sum: f64 = weights.clone().sum();
    weights.map(|w| w / sum).collect()
}

/// Sum of `weight * loss(logits)` over the levels; a level whose weight is 0 or missing is not computed. `None` where none is left.
///
/// `loss` brings its target to the size of the logits it is given, with [`downsample_nearest`].
pub fn deep_supervision<const D: usize>(
    levels: impl IntoIterator<Item = Tensor<D>>,
    weights: &[f64],
    mut loss: impl FnMut(Tensor<D>) -> Tensor<1>,
) -> Option<Tensor<1>> {
    let used = levels.into_iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    used.map(|(logits, weight)| loss(logits) * *weight).reduce(|sum, level| sum + level)
}

/// Picks the elements that PyTorch's `interpolate(mode="nearest")` picks along the last `size.len()` axes: labels, masks, 0/1
/// targets.
///
/// # Shapes
/// - `x` `[..., size before]`; returns `[..., size]`. Every size is at least 1.
pub fn downsample_nearest<const D: usize, K: Basic>(x: Tensor<D, K>, size: &[usize]) -> Tensor<D, K> {
    let device = x.device();
    let first = D - size.len();
    size.iter().enumerate().fold(x, |x, (axis, &to)| {
        let from = x.dims()[first + axis];
        if from == to {
            return x;
        }
        // In f32, to round as it does.
        let scale = from as f32 / to as f32;
        let picked: Vec<i64> = (0..to).map(|o| ((o as f32 * scale) as usize).min(from - 1) as i64).collect();
        x.select(first + axis, Tensor::<1, Int>::from_data(TensorData::new(picked, [to]), &device))
    })
}
