//! Convolution and transposed convolution in one, two or three dimensions, forward and backward.
//!
//! One scheme for all: the part of the input that a tile of outputs needs is copied, with its zero border, into memory that
//! stays in the cache, in such an order that the input of every kernel tap lies at a fixed distance. Then an output vector is
//! a sum over taps of `weight * load(base + distance of the tap)`: a matrix product whose second matrix is never built (no
//! im2col). A stride splits the copy into its phases (every s-th element); the gradient by the input of a strided
//! convolution splits the outputs into phases likewise. The gradient by the weight is the dot product of such vectors with
//! the output's gradient.

mod backward;
mod micro;
mod plan;
mod run;

use plan::Gather;

/// Geometry of a convolution. 1-D and 2-D ones have leading ones in size and kernel (and stride and dilation), zeros in
/// padding.
///
/// Also describes a transposed convolution: the one whose gradient by the input it is, so that `input` and `size` belong to
/// the larger side (what [`transposed`] writes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Input channels, a multiple of `groups`.
    pub input: usize,
    /// Output channels, a multiple of `groups`.
    pub output: usize,
    /// Groups that share no weights; `input` for a depthwise convolution.
    pub groups: usize,
    /// Input depth, height and width.
    pub size: [usize; 3],
    /// Kernel depth, height and width.
    pub kernel: [usize; 3],
    /// Distance between two outputs, at least 1.
    pub stride: [usize; 3],
    /// Zeros on either side.
    pub padding: [usize; 3],
    /// Distance between two kernel taps, at least 1.
    pub dilation: [usize; 3],
}

impl Conv {
    /// Output depth, height and width: `(size + 2 padding - dilation (kernel - 1) - 1) / stride + 1`, as PyTorch; 0 where the
    /// kernel does not fit.
    ///
    /// # Panics
    /// Where kernel, stride or dilation is 0, or `groups` does not divide the channels.
    pub fn out_size(&self) -> [usize; 3] {
        self.check();
        std::array::from_fn(|d| {
            let reach = self.dilation[d] * (self.kernel[d] - 1) + 1;
            match (self.size[d] + 2 * self.padding[d]).checked_sub(reach) {
                Some(room) => room / self.stride[d] + 1,
                None => 0,
            }
        })
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input * self.size.iter().product::<usize>()
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output * self.out_size().iter().product::<usize>()
    }

    /// Elements of the weight `[output, input / groups, kernel...]`.
    pub fn weight_len(&self) -> usize {
        self.output * (self.input / self.groups) * self.taps()
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The same convolution with rows joined where nothing happens across and along them (kernel 1, stride 1, no padding):
    /// a 1x1 convolution has one long row.
    fn joined(&self) -> Self {
        let mut c = *self;
        let idle = |c: &Self, d: usize| c.kernel[d] == 1 && c.stride[d] == 1 && c.padding[d] == 0;
        for _ in 0..2 {
            if idle(&c, 1) && idle(&c, 2) {
                c.size = [1, c.size[0], c.size[1] * c.size[2]];
                c.kernel.swap(0, 1);
                c.stride.swap(0, 1);
                c.padding.swap(0, 1);
                c.dilation.swap(0, 1);
            }
        }
        c
    }

    fn check(&self) {
        assert!(self.groups > 0, "groups must be at least 1");
        assert!(
            self.input.is_multiple_of(self.groups) && self.output.is_multiple_of(self.groups),
            "input {} and output {} channels must be multiples of groups {}",
            self.input,
            self.output,
            self.groups
        );
        for d in 0..3 {
            assert!(
                self.kernel[d] > 0 && self.stride[d] > 0 && self.dilation[d] > 0,
                "kernel {:?}, stride {:?} and dilation {:?} must be at least 1",
                self.kernel,
                self.stride,
                self.dilation
            );
        }
    }
}

/// `y = conv(x, weight) + bias`, torch.nn.functional.conv1d/2d/3d.
///
/// # Shapes
/// - `x`: `[batch, input, size...]`; `weight`: `[output, input / groups, kernel...]`; `bias`: `[output]`;
///   `y`: `[batch, output, out_size...]`, overwritten.
///
/// # Panics
/// Where a length does not fit the geometry.
pub fn forward(c: &Conv, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    check_lengths(c, x.len(), weight.len(), bias.map(<[f32]>::len), c.output, y.len());
    run::gather(&c.joined(), Gather::Forward, x, weight, bias, y);
}

/// Gradient by the input: what [`forward`] multiplies `x` with, transposed.
///
/// # Shapes
/// - `dy`: `[batch, output, out_size...]`; `weight` as in [`forward`]; `dx`: `[batch, input, size...]`, overwritten.
///
/// # Panics
/// Where a length does not fit the geometry.
pub fn backward_input(c: &Conv, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    check_lengths(c, dx.len(), weight.len(), None, 0, dy.len());
    run::gather(&c.joined(), Gather::Transposed, dy, weight, None, dx);
}

/// Transposed convolution, torch.nn.functional.conv_transpose1d/2d/3d: [`backward_input`] of `c`, with a bias.
///
/// PyTorch's weight `[in, out / groups, kernel...]` of a transposed convolution is the weight of `c` as it stands, with
/// `c.output = in` and `c.input = out`.
///
/// # Shapes
/// - `x`: `[batch, c.output, c.out_size...]`; `weight`: `[c.output, c.input / groups, kernel...]`; `bias`: `[c.input]`;
///   `y`: `[batch, c.input, c.size...]`, overwritten.
///
/// # Panics
/// Where a length does not fit the geometry.
pub fn transposed(c: &Conv, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    check_lengths(c, y.len(), weight.len(), bias.map(<[f32]>::len), c.input, x.len());
    run::gather(&c.joined(), Gather::Transposed, x, weight, bias, y);
}

/// Gradient by the weight, of [`forward`] and, with the roles of `x` and `dy` exchanged, of [`transposed`].
///
/// # Shapes
/// - `x`: `[batch, input, size...]`; `dy`: `[batch, output, out_size...]`; `dweight`: as the weight, overwritten.
///
/// # Panics
/// Where a length does not fit the geometry.
pub fn backward_weight(c: &Conv, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    check_lengths(c, x.len(), dweight.len(), None, 0, dy.len());
    backward::weight(&c.joined(), x, dy, dweight);
}

/// Gradient by the bias: the sum of `dy` over batch and positions.
///
/// # Shapes
/// - `dy`: `[batch, channels, positions]`; `dbias`: `[channels]`, overwritten.
///
/// # Panics
/// Where a length does not fit.
pub fn backward_bias(batch: usize, channels: usize, positions: usize, dy: &[f32], dbias: &mut [f32]) {
    assert_eq!(dy.len(), batch * channels * positions, "dy");
    assert_eq!(dbias.len(), channels, "dbias");
    backward::bias(batch, positions, dy, dbias);
}

fn check_lengths(c: &Conv, x: usize, weight: usize, bias: Option<usize>, biases: usize, y: usize) {
    c.check();
    assert_eq!(x, c.input_len(), "elements on the input's side of {c:?}");
    assert_eq!(weight, c.weight_len(), "elements of the weight of {c:?}");
    assert_eq!(y, c.output_len(), "elements on the output's side of {c:?}");
    if let Some(bias) = bias {
        assert_eq!(bias, biases, "elements of the bias of {c:?}");
    }
}
