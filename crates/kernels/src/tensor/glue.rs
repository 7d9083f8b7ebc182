//! How a function on slices becomes an operation on Burn's tensors, with a backward of its own.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, DispatchDevice, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape, Tensor};

/// A differentiable function of `N` tensors on the CPU.
pub trait Function<const N: usize>: Debug + Send + Sync + 'static {
    /// The result and, if there will be a backward (`tracked`), what that needs besides inputs. The inputs are contiguous f32.
    fn forward(&self, inputs: [&FlexTensor; N], tracked: bool) -> (FlexTensor, Vec<FlexTensor>);

    /// Which inputs the backward reads to make the gradients by those that are `needed`.
    fn keeps(&self, needed: [bool; N]) -> [bool; N];

    /// Gradients by the inputs that are `needed`; `None` elsewhere. `inputs` holds those of [`Self::keeps`].
    fn backward(
        &self,
        inputs: [Option<FlexTensor>; N],
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        needed: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// Functions as the extension macro wants them: one method for each number of inputs.
#[backend_extension(Flex, Autodiff)]
pub trait Functions: Backend {
    /// Applies a function of one tensor.
    fn unary(function: Arc<dyn Function<1>>, a: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Applies a function of two tensors.
    fn binary(
        function: Arc<dyn Function<2>>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// Applies a function of three tensors.
    fn ternary(
        function: Arc<dyn Function<3>>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Functions for Flex {
    fn unary(function: Arc<dyn Function<1>>, a: FlexTensor) -> FlexTensor {
        function.forward([&a.to_contiguous()], false).0
    }

    fn binary(function: Arc<dyn Function<2>>, a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let inputs = [a, b].map(|t| t.to_contiguous());
        function.forward(inputs.each_ref(), false).0
    }

    fn ternary(function: Arc<dyn Function<3>>, a: FlexTensor, b: FlexTensor, c: FlexTensor) -> FlexTensor {
        let inputs = [a, b, c].map(|t| t.to_contiguous());
        function.forward(inputs.each_ref(), false).0
    }
}

impl<C: CheckpointStrategy> Functions for Autodiff<Flex, C> {
    fn unary(function: Arc<dyn Function<1>>, a: FloatTensor<Self>) -> FloatTensor<Self> {
        apply::<C, 1>(function, [a])
    }

    fn binary(
        function: Arc<dyn Function<2>>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        apply::<C, 2>(function, [a, b])
    }

    fn ternary(
        function: Arc<dyn Function<3>>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        apply::<C, 3>(function, [a, b, c])
    }
}

fn apply<C: CheckpointStrategy, const N: usize>(
    function: Arc<dyn Function<N>>,
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
) -> FloatTensor<Autodiff<Flex, C>> {
    let contiguous = inputs.each_ref().map(|t| t.primitive().to_contiguous());
    let step = Step::<N>;
    match step.prepare::<C>(inputs.each_ref().map(|t| t.node())).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let keeps = function.keeps(inputs.each_ref().map(|t| t.is_tracked()));
            let kept = std::array::from_fn(|i| keeps[i].then(|| prep.checkpoint(&inputs[i])));
            let (output, saved) = function.forward(contiguous.each_ref(), true);
            prep.finish(State { function, kept, saved }, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(function.forward(contiguous.each_ref(), false).0),
    }
}

#[derive(Debug)]
struct Step<const N: usize>;

#[derive(Debug, Clone)]
struct State<const N: usize> {
    function: Arc<dyn Function<N>>,
    kept: [Option<NodeId>; N],
    saved: Vec<FlexTensor>,
}

impl<const N: usize> Backward<Flex, N> for Step<N> {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { function, kept, saved } = ops.state;
        let inputs =
            kept.map(|id| id.map(|id| checkpointer.retrieve_node_output::<FlexTensor>(id).to_contiguous()));
        let needed = ops.parents.each_ref().map(Option::is_some);
        let gradients = function.backward(inputs, saved, gradient, needed);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Whether `x` is f32 on the CPU backend, that is, whether the kernels take it.
pub(super) fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && matches!(x.device().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The values of a contiguous f32 tensor.
pub(super) fn slice(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("the glue made it contiguous, `takes` saw that it is f32")
}

/// A tensor of `shape` that `fill` writes.
pub(super) fn tensor(shape: impl Into<Shape>, fill: impl FnOnce(&mut [f32])) -> FlexTensor {
    let shape = shape.into();
    let mut values = room(shape.num_elements());
    fill(&mut values);
    of_vec(values, shape)
}

/// A tensor of `shape` with `values`.
pub(super) fn of_vec(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// Floats of unspecified content.
#[expect(clippy::uninit_vec, reason = "zeroing it first would be one more pass over memory")]
pub(super) fn room(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: every bit pattern is an f32, and whoever asks for room writes it all before reading: that is the contract of
    // the kernels' outputs.
    unsafe {
        values.set_len(len);
    }
    values
}

/// Dimensions of a tensor.
pub(super) fn dims(x: &FlexTensor) -> Vec<usize> {
    x.shape().to_vec()
}

/// Panics with a sentence where `other`, an argument of what `x` is given to, is not f32 as `x` is.
fn check_type<const D: usize>(nth: &str, other: &Tensor<D>) {
    let found = other.dtype();
    assert_eq!(found, DType::F32, "the {nth} tensor is {found:?} where the first is F32: cast one of them");
}

/// Applies a function to one tensor.
pub(super) fn unary<const D: usize, const E: usize>(
    function: Arc<dyn Function<1>>,
    a: Tensor<D>,
) -> Tensor<E> {
    Tensor::from_dispatch(<burn::backend::Dispatch as Functions>::unary(function, a.into_dispatch()))
}

/// Applies a function to two tensors.
pub(super) fn binary<const D: usize, const E: usize, const F: usize>(
    function: Arc<dyn Function<2>>,
    a: Tensor<D>,
    b: Tensor<E>,
) -> Tensor<F> {
    check_type("second", &b);
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(<burn::backend::Dispatch as Functions>::binary(function, a, b))
}

/// Applies a function to three tensors.
pub(super) fn ternary<const D: usize, const E: usize, const F: usize, const G: usize>(
    function: Arc<dyn Function<3>>,
    a: Tensor<D>,
    b: Tensor<E>,
    c: Tensor<F>,
) -> Tensor<G> {
    check_type("second", &b);
    check_type("third", &c);
    Tensor::from_dispatch(<burn::backend::Dispatch as Functions>::ternary(
        function,
        a.into_dispatch(),
        b.into_dispatch(),
        c.into_dispatch(),
    ))
}
