//! Boundary losses from a signed distance map.
//!
//! `distance` is the signed distance of each voxel from the target's boundary, negative inside the object (Kervadec's
//! convention), in voxels or in units of the spacing; it must be finite, 0 throughout where a volume has no boundary.

use burn::tensor::Tensor;

use super::{bce_with_logits_map, masked_mean, weighted_mean};

/// How a weight falls with the distance from the boundary, on both sides of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistanceBand {
    /// Weight 1 up to this distance.
    pub full: f64,
    /// Weight 0 from this distance on, linear between; at least `full`, where equal the weight steps.
    pub zero: f64,
}

impl Default for DistanceBand {
    /// 1 up to 3 voxels, 0 from 5 on.
    fn default() -> Self {
        Self { full: 3.0, zero: 5.0 }
    }
}

impl DistanceBand {
    /// The weight at each distance, in 0..=1; the sign of the distance does not matter, and an infinite one has weight 0.
    pub fn weights<const D: usize>(&self, distance: Tensor<D>) -> Tensor<D> {
        let width = (self.zero - self.full).max(1e-6);
        ((distance.abs().neg() + self.zero) / width).clamp(0.0, 1.0)
    }
}

/// Binary cross-entropy weighted by a band around the boundary, divided by the sum of these weights over the valid values (so
/// that it does not fall with the share of the volume that is near a boundary); 0 where that is 0.
///
/// At least 0.
///
/// # Shapes
/// - `logits`, `target` (0/1), `distance`, `valid` of one shape; returns `[1]`.
pub fn boundary_weighted_bce<const D: usize>(
    logits: Tensor<D>,
    target: Tensor<D>,
    distance: Tensor<D>,
    valid: Tensor<D>,
    band: DistanceBand,
) -> Tensor<1> {
    weighted_mean(bce_with_logits_map(logits, target, 1.0), band.weights(distance) * valid)
}

/// `mean(p phi)` over the valid values, Kervadec et al. 2019, <https://arxiv.org/abs/1812.07032>, eq. 5; phi = `distance`. 0 where
/// none is valid.
///
/// Negative for a good segmentation: its lowest value, which it takes at p = target, is the sum of the negative distances over the
/// number of valid values. It has no pull of its own against an empty prediction, so the paper adds it to a region loss.
///
/// # Shapes
/// - `probs`, `distance`, `valid` of one shape; returns `[1]`.
pub fn boundary_loss<const D: usize>(probs: Tensor<D>, distance: Tensor<D>, valid: Tensor<D>) -> Tensor<1> {
    masked_mean(probs * distance, valid)
}
