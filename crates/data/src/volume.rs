//! Three-dimensional images and label maps.
//!
//! Axes: c = channel, d = depth (slices, z), h = height (rows, y), w = width (columns, x); w runs fastest.

use std::ops::Range;

use crate::error::Result;

/// Size of a volume in voxels: depth, height, width.
pub type Shape = [usize; 3];

/// Where the voxels of a volume lie in the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Distance of neighbouring voxels along depth, height and width, in millimetres; 1 where the file says nothing.
    pub spacing: [f64; 3],
    /// From voxel `(w, h, d, 1)` to the world's `(x, y, z)` in millimetres, x to the right, y to the front, z up (NIfTI's
    /// convention). Scaling by `spacing` where the file says nothing.
    pub affine: [[f64; 4]; 3],
    /// For each stored axis (fastest first) the axis of the volume it became, 0 = w, 1 = h, 2 = d, and whether it was
    /// turned round. Readers bring volumes to the orientation nearest to x right, y front, z up, so that an image and its labels fit even
    /// if stored differently; writers undo it, so that a prediction has the grid of its input file.
    pub stored: [(usize, bool); 3],
}

impl Default for Geometry {
    fn default() -> Self {
        Self::with_spacing([1.0; 3])
    }
}

impl Geometry {
    /// Of a file that says nothing but the spacing (depth, height, width).
    pub fn with_spacing(spacing: [f64; 3]) -> Self {
        let [d, h, w] = spacing;
        Self {
            spacing,
            affine: [[w, 0.0, 0.0, 0.0], [0.0, h, 0.0, 0.0], [0.0, 0.0, d, 0.0]],
            stored: [(0, false), (1, false), (2, false)],
        }
    }
}

/// An image of one or more channels. `values.len() == channels * d * h * w`, in the units of the file (its own scaling applied).
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Number of channels.
    pub channels: usize,
    /// Depth, height, width.
    pub shape: Shape,
    /// `[c, d, h, w]`.
    pub values: Vec<f32>,
    /// Where the voxels lie.
    pub geometry: Geometry,
}

/// A label for every voxel, as the file has them.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeLabels {
    /// Depth, height, width.
    pub shape: Shape,
    /// `[d, h, w]`.
    pub values: Vec<i32>,
    /// Where the voxels lie.
    pub geometry: Geometry,
}

/// What a file holds, from its header.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeInfo {
    /// Number of channels.
    pub channels: usize,
    /// Depth, height, width.
    pub shape: Shape,
    /// Where the voxels lie.
    pub geometry: Geometry,
}

/// Reads a volume a few slices at a time, so that one larger than the memory can be worked on.
pub trait VolumeReader: Send {
    /// What the file holds.
    fn info(&self) -> &VolumeInfo;

    /// The values `[c, slices, h, w]` of a range of slices (along d). Cheapest for ranges in ascending order.
    ///
    /// # Errors
    /// The file is truncated or corrupt, or can't be read.
    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>>;
}

/// Number of voxels of a shape.
pub fn voxels(shape: Shape) -> usize {
    shape.iter().product()
}

/// The label of a voxel that counts nowhere: not in losses, not in metrics, not in shares.
pub const IGNORE: u8 = 255;

/// A piece of a volume, ready to train on.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumePatch {
    /// Number of channels.
    pub channels: usize,
    /// Depth, height, width.
    pub shape: Shape,
    /// `[c, d, h, w]`, normalised intensities.
    pub image: Vec<f32>,
    /// `[d, h, w]`: class, or [`IGNORE`]; empty where unlabelled.
    pub labels: Vec<u8>,
}
