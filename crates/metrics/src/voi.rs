//! Variation of information: Meilă 2007, *Comparing clusterings, an information based distance*,
//! <https://doi.org/10.1016/j.jmva.2006.11.013>. In bits, equal to `skimage.metrics.variation_of_information`.

use std::collections::HashMap;

use crate::components::{Connectivity, label};
use crate::error::{Error, check_positive, check_volume};

/// What one segmentation says about the other, in bits. 0 when they are equal up to numbering.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Voi {
    /// `H(prediction | truth)`: what is *split*, objects of the truth in several pieces.
    pub split: f64,
    /// `H(truth | prediction)`: what is *merged*, objects of the truth in one piece.
    pub merge: f64,
}

impl Voi {
    /// The factor of the VOI score of the Vesuvius surface-detection competition.
    pub const ALPHA: f64 = 0.3;

    /// `split + merge`; at least 0.
    pub fn total(&self) -> f64 {
        self.split + self.merge
    }

    /// `1 / (1 + alpha total)`, in `(0, 1]`.
    pub fn score(&self, alpha: f64) -> f64 {
        1.0 / (1.0 + alpha * self.total())
    }
}

/// Variation of information of two labellings, over the voxels whose truth is not `ignore`; 0 without voxels.
///
/// Background is a segment like any other. The floor of predicting a single segment is the truth's own entropy, all
/// of it `merge`.
///
/// # Errors
///
/// When the lengths differ.
pub fn variation_of_information(
    prediction: &[u32],
    truth: &[u32],
    ignore: Option<u32>,
) -> Result<Voi, Error> {
    check_volume(truth.len(), [1, 1, prediction.len()])?;
    let pairs = prediction.iter().copied().zip(truth.iter().copied());
    Ok(of_pairs(pairs.filter(|&(_, truth)| Some(truth) != ignore)))
}

/// Variation of information of the 26-connected components of two masks, over the voxels that are in either, as the
/// Vesuvius surface-detection competition takes it. 0 (perfect) when both are empty.
///
/// Each mask's background is one segment there. Predicting nothing merges all objects of the truth into one; with a
/// single object in the truth it therefore costs nothing: compare with the Dice of the masks.
///
/// # Shapes
/// - prediction, truth `[d, h, w]`
///
/// # Errors
///
/// When a mask does not fill the shape.
pub fn component_voi(prediction: &[bool], truth: &[bool], shape: [usize; 3]) -> Result<Voi, Error> {
    check_volume(prediction.len(), shape)?;
    check_volume(truth.len(), shape)?;
    let numbers = |mask: &[bool]| label(|voxel| mask[voxel], shape, Connectivity::TwentySix).labels;
    let (prediction, truth) = rayon::join(|| numbers(prediction), || numbers(truth));
    Ok(of_pairs(prediction.into_iter().zip(truth).filter(|&(a, b)| a != 0 || b != 0)))
}

/// [`component_voi`] as a score, `1 / (1 + alpha total)`; see [`Voi::ALPHA`].
///
/// # Errors
///
/// When a mask does not fill the shape or `alpha` is not a finite number above 0.
pub fn voi_score(prediction: &[bool], truth: &[bool], shape: [usize; 3], alpha: f64) -> Result<f64, Error> {
    check_positive("alpha", alpha)?;
    Ok(component_voi(prediction, truth, shape)?.score(alpha))
}

fn of_pairs(pairs: impl Iterator<Item = (u32, u32)>) -> Voi {
    let mut joint: HashMap<(u32, u32), u64> = HashMap::new();
    let mut total = 0_u64;
    // Neighbours mostly belong to the same pair of segments: one look-up for a run of them.
    let mut run: Option<((u32, u32), u64)> = None;
    for pair in pairs {
        total += 1;
        match &mut run {
            Some((current, length)) if *current == pair => *length += 1,
            _ => {
                if let Some((done, length)) = run.replace((pair, 1)) {
                    *joint.entry(done).or_default() += length;
                }
            }
        }
    }
    if let Some((done, length)) = run {
        *joint.entry(done).or_default() += length;
    }
    // In a fixed order, so that the sums do not depend on the hash.
    let mut joint: Vec<_> = joint.into_iter().collect();
    joint.sort_unstable();
    let (mut of_prediction, mut of_truth) = (HashMap::<u32, u64>::new(), HashMap::<u32, u64>::new());
    for &((prediction, truth), count) in &joint {
        *of_prediction.entry(prediction).or_default() += count;
        *of_truth.entry(truth).or_default() += count;
    }
    let mut voi = Voi { split: 0.0, merge: 0.0 };
    for &((prediction, truth), count) in &joint {
        let part = count as f64 / total as f64;
        voi.split += part * (of_truth[&truth] as f64 / count as f64).log2();
        voi.merge += part * (of_prediction[&prediction] as f64 / count as f64).log2();
    }
    voi
}
