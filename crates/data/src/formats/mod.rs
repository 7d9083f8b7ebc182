//! File formats, one file each. Readers take a path, never panic on any bytes and name the place of an error.
//!
//! [`read_image`], [`read_labels`] and [`read_coordinates`] recognise the format by the file's content; the
//! modules give the formats' own readers and writers.

pub mod cryoppp;
mod delimited;
mod detect;
pub mod eman_box;
pub mod jpeg;
pub mod mrc;
pub mod npy;
pub mod npz;
pub mod png;
mod raster;
pub mod star;
mod text;
pub mod tiff;
pub mod topaz;

pub use detect::{
    IMAGE_EXTENSIONS, coordinates_from_bytes, has_image_extension, image_size, read_coordinates, read_image,
    read_labels,
};
pub use npz::NpzBatch;
pub use raster::{Raster, Samples};

use detect::writable_size;
