//! Generated data for examples, tests and benchmarks: nothing to download, and the truth is known exactly.

mod ctf;
mod fft;
mod micrographs;
mod specimen;
mod volumes;

pub use ctf::Ctf;
pub use micrographs::{Micrograph, MicrographConfig, generate};
pub use specimen::ParticleKind;
pub use volumes::{MembraneConfig, OrganConfig, PatchClassConfig, membranes, organ, patch_class};
