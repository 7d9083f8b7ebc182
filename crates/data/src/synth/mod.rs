//! Generated data for examples, tests and benchmarks: nothing to download, and the truth is known exactly.

mod ctf;
mod fft;
mod micrographs;
mod specimen;

pub use ctf::Ctf;
pub use micrographs::{Micrograph, MicrographConfig, generate};
pub use specimen::ParticleKind;
