//! Convolutions on tensors.

use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Tensor, module};

#[cfg(feature = "flex")]
use {super::three, crate::conv::Conv, cpu::apply};

/// Panics with what was found and what fits: `weight` takes `inputs` channels and makes `outputs`.
#[cfg(feature = "flex")]
fn check(name: &str, x: &[usize], weight: &[usize], inputs: usize, outputs: usize, bias: Option<&Tensor<1>>) {
    assert!(
        x[1] == inputs,
        "{name}: an input of {x:?} has {} channels, a weight of {weight:?} takes {inputs}",
        x[1]
    );
    assert!(!weight[2..].contains(&0), "{name}: a kernel of {:?} is empty", &weight[2..]);
    if let Some(bias) = bias {
        let found = bias.dims()[0];
        assert!(
            found == outputs,
            "{name}: a bias of {found} values, a weight of {weight:?} makes {outputs} channels"
        );
    }
}

macro_rules! convolution {
    ($name:ident, $rank:literal, $n:literal, $torch:literal) => {
        #[doc = concat!("`", $torch, "`: Burn's `", stringify!($name), "`, on the CPU by [`crate::conv`].")]
        ///
        /// # Shapes
        /// - `x`: `[batch, input, size...]`, `weight`: `[output, input / groups, kernel...]`, `bias`: `[output]`; returns
        ///   `[batch, output, out_size...]`.
        pub fn $name(
            x: Tensor<$rank>,
            weight: Tensor<$rank>,
            bias: Option<Tensor<1>>,
            options: ConvOptions<$n>,
        ) -> Tensor<$rank> {
            #[cfg(feature = "flex")]
            if super::glue::takes(&x) && options.padding.iter().all(|(before, after)| before == after) {
                check(stringify!($name), &x.dims(), &weight.dims(), weight.dims()[1] * options.groups, weight.dims()[0], bias.as_ref());
                let geometry = Conv {
                    batch: x.dims()[0],
                    input: x.dims()[1],
                    output: weight.dims()[0],
                    groups: options.groups,
                    size: three(&x.dims()[2..], 1),
                    kernel: three(&weight.dims()[2..], 1),
                    stride: three(&options.stride, 1),
                    padding: three(&options.padding.map(|p| p.0), 0),
                    dilation: three(&options.dilation, 1),
                };
                let out = geometry.out_size();
                assert!(
                    !out.contains(&0),
                    "{}: a kernel of {:?} with dilation {:?} is larger than the input of {:?} with padding {:?}",
                    stringify!($name), geometry.kernel, geometry.dilation, geometry.size, geometry.padding
                );
                return apply(geometry, false, x, weight, bias);
            }
            module::$name(x, weight, bias, options)
        }
    };
}

convolution!(conv1d, 3, 1, "torch.nn.functional.conv1d");
convolution!(conv2d, 4, 2, "torch.nn.functional.conv2d");
convolution!(conv3d, 5, 3, "torch.nn.functional.conv3d");

macro_rules! transposed_convolution {
    ($name:ident, $rank:literal, $n:literal, $torch:literal) => {
        #[doc = concat!("`", $torch, "`: Burn's `", stringify!($name), "`, on the CPU by [`crate::conv`].")]
        ///
        /// # Shapes
        /// - `x`: `[batch, input, size...]`, `weight`: `[input, output / groups, kernel...]`, `bias`: `[output]`; returns
        ///   `[batch, output, out_size...]` with `out_size = (size - 1) stride - 2 padding + dilation (kernel - 1) +
        ///   padding_out + 1`.
        pub fn $name(
            x: Tensor<$rank>,
            weight: Tensor<$rank>,
            bias: Option<Tensor<1>>,
            options: ConvTransposeOptions<$n>,
        ) -> Tensor<$rank> {
            #[cfg(feature = "flex")]
            if super::glue::takes(&x) {
                let outputs = weight.dims()[1] * options.groups;
                check(stringify!($name), &x.dims(), &weight.dims(), weight.dims()[0], outputs, bias.as_ref());
                let [size, kernel] = [&x, &weight].map(|t| three(&t.dims()[2..], 1));
                let (stride, dilation) = (three(&options.stride, 1), three(&options.dilation, 1));
                let (padding, extra) = (three(&options.padding, 0), three(&options.padding_out, 0));
                let out: [usize; 3] = std::array::from_fn(|d| {
                    let reach = (size[d].max(1) - 1) * stride[d] + dilation[d] * (kernel[d] - 1) + extra[d] + 1;
                    reach.checked_sub(2 * padding[d]).filter(|out| *out > 0).unwrap_or_else(|| {
                        panic!(
                            "{}: nothing is left of {reach} positions without padding {}",
                            stringify!($name),
                            padding[d]
                        )
                    })
                });
                for d in 0..3 {
                    assert!(
                        extra[d] < stride[d].max(dilation[d]),
                        "{}: padding_out {extra:?} must be smaller than stride {stride:?} or dilation {dilation:?}",
                        stringify!($name)
                    );
                }
                let geometry = Conv {
                    batch: x.dims()[0],
                    input: outputs,
                    output: x.dims()[1],
                    groups: options.groups,
                    size: out,
                    kernel,
                    stride,
                    padding,
                    dilation,
                };
                return apply(geometry, true, x, weight, bias);
            }
            module::$name(x, weight, bias, options)
        }
    };
}

transposed_convolution!(conv_transpose1d, 3, 1, "torch.nn.functional.conv_transpose1d");
transposed_convolution!(conv_transpose2d, 4, 2, "torch.nn.functional.conv_transpose2d");
transposed_convolution!(conv_transpose3d, 5, 3, "torch.nn.functional.conv_transpose3d");

#[cfg(feature = "flex")]
mod cpu {
    use std::sync::Arc;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use super::super::glue::{Function, dims, slice, tensor, ternary};
    use crate::conv::{self, Conv};

    pub(super) fn apply<const D: usize>(
        geometry: Conv,
        transposed: bool,
        x: Tensor<D>,
        weight: Tensor<D>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let function = Arc::new(Convolution { geometry, transposed, biased: bias.is_some() });
        // Without a bias, something without gradient takes its place.
        let bias = bias.unwrap_or_else(|| Tensor::zeros([1], &x.device()));
        ternary(function, x, weight, bias)
    }

    /// Of `x`, `weight` and `bias`.
    #[derive(Debug)]
    struct Convolution {
        geometry: Conv,
        transposed: bool,
        biased: bool,
    }

    impl Convolution {
        /// `dims` with the number of channels and the size of the written side.
        fn shape(&self, dims: &[usize], channels: usize, size: [usize; 3]) -> Vec<usize> {
            let mut shape = vec![dims[0], channels];
            shape.extend(&size[3 - (dims.len() - 2)..]);
            shape
        }
    }

    impl Function<3> for Convolution {
        fn forward(
            &self,
            [x, weight, bias]: [&FlexTensor; 3],
            _tracked: bool,
        ) -> (FlexTensor, Vec<FlexTensor>) {
            let c = &self.geometry;
            let bias = self.biased.then(|| slice(bias));
            let output = if self.transposed {
                let shape = self.shape(&dims(x), c.input, c.size);
                tensor(shape, |y| conv::transposed(c, slice(x), slice(weight), bias, y))
            } else {
                let shape = self.shape(&dims(x), c.output, c.out_size());
                tensor(shape, |y| conv::forward(c, slice(x), slice(weight), bias, y))
            };
            (output, Vec::new())
        }

        fn keeps(&self, needed: [bool; 3]) -> [bool; 3] {
            // Each makes the other's gradient.
            [needed[1], needed[0], false]
        }

        fn backward(
            &self,
            [x, weight, _]: [Option<FlexTensor>; 3],
            _saved: Vec<FlexTensor>,
            gradient: FlexTensor,
            needed: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let c = &self.geometry;
            let dy = slice(&gradient);
            let spatial = dims(&gradient).len() - 2;
            let dx = weight.filter(|_| needed[0]).map(|weight| {
                let (channels, size) =
                    if self.transposed { (c.output, c.out_size()) } else { (c.input, c.size) };
                tensor(self.shape(&dims(&gradient), channels, size), |dx| match self.transposed {
                    true => conv::forward(c, dy, slice(&weight), None, dx),
                    false => conv::backward_input(c, dy, slice(&weight), dx),
                })
            });
            let dweight = x.filter(|_| needed[1]).map(|x| {
                let mut shape = vec![c.output, c.input / c.groups];
                shape.extend(&c.kernel[3 - spatial..]);
                tensor(shape, |dw| match self.transposed {
                    true => conv::backward_weight(c, dy, slice(&x), dw),
                    false => conv::backward_weight(c, slice(&x), dy, dw),
                })
            });
            let dbias = (needed[2] && self.biased).then(|| {
                let shape = dims(&gradient);
                let positions = shape[2..].iter().product();
                tensor([shape[1]], |db| conv::backward_bias(shape[0], shape[1], positions, dy, db))
            });
            [dx, dweight, dbias]
        }
    }
}
