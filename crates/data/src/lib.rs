//! Data for Trimtab: file formats (one file each), coordinates and masks, tiles, augmentation, the
//! deterministic loader, synthetic micrographs. Plain arrays only: this crate knows neither tensors nor
//! configuration.

pub mod atomic;
pub mod audit;
pub mod augment;
pub mod augment3d;
mod cache;
pub mod coordinates;
pub mod dataset;
pub mod discs;
pub mod error;
pub mod formats;
pub mod image;
pub mod loader;
pub mod overlay;
pub mod picking;
pub mod rng;
pub mod synth;
pub mod tiles;
pub mod volume;
pub mod volumes;

pub use coordinates::{MicrographParticles, Particle};
pub use error::{DataError, Result};
pub use image::{Image, Labels};
pub use volume::{Geometry, Shape, Volume, VolumeInfo, VolumeLabels, VolumePatch, VolumeReader};
