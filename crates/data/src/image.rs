//! Two-dimensional images and label maps, row-major, y down.

/// A grey image. `pixels.len() == width * height`; row `y` is `pixels[y * width..][..width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Intensities in the units of the file (16-bit files: 0..=65535), not normalised.
    pub pixels: Vec<f32>,
}

/// A label map of the same layout as [`Image`]; values as the file has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Label per pixel.
    pub values: Vec<i32>,
}

impl Image {
    /// An image filled with `value`.
    pub fn filled(width: usize, height: usize, value: f32) -> Self {
        Self { width, height, pixels: vec![value; width * height] }
    }
}

impl Labels {
    /// A label map filled with `value`.
    pub fn filled(width: usize, height: usize, value: i32) -> Self {
        Self { width, height, values: vec![value; width * height] }
    }
}
