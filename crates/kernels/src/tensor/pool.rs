//! Pooling and resizing on tensors.

use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Int, Tensor, TensorData, module};

use crate::resize::Mode;
#[cfg(feature = "flex")]
use {
    super::three,
    crate::pool::Pool,
    crate::resize::Resize,
    cpu::{Adaptive, Average, Max, Resized},
    std::sync::Arc,
};

/// `torch.nn.functional.max_pool2d`: Burn's `max_pool2d`, on the CPU by [`crate::pool::max`].
///
/// # Shapes
/// - `x`: `[batch, channels, h, w]`; returns `[batch, channels, h', w']`.
pub fn max_pool2d(x: Tensor<4>, options: MaxPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(pool) = max_geometry(&x, &options) {
        return super::glue::unary(Arc::new(Max(pool)), x);
    }
    module::max_pool2d(x, options)
}

/// `torch.nn.functional.max_pool3d`, on the CPU by [`crate::pool::max`], elsewhere as two of Burn's `max_pool2d`: over the
/// plane, then over the depth.
///
/// # Shapes
/// - `x`: `[batch, channels, d, h, w]`; returns `[batch, channels, d', h', w']`.
pub fn max_pool3d(x: Tensor<5>, options: MaxPoolOptions<3>) -> Tensor<5> {
    #[cfg(feature = "flex")]
    if let Some(pool) = max_geometry(&x, &options) {
        return super::glue::unary(Arc::new(Max(pool)), x);
    }
    let part = |from: usize, depth: bool| {
        let pick =
            |all: [usize; 3], one: usize| if depth { [all[0], one] } else { [all[from], all[from + 1]] };
        let pads = options.padding;
        MaxPoolOptions {
            kernel_size: pick(options.kernel_size, 1),
            stride: pick(options.stride, 1),
            padding: if depth { [pads[0], (0, 0)] } else { [pads[1], pads[2]] },
            dilation: pick(options.dilation, 1),
            ceil_mode: options.ceil_mode,
        }
    };
    by_planes(x, |x| module::max_pool2d(x, part(1, false)), |x| module::max_pool2d(x, part(0, true)))
}

/// `torch.nn.functional.avg_pool2d`: Burn's `avg_pool2d`, on the CPU by [`crate::pool::average`].
///
/// # Shapes
/// - `x`: `[batch, channels, h, w]`; returns `[batch, channels, h', w']`.
pub fn avg_pool2d(x: Tensor<4>, options: AvgPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(pool) = average_geometry(&x, &options) {
        return super::glue::unary(Arc::new(Average(pool, options.count_include_pad)), x);
    }
    module::avg_pool2d(x, options)
}

/// `torch.nn.functional.avg_pool3d`, on the CPU by [`crate::pool::average`], elsewhere as two of Burn's `avg_pool2d`.
///
/// # Shapes
/// - `x`: `[batch, channels, d, h, w]`; returns `[batch, channels, d', h', w']`.
pub fn avg_pool3d(x: Tensor<5>, options: AvgPoolOptions<3>) -> Tensor<5> {
    #[cfg(feature = "flex")]
    if let Some(pool) = average_geometry(&x, &options) {
        return super::glue::unary(Arc::new(Average(pool, options.count_include_pad)), x);
    }
    let (kernel, stride, pads) = (options.kernel_size, options.stride, options.padding);
    let two = |kernel_size, stride, padding| AvgPoolOptions {
        kernel_size,
        stride,
        padding,
        count_include_pad: options.count_include_pad,
        ceil_mode: options.ceil_mode,
    };
    by_planes(
        x,
        |x| module::avg_pool2d(x, two([kernel[1], kernel[2]], [stride[1], stride[2]], [pads[1], pads[2]])),
        |x| module::avg_pool2d(x, two([kernel[0], 1], [stride[0], 1], [pads[0], (0, 0)])),
    )
}

/// `torch.nn.functional.adaptive_avg_pool2d`, on the CPU by [`crate::pool::adaptive_average`].
///
/// # Shapes
/// - `x`: `[batch, channels, h, w]`; returns `[batch, channels, output...]`.
pub fn adaptive_avg_pool2d(x: Tensor<4>, output: [usize; 2]) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::unary(Arc::new(adaptive(&x, &output)), x);
    }
    module::adaptive_avg_pool2d(x, output)
}

/// `torch.nn.functional.adaptive_avg_pool3d`, on the CPU by [`crate::pool::adaptive_average`].
///
/// # Shapes
/// - `x`: `[batch, channels, d, h, w]`; returns `[batch, channels, output...]`.
pub fn adaptive_avg_pool3d(x: Tensor<5>, output: [usize; 3]) -> Tensor<5> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::unary(Arc::new(adaptive(&x, &output)), x);
    }
    module::adaptive_avg_pool3d(x, output)
}

/// `torch.nn.functional.interpolate` of images to a given size (nearest, bilinear), on the CPU by [`crate::resize`],
/// elsewhere one dimension after the other, by selecting (nearest) or by a matrix (linear), which every backend can
/// differentiate.
///
/// # Shapes
/// - `x`: `[batch, channels, h, w]`; returns `[batch, channels, output...]`.
pub fn interpolate2d(x: Tensor<4>, output: [usize; 2], mode: Mode) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::unary(Arc::new(resized(&x, &output, mode)), x);
    }
    resize_by_axes(x, &output, mode)
}

/// `torch.nn.functional.interpolate` of volumes to a given size (nearest, trilinear); see [`interpolate2d`].
///
/// # Shapes
/// - `x`: `[batch, channels, d, h, w]`; returns `[batch, channels, output...]`.
pub fn interpolate3d(x: Tensor<5>, output: [usize; 3], mode: Mode) -> Tensor<5> {
    #[cfg(feature = "flex")]
    if super::glue::takes(&x) {
        return super::glue::unary(Arc::new(resized(&x, &output, mode)), x);
    }
    resize_by_axes(x, &output, mode)
}

/// Applies `plane` to `[batch, channels * d, h, w]`, then `depth` to `[batch * channels, 1, d, h * w]`.
fn by_planes(
    x: Tensor<5>,
    plane: impl Fn(Tensor<4>) -> Tensor<4>,
    depth: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Tensor<5> {
    let [b, c, d, h, w] = x.dims();
    let x = plane(x.reshape([b, c * d, h, w]));
    let [.., h, w] = x.dims();
    let x = depth(x.reshape([b * c, 1, d, h * w]));
    let d = x.dims()[2];
    x.reshape([b, c, d, h, w])
}

fn resize_by_axes<const D: usize>(x: Tensor<D>, output: &[usize], mode: Mode) -> Tensor<D> {
    let device = x.device();
    output.iter().enumerate().fold(x, |x, (axis, &to)| {
        let (axis, shape) = (axis + 2, x.dims());
        let from = shape[axis];
        if from == to {
            return x;
        }
        if mode == Mode::Nearest {
            let picked: Vec<i64> = (0..to).map(|o| mode.source(from, to, o).0 as i64).collect();
            return x.select(axis, Tensor::<1, Int>::from_data(TensorData::new(picked, [to]), &device));
        }
        let mut matrix = vec![0f32; from * to];
        for o in 0..to {
            let (first, share) = mode.source(from, to, o);
            matrix[first * to + o] += 1.0 - share;
            matrix[(first + 1).min(from - 1) * to + o] += share;
        }
        let matrix = Tensor::<2>::from_data(TensorData::new(matrix, [from, to]), &device).cast(x.dtype());
        let x = x.swap_dims(axis, D - 1);
        let mut shape = x.dims();
        let rows = shape[..D - 1].iter().product();
        shape[D - 1] = to;
        x.reshape([rows, from]).matmul(matrix).reshape(shape).swap_dims(axis, D - 1)
    })
}

/// The geometry, if the kernels take `x` and the padding is the same on either side.
#[cfg(feature = "flex")]
fn geometry<const D: usize, const N: usize>(
    x: &Tensor<D>,
    kernel: [usize; N],
    stride: [usize; N],
    padding: [(usize, usize); N],
    dilation: [usize; N],
    ceil_mode: bool,
) -> Option<Pool> {
    let symmetric = padding.iter().all(|(before, after)| before == after);
    (super::glue::takes(x) && symmetric).then(|| Pool {
        planes: x.dims()[0] * x.dims()[1],
        size: three(&x.dims()[2..], 1),
        kernel: three(&kernel, 1),
        stride: three(&stride, 1),
        padding: three(&padding.map(|p| p.0), 0),
        dilation: three(&dilation, 1),
        ceil_mode,
    })
}

#[cfg(feature = "flex")]
fn max_geometry<const D: usize, const N: usize>(x: &Tensor<D>, o: &MaxPoolOptions<N>) -> Option<Pool> {
    geometry(x, o.kernel_size, o.stride, o.padding, o.dilation, o.ceil_mode)
}

#[cfg(feature = "flex")]
fn average_geometry<const D: usize, const N: usize>(x: &Tensor<D>, o: &AvgPoolOptions<N>) -> Option<Pool> {
    geometry(x, o.kernel_size, o.stride, o.padding, [1; N], o.ceil_mode)
}

#[cfg(feature = "flex")]
fn adaptive<const D: usize>(x: &Tensor<D>, output: &[usize]) -> Adaptive {
    Adaptive { planes: x.dims()[0] * x.dims()[1], size: three(&x.dims()[2..], 1), output: three(output, 1) }
}

#[cfg(feature = "flex")]
fn resized<const D: usize>(x: &Tensor<D>, output: &[usize], mode: Mode) -> Resized {
    Resized(Resize {
        planes: x.dims()[0] * x.dims()[1],
        size: three(&x.dims()[2..], 1),
        output: three(output, 1),
        mode,
    })
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::flex::{FlexTensor, Layout};
    use burn::tensor::{Bytes, DType};

    use super::super::glue::{Function, dims, slice, tensor};
    use crate::pool::{self, Pool};
    use crate::resize::{self, Resize};

    /// `shape` of one side with the spatial size of the other.
    fn with_size(shape: &[usize], size: [usize; 3]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        let rank = shape.len() - 2;
        shape[2..].copy_from_slice(&size[3 - rank..]);
        shape
    }

    #[derive(Debug)]
    pub(super) struct Max(pub(super) Pool);

    impl Function<1> for Max {
        fn forward(&self, [x]: [&FlexTensor; 1], tracked: bool) -> (FlexTensor, Vec<FlexTensor>) {
            let shape = with_size(&dims(x), self.0.output());
            if !tracked {
                return (tensor(shape, |y| pool::max_only(&self.0, slice(x), y)), Vec::new());
            }
            let mut index = vec![0u32; shape.iter().product()];
            let output = tensor(shape.clone(), |y| pool::max(&self.0, slice(x), y, &mut index));
            let index =
                FlexTensor::new(Bytes::from_elems(index), Layout::contiguous(shape.into()), DType::U32);
            (output, vec![index])
        }

        fn keeps(&self, _needed: [bool; 1]) -> [bool; 1] {
            [false]
        }

        fn backward(
            &self,
            _inputs: [Option<FlexTensor>; 1],
            saved: Vec<FlexTensor>,
            gradient: FlexTensor,
            needed: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            let shape = with_size(&dims(&gradient), self.0.size);
            let index = saved[0].storage::<u32>();
            [needed[0].then(|| tensor(shape, |dx| pool::max_backward(&self.0, index, slice(&gradient), dx)))]
        }
    }

    /// Implements [`Function`] for a linear function of one tensor: neither input nor output is kept.
    macro_rules! linear {
        ($name:ident, |$self:ident| $from:expr => $to:expr, $forward:expr, $backward:expr) => {
            impl Function<1> for $name {
                fn forward(&self, [x]: [&FlexTensor; 1], _tracked: bool) -> (FlexTensor, Vec<FlexTensor>) {
                    let $self = self;
                    (tensor(with_size(&dims(x), $to), |y| $forward($self, slice(x), y)), Vec::new())
                }

                fn keeps(&self, _needed: [bool; 1]) -> [bool; 1] {
                    [false]
                }

                fn backward(
                    &self,
                    _inputs: [Option<FlexTensor>; 1],
                    _saved: Vec<FlexTensor>,
                    gradient: FlexTensor,
                    needed: [bool; 1],
                ) -> [Option<FlexTensor>; 1] {
                    let $self = self;
                    [needed[0].then(|| {
                        tensor(with_size(&dims(&gradient), $from), |dx| {
                            $backward($self, slice(&gradient), dx)
                        })
                    })]
                }
            }
        };
    }

    /// Average pooling, with whether the padding counts.
    #[derive(Debug)]
    pub(super) struct Average(pub(super) Pool, pub(super) bool);

    linear!(
        Average,
        |p| p.0.size => p.0.output(),
        |p: &Average, x, y| pool::average(&p.0, p.1, x, y),
        |p: &Average, dy, dx| pool::average_backward(&p.0, p.1, dy, dx)
    );

    #[derive(Debug)]
    pub(super) struct Adaptive {
        pub(super) planes: usize,
        pub(super) size: [usize; 3],
        pub(super) output: [usize; 3],
    }

    linear!(
        Adaptive,
        |p| p.size => p.output,
        |p: &Adaptive, x, y| pool::adaptive_average(p.planes, p.size, p.output, x, y),
        |p: &Adaptive, dy, dx| pool::adaptive_average_backward(p.planes, p.size, p.output, dy, dx)
    );

    #[derive(Debug)]
    pub(super) struct Resized(pub(super) Resize);

    linear!(
        Resized,
        |r| r.0.size => r.0.output,
        |r: &Resized, x, y| resize::forward(&r.0, x, y),
        |r: &Resized, dy, dx| resize::backward(&r.0, dy, dx)
    );
}
