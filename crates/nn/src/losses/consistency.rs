//! Consistency between student and teacher, Tarvainen & Valpola 2017 (Mean Teacher), <https://arxiv.org/abs/1703.01780>.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

/// Mean squared difference of probabilities; the teacher is a constant.
///
/// In 0..=1.
///
/// # Shapes
/// - `student_logits` and `teacher_probs` of one shape; returns `[1]`.
pub fn probability_mse<const D: usize>(student_logits: Tensor<D>, teacher_probs: Tensor<D>) -> Tensor<1> {
    let difference = sigmoid(student_logits) - teacher_probs.detach();
    (difference.clone() * difference).mean()
}
