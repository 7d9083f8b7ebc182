//! Contrast transfer function of a transmission electron microscope, weak-phase approximation:
//! Rohou & Grigorieff 2015, *CTFFIND4*, eqs 1–5, <https://doi.org/10.1016/j.jsb.2015.08.008>.

use std::f64::consts::PI;

/// The contrast transfer function of one micrograph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ctf {
    /// Electron wavelength, Å.
    pub wavelength: f64,
    /// Defocus along the axis of astigmatism, Å; underfocus is positive.
    pub defocus_1: f64,
    /// Defocus across the axis of astigmatism, Å.
    pub defocus_2: f64,
    /// Axis of astigmatism, radians from the x axis towards y (down).
    pub astigmatism_angle: f64,
    /// Spherical aberration, Å.
    pub spherical_aberration: f64,
    /// Amplitude contrast, 0..=1.
    pub amplitude_contrast: f64,
    /// Decay of the amplitudes, Å²: the envelope is `exp(-B s² / 4)`.
    pub b_factor: f64,
}

impl Ctf {
    /// Relativistic electron wavelength in Å for an accelerating voltage in kV (300 kV: 0.0197 Å).
    pub fn wavelength_of(voltage: f64) -> f64 {
        let volts = voltage * 1e3;
        12.264_26 / (volts + 0.978_476e-6 * volts * volts).sqrt()
    }

    /// Transfer at spatial frequency `(x, y)` in 1/Å, envelope included, in -1..=1. At the origin it is
    /// minus the amplitude contrast, so dense matter is dark.
    pub fn at(&self, x: f64, y: f64) -> f64 {
        self.transfer(x * x + y * y, x * x - y * y, 2.0 * x * y)
    }

    /// [`Ctf::at`] from `s²`, `s² cos 2α` and `s² sin 2α`: no arc tangent for every pixel.
    pub(super) fn transfer(&self, s2: f64, s2_cos: f64, s2_sin: f64) -> f64 {
        let (sin, cos) = (2.0 * self.astigmatism_angle).sin_cos();
        let astigmatism = 0.5 * (self.defocus_1 - self.defocus_2) * (s2_cos * cos + s2_sin * sin);
        let defocus_s2 = 0.5 * (self.defocus_1 + self.defocus_2) * s2 + astigmatism;
        let lambda = self.wavelength;
        let phase = PI * lambda * (defocus_s2 - 0.5 * lambda * lambda * s2 * s2 * self.spherical_aberration);
        // -w₁ sin χ - w₂ cos χ with w₁² + w₂² = 1 is one sine.
        -(phase + self.amplitude_contrast.asin()).sin() * (-0.25 * self.b_factor * s2).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_wavelength(voltage: f64, expected: f64) {
        let found = Ctf::wavelength_of(voltage);
        assert!((found - expected).abs() < 1e-5, "{voltage} kV: {found} Å, expected {expected}");
    }

    #[test]
    fn wavelengths_are_the_tabulated_ones() {
        // Williams & Carter, Transmission Electron Microscopy, 2nd ed., table 1.2.
        check_wavelength(100.0, 0.03701);
        check_wavelength(200.0, 0.02508);
        check_wavelength(300.0, 0.01969);
    }

    #[test]
    fn the_axis_of_astigmatism_has_the_first_defocus() {
        let round = |defocus| Ctf {
            wavelength: 0.0197,
            defocus_1: defocus,
            defocus_2: defocus,
            astigmatism_angle: 0.0,
            spherical_aberration: 2.7e7,
            amplitude_contrast: 0.07,
            b_factor: 0.0,
        };
        let stigmatic = Ctf { defocus_2: 9e3, astigmatism_angle: 0.4, ..round(15e3) };
        let (sin, cos) = 0.4f64.sin_cos();
        for s in [0.01, 0.03, 0.07] {
            assert!((stigmatic.at(s * cos, s * sin) - round(15e3).at(s, 0.0)).abs() < 1e-9);
            assert!((stigmatic.at(-s * sin, s * cos) - round(9e3).at(s, 0.0)).abs() < 1e-9);
        }
        assert!((stigmatic.at(0.0, 0.0) + 0.07).abs() < 1e-12);
    }
}
