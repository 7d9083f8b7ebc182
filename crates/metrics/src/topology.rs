//! Do two masks have the same components, tunnels and cavities *in the same places*?
//!
//! Betti matching in the sense of Stucki et al. 2023, *Topologically faithful image segmentation via induced matching
//! of persistence barcodes*, <https://arxiv.org/abs/2211.15272>, stated for binary masks through homology over Z/2:
//! with `U` the union of prediction `P` and truth `G` (as closed voxels, so 26-connected),
//!
//! ```text
//! matched_k = dim( im(H_k(P) -> H_k(U))  n  im(H_k(G) -> H_k(U)) )
//! F1_k      = 2 matched_k / (b_k(P) + b_k(G))
//! ```
//!
//! Components and cavities are exact over the whole volume: components of `U` that hold both; and, by Alexander
//! duality, the classes into which the surroundings of `U` fall when joined through those of `P` and of `G`, less one.
//!
//! **Tunnels are counted by blocks.** The volume is cut into disjoint blocks of at most [`TopologyOptions::block`]
//! voxels along each axis, of nearly equal size; in each block the three numbers are exact for the part of the masks
//! inside it, and they are *summed* over the blocks before F1 is taken, so a block counts by the tunnels it has. A
//! loop that is larger than a block is not seen, and a cut may open or close one. With a block as large as the volume
//! (up to [`TopologyOptions::MAX_BLOCK`]) the count is exact.

use rayon::prelude::*;
use serde::Serialize;

use crate::betti::{Parts, euler};
use crate::cells::{Cells, FIRST, SECOND};
use crate::error::{Error, check_volume};
use crate::forest::Forest;

/// Features of one dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FeatureCounts {
    /// Features that prediction and truth share.
    pub matched: u64,
    /// Features of the prediction.
    pub predicted: u64,
    /// Features of the truth.
    pub labelled: u64,
}

impl FeatureCounts {
    /// `2 matched / (predicted + labelled)`; 1 when there is no feature at all.
    pub fn f1(&self) -> f64 {
        if self.predicted + self.labelled == 0 {
            return 1.0;
        }
        2.0 * self.matched as f64 / (self.predicted + self.labelled) as f64
    }

    fn add(&mut self, other: Self) {
        self.matched += other.matched;
        self.predicted += other.predicted;
        self.labelled += other.labelled;
    }
}

/// How tunnels are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopologyOptions {
    /// Voxels of a block along each axis, at most; 1 to [`MAX_BLOCK`](Self::MAX_BLOCK). Memory is about 100
    /// bytes a voxel of a block for each thread.
    pub block: usize,
}

impl TopologyOptions {
    /// Largest accepted block: 3 GB a thread.
    pub const MAX_BLOCK: usize = 320;
}

impl Default for TopologyOptions {
    fn default() -> Self {
        Self { block: 64 }
    }
}

/// Features of prediction and truth in dimensions 0 (components), 1 (tunnels) and 2 (cavities).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopologyCounts(
    /// By dimension.
    pub [FeatureCounts; 3],
);

impl TopologyCounts {
    /// TopoScore: mean of F1 over the dimensions in which either mask has a feature, weighted; 1 when there is none.
    ///
    /// `[1.0; 3]` weighs them equally. The floor of predicting nothing is 0; of predicting everything, the F1 of one
    /// component against those of the truth, in the same mean.
    ///
    /// # Errors
    ///
    /// When a weight is negative or not finite.
    pub fn score(&self, weights: [f64; 3]) -> Result<f64, Error> {
        self.weighted(weights, FeatureCounts::f1)
    }

    pub(crate) fn weighted(
        &self,
        weights: [f64; 3],
        f1: impl Fn(&FeatureCounts) -> f64,
    ) -> Result<f64, Error> {
        if let Some(value) = weights.into_iter().find(|weight| !weight.is_finite() || *weight < 0.0) {
            return Err(Error::Parameter { name: "weight", value, accepted: "a finite number, 0 or above" });
        }
        let (mut sum, mut total) = (0.0, 0.0);
        for (counts, weight) in self.0.iter().zip(weights) {
            if counts.predicted + counts.labelled > 0 {
                sum += weight * f1(counts);
                total += weight;
            }
        }
        Ok(if total > 0.0 { sum / total } else { 1.0 })
    }

    /// Adds the features of another volume.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            mine.add(theirs);
        }
    }
}

/// Counts and matches the features of two masks; see the [module](self) for what is exact and what is by blocks.
///
/// # Shapes
/// - prediction, truth `[d, h, w]`
///
/// # Errors
///
/// When a mask does not fill the shape or the block is too small or too large.
pub fn match_topology(
    prediction: &[bool],
    truth: &[bool],
    shape: [usize; 3],
    options: TopologyOptions,
) -> Result<TopologyCounts, Error> {
    check_volume(prediction.len(), shape)?;
    check_volume(truth.len(), shape)?;
    if !(1..=TopologyOptions::MAX_BLOCK).contains(&options.block) {
        let value = options.block as f64;
        return Err(Error::Parameter { name: "block", value, accepted: "1 to 320" });
    }
    let union = union(prediction, truth);
    let (p, (g, u)) = rayon::join(
        || Parts::new(prediction, shape),
        || rayon::join(|| Parts::new(truth, shape), || Parts::new(&union, shape)),
    );
    let components = FeatureCounts {
        matched: components_matched(&p, &g, &u),
        predicted: p.components(),
        labelled: g.components(),
    };
    let cavities = FeatureCounts {
        matched: cavities_matched(&p, &g, &u),
        predicted: p.cavities(),
        labelled: g.cavities(),
    };
    drop((p, g, u, union));
    let tunnels = blocks(shape, options.block)
        .into_par_iter()
        .map(|block| {
            let size = block.map(|(low, high)| high - low);
            tunnels(&cut(prediction, shape, block), &cut(truth, shape, block), size)
        })
        .reduce(FeatureCounts::default, |mut sum, counts| {
            sum.add(counts);
            sum
        });
    Ok(TopologyCounts([components, tunnels, cavities]))
}

fn union(a: &[bool], b: &[bool]) -> Vec<bool> {
    a.iter().zip(b).map(|(&a, &b)| a || b).collect()
}

/// Components of the union that hold a component of each.
fn components_matched(p: &Parts, g: &Parts, u: &Parts) -> u64 {
    let mut held = vec![0_u8; u.object.count()];
    for (parts, bit) in [(p, 1), (g, 2)] {
        for &voxel in &parts.object.first {
            held[u.object.labels[voxel] as usize - 1] |= bit;
        }
    }
    held.iter().filter(|&&bits| bits == 3).count() as u64
}

/// `H_2(X)` is the functions on the parts of the surroundings of `X`, up to a constant, and the map from `P` to `U`
/// restricts them. What comes from `P` are the functions that are constant where parts of the surroundings of `U` lie
/// in one part of those of `P`; the same for `G`; what comes from both is constant on the classes joined through either.
fn cavities_matched(p: &Parts, g: &Parts, u: &Parts) -> u64 {
    // One node for the outside, then the parts around U, P and G.
    let (of_u, of_p) = (1, 1 + u.around.count());
    let of_g = of_p + p.around.count();
    let mut classes = Forest::new(of_g + g.around.count());
    for (parts, start) in [(u, of_u), (p, of_p), (g, of_g)] {
        for (part, _) in parts.open.iter().enumerate().filter(|&(_, &open)| open) {
            classes.join(0, start + part);
        }
    }
    for (part, &voxel) in u.around.first.iter().enumerate() {
        for (parts, start) in [(p, of_p), (g, of_g)] {
            classes.join(of_u + part, start + parts.around.labels[voxel] as usize - 1);
        }
    }
    // Every class but the outside's, counted once through its smallest member, which is a part around U.
    (of_u..of_p).filter(|&node| classes.root(node) == node).count() as u64
}

/// Exact within a block.
fn tunnels(prediction: &[bool], truth: &[bool], shape: [usize; 3]) -> FeatureCounts {
    let of = |mask: &[bool]| {
        let parts = Parts::new(mask, shape);
        let tunnels = parts.betti(euler(mask, shape)).0[1];
        (parts, tunnels)
    };
    let empty = |mask: &[bool]| !mask.iter().any(|&inside| inside);
    if empty(prediction) && empty(truth) {
        return FeatureCounts::default();
    }
    let ((p, predicted), (g, labelled)) = (of(prediction), of(truth));
    let counts = FeatureCounts { matched: 0, predicted, labelled };
    if predicted == 0 || labelled == 0 {
        return counts;
    }
    if prediction == truth {
        return FeatureCounts { matched: predicted, ..counts };
    }
    let union = union(prediction, truth);
    let (_, of_union) = of(&union);
    let cells = Cells::new(prediction, truth, shape);
    let kept = |mask: &[bool], object, parts: &Parts, tunnels| {
        if mask == union { tunnels } else { cells.tunnels_kept(object, parts.components()) }
    };
    let (from_prediction, from_truth) =
        rayon::join(|| kept(prediction, FIRST, &p, predicted), || kept(truth, SECOND, &g, labelled));
    // Mayer-Vietoris: the tunnels of the union that come from neither are as many as the relations between parts of
    // the intersection that hold in both masks.
    let meeting = cells.meeting();
    let mut joined = Forest::new(p.object.count() + g.object.count());
    let mut independent = 0;
    for &corner in &meeting {
        let part = |mask: &[bool], parts: &Parts| {
            let voxel = cells.voxel_at(corner, mask, shape)?;
            Some(parts.object.labels[voxel] as usize - 1)
        };
        if let (Some(a), Some(b)) = (part(prediction, &p), part(truth, &g)) {
            independent += u64::from(joined.join(a, p.object.count() + b));
        }
    }
    let from_either = of_union - (meeting.len() as u64 - independent);
    FeatureCounts { matched: from_prediction + from_truth - from_either, ..counts }
}

/// Cuts an axis into the fewest pieces of at most `longest`; the first ones may be longer by one.
pub(crate) fn pieces(length: usize, longest: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = length.div_ceil(longest);
    let (short, longer) = (length / count.max(1), length % count.max(1));
    let start = move |k: usize| k * short + k.min(longer);
    (0..count).map(move |k| (start(k), start(k + 1)))
}

type Block = [(usize, usize); 3];

fn blocks(shape: [usize; 3], longest: usize) -> Vec<Block> {
    let [d, h, w] = shape;
    let mut blocks = Vec::new();
    for z in pieces(d, longest) {
        for y in pieces(h, longest) {
            blocks.extend(pieces(w, longest).map(|x| [z, y, x]));
        }
    }
    blocks
}

pub(crate) fn cut(mask: &[bool], [_, h, w]: [usize; 3], [z, y, x]: Block) -> Vec<bool> {
    let mut part = Vec::with_capacity((z.1 - z.0) * (y.1 - y.0) * (x.1 - x.0));
    for z in z.0..z.1 {
        for y in y.0..y.1 {
            part.extend_from_slice(&mask[(z * h + y) * w..][x.0..x.1]);
        }
    }
    part
}
