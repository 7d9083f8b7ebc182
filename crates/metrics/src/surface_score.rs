//! The score of the Vesuvius surface-detection competition: topology, surface and components in one number.

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, check_positive, check_spacing, check_volume};
use crate::overlap::IGNORE;
use crate::surface::surface_distances;
use crate::topology::{FeatureCounts, TopologyCounts, TopologyOptions, cut, match_topology, pieces};
use crate::voi::{Voi, component_voi};

/// What the score is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SurfaceScoreOptions {
    /// Distance up to which surfaces agree, in the unit of the spacing; 2 in the competition.
    pub tolerance: f64,
    /// Factor of the VOI score, `1 / (1 + alpha VOI)`; .3 in the competition.
    pub alpha: f64,
    /// Weights of TopoScore, surface Dice and VOI score; .30, .35, .35 in the competition.
    pub mix: [f64; 3],
    /// Weights of components, tunnels and cavities in the TopoScore; .34, .33, .33 in the competition.
    pub dimensions: [f64; 3],
    /// How tunnels are counted within an eighth of the volume. By default an eighth of up to 160 voxels along each
    /// axis is counted whole, which the competition's (of 320) are.
    pub topology: TopologyOptions,
}

impl Default for SurfaceScoreOptions {
    fn default() -> Self {
        Self {
            tolerance: 2.0,
            alpha: Voi::ALPHA,
            mix: [0.30, 0.35, 0.35],
            dimensions: [0.34, 0.33, 0.33],
            topology: TopologyOptions { block: 160 },
        }
    }
}

/// The score, its parts, and what a predictor blind to the image gets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SurfaceScore {
    /// The weighted mean of the three parts, in `[0, 1]`.
    pub score: f64,
    /// Weighted mean of the F1 of components, tunnels and cavities, each counted in the eight octants of the
    /// volume and summed, as the competition does. In a dimension in which the truth has nothing and the prediction
    /// `p` features, the competition gives `.5 / (p + .5)`.
    pub topo_score: f64,
    /// Surface Dice at the tolerance; 1 when both masks are empty.
    pub surface_dice: f64,
    /// `1 / (1 + alpha VOI)`; 1 when both masks are empty.
    pub voi_score: f64,
    /// The features behind the TopoScore.
    pub topology: TopologyCounts,
    /// Variation of information of the components.
    pub voi: Voi,
}

/// Scores foreground masks. Voxels whose truth is [`IGNORE`] are background in both masks; any other label or
/// prediction but 0 is foreground.
///
/// For the score's floor, see [`surface_score_floor`].
///
/// # Shapes
/// - prediction, truth `[d, h, w]`, spacing `[d, h, w]`
///
/// # Errors
///
/// When an array does not fill the shape, or an option or spacing is outside its range.
pub fn surface_score(
    prediction: &[u8],
    truth: &[u8],
    shape: [usize; 3],
    spacing: [f64; 3],
    options: &SurfaceScoreOptions,
) -> Result<SurfaceScore, Error> {
    check_volume(prediction.len(), shape)?;
    check_volume(truth.len(), shape)?;
    let valid = |&(_, &truth): &(&u8, &u8)| truth != IGNORE;
    let prediction: Vec<bool> =
        prediction.iter().zip(truth).map(|pair| valid(&pair) && *pair.0 != 0).collect();
    let truth: Vec<bool> = truth.iter().map(|&label| label != 0 && label != IGNORE).collect();
    of_masks(&prediction, &truth, shape, spacing, options)
}

/// The better of the scores of predicting nothing and of predicting everything: what a network has to beat.
///
/// # Errors
///
/// As [`surface_score`].
pub fn surface_score_floor(
    truth: &[u8],
    shape: [usize; 3],
    spacing: [f64; 3],
    options: &SurfaceScoreOptions,
) -> Result<SurfaceScore, Error> {
    let nothing = surface_score(&vec![0; truth.len()], truth, shape, spacing, options)?;
    let everything = surface_score(&vec![1; truth.len()], truth, shape, spacing, options)?;
    Ok(if everything.score > nothing.score { everything } else { nothing })
}

fn of_masks(
    prediction: &[bool],
    truth: &[bool],
    shape: [usize; 3],
    spacing: [f64; 3],
    options: &SurfaceScoreOptions,
) -> Result<SurfaceScore, Error> {
    check_spacing(spacing)?;
    check_positive("tolerance", options.tolerance)?;
    check_positive("alpha", options.alpha)?;
    if let Some(value) = options.mix.into_iter().find(|weight| !weight.is_finite() || *weight < 0.0) {
        return Err(Error::Parameter { name: "mix", value, accepted: "finite numbers, 0 or above" });
    }
    let total: f64 = options.mix.iter().sum();
    check_positive("mix", total)?;

    let halves = shape.map(|length| pieces(length, length.div_ceil(2).max(1)).collect::<Vec<_>>());
    let mut eighths = Vec::new();
    for &z in &halves[0] {
        for &y in &halves[1] {
            eighths.extend(halves[2].iter().map(|&x| [z, y, x]));
        }
    }
    let topology = eighths
        .into_par_iter()
        .map(|eighth| {
            let size = eighth.map(|(low, high)| high - low);
            let (p, g) = (cut(prediction, shape, eighth), cut(truth, shape, eighth));
            match_topology(&p, &g, size, options.topology)
        })
        .try_reduce(TopologyCounts::default, |mut sum, counts| {
            sum.merge(&counts);
            Ok(sum)
        })?;
    let topo_score = topology.weighted(options.dimensions, |counts: &FeatureCounts| {
        if counts.labelled == 0 { 0.5 / (counts.predicted as f64 + 0.5) } else { counts.f1() }
    })?;
    let dice = surface_distances(prediction, truth, shape, spacing)?.dice(options.tolerance);
    let surface_dice = if dice.is_nan() { 1.0 } else { dice };
    let voi = component_voi(prediction, truth, shape)?;
    let voi_score = voi.score(options.alpha);
    let [topo, surface, information] = options.mix;
    Ok(SurfaceScore {
        score: (topo * topo_score + surface * surface_dice + information * voi_score) / total,
        topo_score,
        surface_dice,
        voi_score,
        topology,
        voi,
    })
}
