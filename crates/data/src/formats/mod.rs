//! File formats, one file each. Readers take a path, never panic on any bytes and name the place of an error.
//!
//! [`read_image`], [`read_labels`] and [`read_coordinates`] recognise the format by the file's content; the
//! modules give the formats' own readers and writers.

mod codecs;
pub mod cryoppp;
mod delimited;
mod detect;
pub mod eman_box;
mod grid;
pub mod hdf5;
pub mod jpeg;
pub mod mrc;
mod nifti;
pub mod npy;
pub mod npz;
pub mod png;
mod raster;
mod stack;
pub mod star;
mod text;
pub mod tiff;
pub mod topaz;
pub mod volume;
mod volume_raw;
mod volume_writer;
pub mod zarr;

pub use detect::{
    IMAGE_EXTENSIONS, coordinates_from_bytes, has_image_extension, image_size, read_coordinates, read_image,
    read_labels,
};
pub use npz::NpzBatch;
pub use raster::{Raster, Samples};
pub use volume::{
    VOLUME_EXTENSIONS, VolumeLabelReader, has_volume_extension, open_volume, open_volume_labels,
    open_volumes, read_volume, read_volume_labels, volume_from_bytes, volume_info, volume_stem,
};
pub use volume_writer::{Stored, VolumeWriter};

use detect::writable_size;
