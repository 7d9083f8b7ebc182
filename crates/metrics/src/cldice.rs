//! Centreline Dice: Shit et al. 2021, *clDice, a novel topology-preserving loss function for tubular structure
//! segmentation*, <https://arxiv.org/abs/2003.07311>.

use crate::error::{Error, check_volume};
use crate::skeleton::skeleton;

/// Centreline Dice and its two halves, in `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ClDice {
    /// Share of the prediction's skeleton that lies in the truth; `NaN` when the prediction is empty.
    pub precision: f64,
    /// Share of the truth's skeleton that lies in the prediction; `NaN` when the truth is empty.
    pub sensitivity: f64,
    /// Their harmonic mean; 0 when exactly one mask is empty or nothing overlaps, `NaN` when both are empty.
    pub cldice: f64,
}

/// Centreline Dice of two masks. Its floor is that of predicting everything or nothing: 0 for nothing; for
/// everything, the sensitivity is 1 and the precision a matter of where the truth lies.
///
/// # Shapes
/// - prediction, truth `[d, h, w]`
///
/// # Errors
///
/// When a mask does not fill the shape.
pub fn cldice(prediction: &[bool], truth: &[bool], shape: [usize; 3]) -> Result<ClDice, Error> {
    check_volume(prediction.len(), shape)?;
    check_volume(truth.len(), shape)?;
    let share = |skeleton: &[bool], mask: &[bool]| {
        let total = skeleton.iter().filter(|&&inside| inside).count();
        let hit = skeleton.iter().zip(mask).filter(|&(&a, &b)| a && b).count();
        if total == 0 { f64::NAN } else { hit as f64 / total as f64 }
    };
    let (of_prediction, of_truth) = rayon::join(|| skeleton(prediction, shape), || skeleton(truth, shape));
    let precision = share(&of_prediction?, truth);
    let sensitivity = share(&of_truth?, prediction);
    let cldice = match (precision.is_nan(), sensitivity.is_nan()) {
        (true, true) => f64::NAN,
        (false, false) if precision + sensitivity > 0.0 => {
            2.0 * precision * sensitivity / (precision + sensitivity)
        }
        _ => 0.0,
    };
    Ok(ClDice { precision, sensitivity, cldice })
}
