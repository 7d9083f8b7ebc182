//! Element-wise functions on tensors.

use burn::tensor::{Tensor, activation};

#[cfg(feature = "flex")]
use {
    super::glue::{Function, binary, dims, of_vec, room, slice, takes, tensor, ternary, unary},
    crate::pointwise,
    burn::backend::flex::FlexTensor,
    std::sync::Arc,
};

/// GELU: Burn's `gelu`, on the CPU by [`crate::pointwise::gelu`]. Any shape.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) {
        return unary(Arc::new(Gelu), x);
    }
    activation::gelu(x)
}

/// `x + scale[channel] y`, on the CPU by [`crate::pointwise::scaled_residual`].
///
/// # Shapes
/// - `x`, `y`: `[batch, channels, ...]`; `scale`: `[channels]`.
///
/// # Panics
/// Where the shapes differ, or there are not as many scales as channels.
pub fn scaled_residual<const D: usize>(x: Tensor<D>, y: Tensor<D>, scale: Tensor<1>) -> Tensor<D> {
    let shape = x.dims();
    assert!(shape == y.dims(), "a residual of {:?} does not fit {shape:?}", y.dims());
    let scales = scale.dims()[0];
    assert!(D >= 2 && scales == shape[1], "{scales} scales for {shape:?}, [batch, channels, ...]");
    #[cfg(feature = "flex")]
    if takes(&x) {
        return ternary(Arc::new(ScaledResidual), x, y, scale);
    }
    let mut shape = [1; D];
    shape[1] = scale.dims()[0];
    x + y * scale.reshape(shape)
}

/// `a` and `b` joined along the channels: Burn's `Tensor::cat` of dimension 1, on the CPU by [`crate::pointwise::join`].
///
/// # Shapes
/// - `a`: `[batch, channels of a, ...]`, `b`: `[batch, channels of b, ...]`; returns `[batch, channels of both, ...]`.
///
/// # Panics
/// Where batch or size differ.
pub fn join_channels<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    assert!(D >= 2, "[batch, channels, ...], not {:?}", a.dims());
    #[cfg(feature = "flex")]
    if takes(&a) && takes(&b) {
        let [of_a, of_b] = [&a, &b].map(|t| t.dims());
        assert!(of_a[0] == of_b[0] && of_a[2..] == of_b[2..], "{of_a:?} and {of_b:?} do not join");
        return binary(Arc::new(Join([of_a.to_vec(), of_b.to_vec()])), a, b);
    }
    Tensor::cat(vec![a, b], 1)
}

/// The shapes of both inputs.
#[cfg(feature = "flex")]
#[derive(Debug)]
struct Join([Vec<usize>; 2]);

#[cfg(feature = "flex")]
impl Function<2> for Join {
    fn forward(&self, [a, b]: [&FlexTensor; 2], _tracked: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let mut shape = self.0[0].clone();
        shape[1] += self.0[1][1];
        let batch = shape[0];
        (tensor(shape, |y| pointwise::join(batch, slice(a), slice(b), y)), Vec::new())
    }

    fn keeps(&self, _needed: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }

    fn backward(
        &self,
        _inputs: [Option<FlexTensor>; 2],
        _saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        needed: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [mut a, mut b] = self.0.each_ref().map(|shape| room(shape.iter().product()));
        pointwise::split(self.0[0][0], slice(&gradient), &mut a, &mut b);
        let [of_a, of_b] = self.0.clone();
        [needed[0].then(|| of_vec(a, of_a)), needed[1].then(|| of_vec(b, of_b))]
    }
}

#[cfg(feature = "flex")]
#[derive(Debug)]
struct Gelu;

#[cfg(feature = "flex")]
impl Function<1> for Gelu {
    fn forward(&self, [x]: [&FlexTensor; 1], _tracked: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (tensor(dims(x), |y| pointwise::gelu(slice(x), y)), Vec::new())
    }

    fn keeps(&self, _needed: [bool; 1]) -> [bool; 1] {
        [true]
    }

    fn backward(
        &self,
        [x]: [Option<FlexTensor>; 1],
        _saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        needed: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let Some(x) = x else { unreachable!("it is kept") };
        let dx = |dx: &mut [f32]| pointwise::gelu_backward(slice(&x), slice(&gradient), dx);
        [needed[0].then(|| tensor(dims(&x), dx))]
    }
}

/// Of `x`, `y` and `scale`.
#[cfg(feature = "flex")]
#[derive(Debug)]
struct ScaledResidual;

#[cfg(feature = "flex")]
impl Function<3> for ScaledResidual {
    fn forward(&self, [x, y, scale]: [&FlexTensor; 3], _tracked: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let inner = dims(x)[2..].iter().product();
        let output = tensor(dims(x), |z| {
            pointwise::scaled_residual(dims(x)[0], inner, slice(x), slice(y), slice(scale), z);
        });
        (output, Vec::new())
    }

    fn keeps(&self, _needed: [bool; 3]) -> [bool; 3] {
        [false, true, true]
    }

    fn backward(
        &self,
        [_, y, scale]: [Option<FlexTensor>; 3],
        _saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        needed: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let (Some(y), Some(scale)) = (y, scale) else { unreachable!("both are kept") };
        let (shape, channels) = (dims(&y), dims(&scale)[0]);
        let inner = shape[2..].iter().product();
        let (mut dy, mut dscale) = (room(slice(&y).len()), room(channels));
        if needed[1] || needed[2] {
            let dz = slice(&gradient);
            pointwise::scaled_residual_backward(
                shape[0],
                inner,
                slice(&y),
                slice(&scale),
                dz,
                &mut dy,
                &mut dscale,
            );
        }
        [
            needed[0].then_some(gradient),
            needed[1].then(|| of_vec(dy, shape)),
            needed[2].then(|| of_vec(dscale, [channels])),
        ]
    }
}
