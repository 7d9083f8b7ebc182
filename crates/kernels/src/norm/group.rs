//! Group normalisation; instance normalisation is that of groups of one channel.

use std::ops::Range;

use super::plane::{self, Affine, Moments, Part, Planes};
use super::{Activation, Shape};
use crate::par::Shared;
use crate::{Isa, scratch};

/// The tensor as regions of one sample and group each, which lie in one piece.
#[derive(Clone, Copy)]
struct Groups<'a> {
    shape: Shape,
    groups: usize,
    slope: f32,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl Groups<'_> {
    fn regions(self) -> usize {
        self.shape.batch * self.groups
    }

    fn channels(self) -> usize {
        self.shape.channels / self.groups
    }

    /// Elements of a region.
    fn len(self) -> usize {
        self.channels() * self.shape.inner
    }

    fn first_channel(self, region: usize) -> usize {
        region % self.groups * self.channels()
    }

    /// The part by channels, each with its place in the whole tensor.
    fn pieces(self, part: &Part) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (inner, region, mut rest) = (self.shape.inner, part.region * self.len(), part.range.clone());
        let channel = self.first_channel(part.region);
        std::iter::from_fn(move || {
            let start = rest.start;
            rest.start = rest.end.min((start / inner.max(1) + 1) * inner);
            (start < rest.start).then(|| (channel + start / inner, region + start..region + rest.start))
        })
    }

    fn weight(self, channel: usize) -> f32 {
        self.weight.map_or(1.0, |weight| weight[channel])
    }

    fn affine(self, channel: usize, mean: f32, rstd: f32) -> Affine {
        let bias = self.bias.map_or(0.0, |bias| bias[channel]);
        Affine { mean, scale: self.weight(channel) * rstd, bias, slope: self.slope }
    }

    fn check(self, x: &[f32]) {
        let Self { shape, groups, .. } = self;
        assert!(
            groups > 0 && shape.channels.is_multiple_of(groups),
            "groups: {groups} of {} channels",
            shape.channels
        );
        assert_eq!(x.len(), shape.elements(), "x");
        assert_eq!(self.weight.map_or(shape.channels, <[f32]>::len), shape.channels, "weight");
        assert_eq!(self.bias.map_or(shape.channels, <[f32]>::len), shape.channels, "bias");
    }
}

/// `y = act(weight * (x - mean) * rstd + bias)` with mean and variance of each sample's each group of neighbouring
/// channels: PyTorch's `F.group_norm`. With `groups == channels` it is `F.instance_norm`, with one group
/// `F.layer_norm` over all but the batch.
///
/// # Shapes
/// - x, y `[batch, channels, inner]`; weight (else 1), bias (else 0) `[channels]`
/// - mean, rstd `[batch, groups]`, written; `rstd = 1 / sqrt(variance + epsilon)`
///
/// # Panics
/// If a slice has another length, or `groups` does not divide the channels.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn group(
    shape: Shape,
    groups: usize,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let groups = Groups { shape, groups, slope: activation.slope(), weight, bias };
    groups.check(x);
    assert_eq!(y.len(), x.len(), "y");
    assert_eq!(mean.len(), groups.regions(), "mean");
    assert_eq!(rstd.len(), groups.regions(), "rstd");
    let isa = Isa::current();
    let (y, means, rstds) = (Shared::new(y), Shared::new(mean), Shared::new(rstd));
    let first = |part: &Part| plane::moments(isa, &x[part.region * groups.len()..][part.range.clone()]);
    let second = |part: &Part, moments: Moments| {
        let r = part.region;
        let mean = moments[1] as f32;
        let rstd = (1.0 / (plane::variance(moments) + f64::from(epsilon)).sqrt()) as f32;
        if part.index == 0 {
            // SAFETY: the first part of the region, and nothing else, writes its statistics.
            unsafe {
                means.slice(r..r + 1)[0] = mean;
                rstds.slice(r..r + 1)[0] = rstd;
            }
        }
        for (channel, piece) in groups.pieces(part) {
            let planes = Planes::one(piece.start, piece.len());
            plane::normalise(isa, planes, 0..piece.len(), groups.affine(channel, mean, rstd), x, y);
        }
    };
    plane::two_passes(groups.regions(), groups.len(), first, plane::join, second);
}

/// Gradients of [`group`], those that are wanted, from the gradient `dy` of its output.
///
/// # Shapes
/// - x, dy, dx `[batch, channels, inner]`; weight, bias, dweight, dbias `[channels]`; mean, rstd `[batch, groups]`
///
/// `mean` and `rstd` are what [`group`] wrote. The gradients are overwritten, not added to.
///
/// # Panics
/// If a slice has another length, or `groups` does not divide the channels.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn group_backward(
    shape: Shape,
    groups: usize,
    activation: Activation,
    x: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    mean: &[f32],
    rstd: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
) {
    let groups = Groups { shape, groups, slope: activation.slope(), weight, bias };
    groups.check(x);
    assert_eq!(mean.len(), groups.regions(), "mean");
    assert_eq!(rstd.len(), groups.regions(), "rstd");
    assert_eq!(dy.len(), x.len(), "dy");
    assert_eq!(dx.as_deref().map_or(x.len(), <[f32]>::len), x.len(), "dx");
    assert_eq!(dweight.as_deref().map_or(shape.channels, <[f32]>::len), shape.channels, "dweight");
    assert_eq!(dbias.as_deref().map_or(shape.channels, <[f32]>::len), shape.channels, "dbias");
    let isa = Isa::current();
    let dx = dx.map(Shared::new);
    let (regions, channels, count) = (groups.regions(), groups.channels(), groups.len() as f64);
    let parts = plane::parts(regions, groups.len());
    // For each part the sums of dweight and dbias over its group's channels.
    scratch::with(regions * parts * 2 * channels, |kept| {
        let shared = Shared::new(kept);
        let first = |part: &Part| {
            let (r, at) = (part.region, (part.region * parts + part.index) * 2 * channels);
            // SAFETY: each part has its own.
            let kept = unsafe { shared.slice(at..at + 2 * channels) };
            kept.fill(0.0);
            let mut weighted = [0.0; 2];
            for (channel, piece) in groups.pieces(part) {
                let affine = groups.affine(channel, mean[r], rstd[r]);
                let [g, product] = plane::gradient_sums(isa, affine, &x[piece.clone()], &dy[piece]);
                let (w, normalised) = (f64::from(groups.weight(channel)), product * f64::from(rstd[r]));
                weighted = [weighted[0] + w * g, weighted[1] + w * normalised];
                let i = channel - groups.first_channel(r);
                kept[2 * i] = normalised as f32;
                kept[2 * i + 1] = g as f32;
            }
            weighted
        };
        let second = |part: &Part, sums: [f64; 2]| {
            let Some(dx) = dx else { return };
            let r = part.region;
            let scale = f64::from(rstd[r]);
            let by = [(scale * sums[0] / count) as f32, (scale * scale * sums[1] / count) as f32];
            for (channel, piece) in groups.pieces(part) {
                let planes = Planes::one(piece.start, piece.len());
                let affine = groups.affine(channel, mean[r], rstd[r]);
                plane::gradient(isa, planes, 0..piece.len(), affine, by, x, dy, dx);
            }
        };
        plane::two_passes(regions, groups.len(), first, |a, b| [a[0] + b[0], a[1] + b[1]], second);
        for (which, gradient) in [dweight, dbias].into_iter().enumerate() {
            for (channel, gradient) in gradient.into_iter().flatten().enumerate() {
                let (group, i) = (channel / channels, channel % channels);
                let of_part = |part: usize| f64::from(kept[part * 2 * channels + 2 * i + which]);
                let of_region =
                    |region: usize| (region * parts..(region + 1) * parts).map(of_part).sum::<f64>();
                *gradient = (group..regions).step_by(groups.groups).map(of_region).sum::<f64>() as f32;
            }
        }
    });
}
