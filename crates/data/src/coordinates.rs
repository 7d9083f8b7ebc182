//! Particle coordinates, independent of the file format they came from.

/// One particle in a micrograph, in pixels of that micrograph, y down; the centre of the first pixel is (0, 0).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Particle {
    /// Centre, in pixels from the left.
    pub x: f64,
    /// Centre, in pixels from the top.
    pub y: f64,
    /// Diameter in pixels, where the format has one.
    pub diameter: Option<f64>,
    /// Figure of merit (for our own picks: mean probability in the disc, 0..=1), where the format has one.
    pub score: Option<f64>,
}

/// The particles of one micrograph.
#[derive(Debug, Clone, PartialEq)]
pub struct MicrographParticles {
    /// Micrograph name as the file gives it; empty where the format has none (`.box`, CryoPPP `.csv`).
    pub micrograph: String,
    /// Particles in file order.
    pub particles: Vec<Particle>,
}
