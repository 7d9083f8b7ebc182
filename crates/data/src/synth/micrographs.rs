//! Synthetic cryo-EM micrographs: projections of randomly oriented particles in ice, seen through a microscope's
//! contrast transfer function and counted by a noisy detector.
//!
//! The order is that of the real thing: specimen (particles, debris, carbon, contamination) and ice noise →
//! contrast transfer function → uneven illumination → shot noise. Everything is a pure function of the
//! configuration, the seed and the index.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;
use rustfft::num_complex::Complex;

use super::ctf::Ctf;
use super::fft::{fast_size, filter};
use super::specimen::{Canvas, ParticleKind, random_rotation};
use crate::rng::{Stream, rng};
use crate::{Image, Labels, Particle, discs};

/// Grey level of the mean and of one standard deviation of the noise: what 16-bit exports of real micrographs
/// commonly have, with room for ±5 standard deviations.
const MEAN_LEVEL: f64 = 32_768.0;
const NOISE_LEVEL: f64 = 6_500.0;
/// Electrons per Å² of an exposure; sets how far shot noise falls where the specimen is dark.
const DOSE: f64 = 40.0;
/// Smallest distance between two particles' centres, in diameters.
const SEPARATION: f64 = 1.0;
/// Contrasts relative to a particle's, after the contrast transfer function and in what enters it. The second
/// makes the Fresnel fringe, the first is what scattering outside the aperture takes away.
const CARBON_DARKNESS: f64 = 1.0;
const CARBON_PHASE: f64 = 2.5;
const CONTAMINATION_DARKNESS: f64 = 5.0;
const CONTAMINATION_PHASE: f64 = 10.0;
/// Noise of amorphous carbon relative to that of ice.
const CARBON_GRAIN: f64 = 2.6;

/// What [`generate`] makes. Values outside their range are clamped to it and those that are not numbers are
/// replaced by the default, so that every configuration yields a micrograph.
///
/// The default is a micrograph of 256 × 256 pixels, apoferritin-like, of which a small network learns to mark
/// most particles within some hundred steps; it resembles EMPIAR-10146 averaged over 3 × 3 pixels, with more
/// noise. For finer pixels see [`MicrographConfig::magnified`].
#[derive(Debug, Clone, PartialEq)]
pub struct MicrographConfig {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Size of a pixel in the specimen, Å, 0.1..=100.
    pub pixel_size: f64,
    /// Diameter of a particle and of its disc in the mask, pixels, 2..=100000.
    pub particle_diameter: f64,
    /// Share of the area outside carbon that the particles' discs cover, 0..=1. Random packing saturates at
    /// about 0.5; more is asked in vain.
    pub density: f64,
    /// What the particles look like.
    pub particle: ParticleKind,
    /// Smallest and largest defocus, µm, each 0..=20; underfocus is positive. Each micrograph draws its own.
    pub defocus: [f64; 2],
    /// Largest difference between the defoci of the two axes, µm, 0..=5.
    pub astigmatism: f64,
    /// Accelerating voltage, kV, 10..=2000.
    pub voltage: f64,
    /// Spherical aberration, mm, 0..=20.
    pub spherical_aberration: f64,
    /// Share of amplitude contrast, 0..=1.
    pub amplitude_contrast: f64,
    /// Decay of the specimen's amplitudes with resolution, Å², 0..=100000.
    pub b_factor: f64,
    /// Variance of a particle inside its disc, after the contrast transfer function at the middle defocus, over
    /// the variance of the noise; per pixel, 0..=10000. 0 leaves nothing but noise to see.
    pub signal_to_noise: f64,
    /// Share of the noise's variance that comes from the ice, before the contrast transfer function, and so
    /// shows Thon rings; 0..=1. The rest is shot noise.
    pub ice_noise: f64,
    /// Change of the background across the micrograph from uneven ice, in standard deviations of the noise,
    /// 0..=10.
    pub ice_gradient: f64,
    /// How much darker than the centre the corners are, in standard deviations of the noise, 0..=10.
    pub vignetting: f64,
    /// Share of micrographs that the edge of a hole in the carbon film crosses, 0..=1; spread evenly over a
    /// set's indices, so that a set of few has its share as well.
    pub carbon_edge_probability: f64,
    /// Mean number of dark lumps of contamination in a micrograph, 0..=100.
    pub contamination: f64,
    /// Broken particles, not labelled, per particle, 0..=10.
    pub debris: f64,
}

impl Default for MicrographConfig {
    fn default() -> Self {
        Self {
            width: 256,
            height: 256,
            pixel_size: 4.7,
            particle_diameter: 26.0,
            density: 0.30,
            particle: ParticleKind::HollowSphere,
            defocus: [1.2, 2.8],
            astigmatism: 0.08,
            voltage: 300.0,
            spherical_aberration: 2.7,
            amplitude_contrast: 0.07,
            b_factor: 400.0,
            signal_to_noise: 0.4,
            ice_noise: 0.2,
            ice_gradient: 0.8,
            vignetting: 0.3,
            carbon_edge_probability: 0.2,
            contamination: 0.4,
            debris: 0.2,
        }
    }
}

impl MicrographConfig {
    /// The same specimen in `factor` times finer pixels, in an image of the same number of pixels: shot noise
    /// is per pixel, so its share of the noise grows and the signal to noise ratio falls with the square.
    pub fn magnified(&self, factor: f64) -> Self {
        let area = factor * factor;
        let noise = self.ice_noise + (1.0 - self.ice_noise) * area;
        Self {
            pixel_size: self.pixel_size / factor,
            particle_diameter: self.particle_diameter * factor,
            signal_to_noise: self.signal_to_noise / noise,
            ice_noise: self.ice_noise / noise,
            ..self.clone()
        }
    }

    /// This configuration with every value in its range.
    fn sanitised(&self) -> Self {
        let default = Self::default();
        let within = |value: f64, default: f64, low: f64, high: f64| {
            if value.is_nan() { default } else { value.clamp(low, high) }
        };
        let mut defocus = [0, 1].map(|i| within(self.defocus[i], default.defocus[i], 0.0, 20.0));
        defocus.sort_by(f64::total_cmp);
        Self {
            width: self.width,
            height: self.height,
            pixel_size: within(self.pixel_size, default.pixel_size, 0.1, 100.0),
            particle_diameter: within(self.particle_diameter, default.particle_diameter, 2.0, 1e5),
            density: within(self.density, default.density, 0.0, 1.0),
            particle: self.particle,
            defocus,
            astigmatism: within(self.astigmatism, default.astigmatism, 0.0, 5.0),
            voltage: within(self.voltage, default.voltage, 10.0, 2e3),
            spherical_aberration: within(self.spherical_aberration, default.spherical_aberration, 0.0, 20.0),
            amplitude_contrast: within(self.amplitude_contrast, default.amplitude_contrast, 0.0, 1.0),
            b_factor: within(self.b_factor, default.b_factor, 0.0, 1e5),
            signal_to_noise: within(self.signal_to_noise, default.signal_to_noise, 0.0, 1e4),
            ice_noise: within(self.ice_noise, default.ice_noise, 0.0, 1.0),
            ice_gradient: within(self.ice_gradient, default.ice_gradient, 0.0, 10.0),
            vignetting: within(self.vignetting, default.vignetting, 0.0, 10.0),
            carbon_edge_probability: within(
                self.carbon_edge_probability,
                default.carbon_edge_probability,
                0.0,
                1.0,
            ),
            contamination: within(self.contamination, default.contamination, 0.0, 100.0),
            debris: within(self.debris, default.debris, 0.0, 10.0),
        }
    }
}

/// A synthetic micrograph and the truth about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Micrograph {
    /// Whole numbers in 0..=65535, particles dark on light: saving as 16-bit PNG loses nothing.
    pub image: Image,
    /// Every particle, sorted by row, then column. Centres lie inside the image and at least a diameter apart;
    /// `diameter` is set, `score` is not.
    pub particles: Vec<Particle>,
    /// 1 inside the particles' discs, else 0.
    pub mask: Labels,
    /// The contrast transfer function of this micrograph.
    pub ctf: Ctf,
}

/// The micrograph number `index` of the set that `seed` stands for.
///
/// Same arguments, same bits, whatever the number of threads and whatever was generated before. Layout, optics
/// and noise draw from separate streams: a change of, say, the signal to noise ratio leaves every particle
/// where it is.
///
/// No particle is placed when a single disc would overshoot the asked density by more than it falls short
/// without: a particle larger than the image therefore gives an empty mask, unless the density is near 1.
pub fn generate(config: &MicrographConfig, seed: u64, index: u64) -> Micrograph {
    let config = config.sanitised();
    let part = |number| {
        let mut generator = rng(seed, Stream::Synth, index);
        generator.set_stream(number);
        Random::new(generator)
    };
    let ctf = optics(&config, &mut part(1));
    let field = Field::draw(&config, even_lot(seed, index), &mut part(2));
    let particles = place(&config, &field, &mut part(3));
    let mask = discs::render(config.width, config.height, &particles, None)
        .expect("particles have finite centres and diameters");
    let image = expose(&config, &ctf, &field, &particles, &mut part(4), &mut part(5));
    Micrograph { image, particles, mask, ctf }
}

/// A number in 0..1 for each index, spread evenly over any few consecutive ones (multiples of the golden ratio):
/// of a dozen micrographs with one in five on carbon, two or three are, not none and not six.
fn even_lot(seed: u64, index: u64) -> f64 {
    // The last index stands for the set as a whole.
    let start = Random::new(rng(seed, Stream::Synth, u64::MAX)).unit();
    // 2⁶⁴ / golden ratio: the fraction of the product, exact for every index.
    let step = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (start + (step >> 11) as f64 / (1u64 << 53) as f64).fract()
}

/// Random numbers of the distributions that are needed here.
pub struct Random {
    generator: ChaCha8Rng,
    spare: Option<f64>,
}

impl Random {
    pub fn new(generator: ChaCha8Rng) -> Self {
        Self { generator, spare: None }
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.generator.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..2π.
    pub fn angle(&mut self) -> f64 {
        self.unit() * std::f64::consts::TAU
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        // 1 - u is never 0, whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = self.angle().sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Poisson, for means up to some hundreds (Knuth: count uniform factors until the product is below e^-mean).
    fn count(&mut self, mean: f64) -> usize {
        let limit = (-mean).exp();
        let (mut product, mut count) = (self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

fn optics(config: &MicrographConfig, random: &mut Random) -> Ctf {
    let mean = random.between(config.defocus[0], config.defocus[1]);
    let half = 0.5 * config.astigmatism * random.unit();
    let angle = random.angle() / 2.0;
    ctf_at(config, mean + half, mean - half, angle)
}

/// Defoci in µm.
fn ctf_at(config: &MicrographConfig, defocus_1: f64, defocus_2: f64, astigmatism_angle: f64) -> Ctf {
    Ctf {
        wavelength: Ctf::wavelength_of(config.voltage),
        defocus_1: defocus_1 * 1e4,
        defocus_2: defocus_2 * 1e4,
        astigmatism_angle,
        spherical_aberration: config.spherical_aberration * 1e7,
        amplitude_contrast: config.amplitude_contrast,
        b_factor: config.b_factor,
    }
}

/// What varies slowly over the field of view. Coordinates are pixels of the image.
struct Field {
    centre: [f64; 2],
    half_diagonal: f64,
    gradient_direction: [f64; 2],
    ripples: [Ripple; 3],
    crowding: [Ripple; 3],
    carbon: Option<Carbon>,
    contamination: Vec<Lump>,
    edge_width: f64,
}

/// A plane wave, slow enough to span the image a few times at most.
struct Ripple {
    wave: [f64; 2],
    phase: f64,
}

/// The film outside a round hole.
struct Carbon {
    hole: [f64; 2],
    radius: f64,
    tangent: [f64; 2],
    wobble: [(f64, f64, f64); 3],
}

/// A roundish lump.
struct Lump {
    centre: [f64; 2],
    radius: f64,
    phases: [f64; 2],
    darkness: f64,
}

impl Ripple {
    fn draw(extent: f64, random: &mut Random) -> Self {
        let (sin, cos) = random.angle().sin_cos();
        let frequency = std::f64::consts::TAU * random.between(0.4, 1.4) / extent;
        Self { wave: [frequency * cos, frequency * sin], phase: random.angle() }
    }

    fn at(&self, x: f64, y: f64) -> f64 {
        (self.wave[0] * x + self.wave[1] * y + self.phase).sin()
    }
}

impl Carbon {
    fn draw(config: &MicrographConfig, centre: [f64; 2], half: f64, random: &mut Random) -> Self {
        let (sin, cos) = random.angle().sin_cos();
        // The film reaches to within this distance of the middle, so it takes a corner or up to a third.
        let distance = half * random.between(0.25, 0.65);
        let radius = half * random.between(1.5, 4.0);
        let diameter = config.particle_diameter;
        Self {
            hole: [centre[0] + cos * (distance - radius), centre[1] + sin * (distance - radius)],
            radius,
            tangent: [-sin, cos],
            wobble: [6.0, 2.5, 1.1].map(|period| {
                let frequency = std::f64::consts::TAU / (period * diameter * random.between(0.8, 1.25));
                (0.03 * period * diameter, frequency, random.angle())
            }),
        }
    }

    /// Distance into the film, pixels; negative in the hole.
    fn depth(&self, x: f64, y: f64) -> f64 {
        let (dx, dy) = (x - self.hole[0], y - self.hole[1]);
        let along = dx * self.tangent[0] + dy * self.tangent[1];
        let wobble: f64 = self.wobble.iter().map(|(a, f, p)| a * (f * along + p).sin()).sum();
        dx.hypot(dy) - self.radius + wobble
    }
}

impl Lump {
    /// How much of the lump is over `(x, y)`, 0..=1: flat in the middle, falling at the rim.
    fn thickness(&self, x: f64, y: f64) -> f64 {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let distance = dx.hypot(dy);
        if distance > self.reach() {
            return 0.0;
        }
        let angle = dy.atan2(dx);
        let rim =
            1.0 + 0.09 * (2.0 * angle + self.phases[0]).cos() + 0.06 * (3.0 * angle + self.phases[1]).cos();
        smooth_step((1.0 - distance / (self.radius * rim)) / 0.4)
    }

    fn reach(&self) -> f64 {
        1.15 * self.radius
    }
}

impl Field {
    /// `lot` in 0..1 decides whether there is carbon.
    fn draw(config: &MicrographConfig, lot: f64, random: &mut Random) -> Self {
        let (width, height) = (config.width as f64, config.height as f64);
        let centre = [(width - 1.0) / 2.0, (height - 1.0) / 2.0];
        let half_diagonal = (width.hypot(height) / 2.0).max(1.0);
        let (sin, cos) = random.angle().sin_cos();
        let ripples = [0; 3].map(|_| Ripple::draw(2.0 * half_diagonal, random));
        let crowding = [0; 3].map(|_| Ripple::draw(half_diagonal, random));
        let carbon = (lot < config.carbon_edge_probability)
            .then(|| Carbon::draw(config, centre, half_diagonal, random));
        let contamination = (0..random.count(config.contamination))
            .map(|_| Lump {
                centre: [random.unit() * width, random.unit() * height],
                radius: config.particle_diameter * random.between(0.45, 0.95),
                phases: [random.angle(), random.angle()],
                darkness: random.between(0.5, 1.0),
            })
            .collect();
        Self {
            centre,
            half_diagonal,
            gradient_direction: [cos, sin],
            ripples,
            crowding,
            carbon,
            contamination,
            edge_width: 0.06 * config.particle_diameter + 1.0,
        }
    }

    /// Relative thickness of the ice, about -0.5..=0.5.
    fn ice(&self, x: f64, y: f64) -> f64 {
        let [u, v] = self.relative(x, y);
        let ripple: f64 = self.ripples.iter().map(|r| r.at(x, y)).sum();
        0.35 * (u * self.gradient_direction[0] + v * self.gradient_direction[1]) + 0.08 * ripple
    }

    /// Square of the distance from the middle, 1 in the corners.
    fn off_centre(&self, x: f64, y: f64) -> f64 {
        let [u, v] = self.relative(x, y);
        u * u + v * v
    }

    fn relative(&self, x: f64, y: f64) -> [f64; 2] {
        [(x - self.centre[0]) / self.half_diagonal, (y - self.centre[1]) / self.half_diagonal]
    }

    /// Share of carbon film, 0..=1.
    fn carbon(&self, x: f64, y: f64) -> f64 {
        self.carbon.as_ref().map_or(0.0, |c| smooth_step(0.5 + c.depth(x, y) / self.edge_width))
    }

    fn contamination(&self, x: f64, y: f64) -> f64 {
        self.contamination.iter().map(|l| l.darkness * l.thickness(x, y)).fold(0.0, f64::max)
    }

    /// Probability that a particle settles here where there is room, 0.3..=1: particles crowd together.
    fn attraction(&self, x: f64, y: f64) -> f64 {
        let crowding: f64 = self.crowding.iter().map(|r| r.at(x, y)).sum();
        (0.65 + 0.3 * crowding).clamp(0.3, 1.0)
    }

    /// Whether a particle of this radius would touch neither carbon nor contamination.
    fn is_free(&self, x: f64, y: f64, radius: f64) -> bool {
        self.carbon.as_ref().is_none_or(|c| c.depth(x, y) < -radius)
            && self
                .contamination
                .iter()
                .all(|l| (x - l.centre[0]).hypot(y - l.centre[1]) > l.reach() + radius)
    }
}

/// 0 below 0, 1 above 1, smooth between.
fn smooth_step(t: f64) -> f64 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Centres by random sequential adsorption until the discs cover the asked share.
fn place(config: &MicrographConfig, field: &Field, random: &mut Random) -> Vec<Particle> {
    let (width, height) = (config.width, config.height);
    let diameter = config.particle_diameter;
    let radius = diameter / 2.0;
    let usable = match &field.carbon {
        None => width * height,
        Some(carbon) => {
            (0..width * height).filter(|i| carbon.depth((i % width) as f64, (i / width) as f64) < 0.0).count()
        }
    };
    let target = config.density * usable as f64;
    let disc = std::f64::consts::PI * radius * radius;
    let mut neighbours = Neighbours::new(width, height, SEPARATION * diameter);
    let mut particles = Vec::new();
    let mut covered = 0.0;
    // Near saturation most throws miss; this many get within some percent of the jamming limit.
    let mut throws = 2_000 + (400.0 * target / disc).min(1e9) as u64;
    while covered + 0.5 * disc < target && throws > 0 {
        throws -= 1;
        let x = random.unit() * (width as f64 - 1.0);
        let y = random.unit() * (height as f64 - 1.0);
        if random.unit() > field.attraction(x, y)
            || !field.is_free(x, y, radius)
            || !neighbours.try_insert(x, y)
        {
            continue;
        }
        covered += visible_disc(width, height, x, y, radius);
        particles.push(Particle { x, y, diameter: Some(diameter), score: None });
    }
    particles.sort_by(|a, b| a.y.total_cmp(&b.y).then(a.x.total_cmp(&b.x)));
    particles
}

/// Area of a disc inside the image, pixels.
fn visible_disc(width: usize, height: usize, x: f64, y: f64, radius: f64) -> f64 {
    let top = (y - radius).ceil().max(0.0) as usize;
    let bottom = ((y + radius).floor().max(-1.0) + 1.0).min(height as f64) as usize;
    (top..bottom)
        .map(|row| {
            let half = (radius * radius - (row as f64 - y).powi(2)).max(0.0).sqrt();
            ((x + half).min(width as f64 - 0.5) - (x - half).max(-0.5)).max(0.0)
        })
        .sum()
}

/// Points that keep a distance, in cells so small that each holds one at most.
struct Neighbours {
    distance: f64,
    cell: f64,
    columns: usize,
    rows: usize,
    cells: Vec<Option<[f64; 2]>>,
}

impl Neighbours {
    fn new(width: usize, height: usize, distance: f64) -> Self {
        let cell = distance / std::f64::consts::SQRT_2;
        let columns = (width as f64 / cell) as usize + 1;
        let rows = (height as f64 / cell) as usize + 1;
        Self { distance, cell, columns, rows, cells: vec![None; columns * rows] }
    }

    /// Adds the point unless another is closer than the distance.
    fn try_insert(&mut self, x: f64, y: f64) -> bool {
        let column = ((x / self.cell) as usize).min(self.columns - 1);
        let row = ((y / self.cell) as usize).min(self.rows - 1);
        for r in row.saturating_sub(2)..(row + 3).min(self.rows) {
            for c in column.saturating_sub(2)..(column + 3).min(self.columns) {
                if let Some([px, py]) = self.cells[r * self.columns + c]
                    && (px - x).hypot(py - y) < self.distance
                {
                    return false;
                }
            }
        }
        self.cells[row * self.columns + column] = Some([x, y]);
        true
    }
}

/// The image: specimen and ice through the microscope, then light and shot noise.
fn expose(
    config: &MicrographConfig,
    ctf: &Ctf,
    field: &Field,
    particles: &[Particle],
    specimen: &mut Random,
    noise: &mut Random,
) -> Image {
    let (width, height) = (config.width, config.height);
    if width == 0 || height == 0 {
        return Image::filled(width, height, 0.0);
    }
    // The Fourier transform wraps around; the margin keeps what it wraps out of the picture.
    let margin = ((config.particle_diameter / 2.0).ceil() as usize + 8).clamp(8, 128);
    let (canvas_width, canvas_height) = (fast_size(width + 2 * margin), fast_size(height + 2 * margin));

    let contrast = config.signal_to_noise.sqrt();
    let mut density = vec![0.0f32; canvas_width * canvas_height];
    add_particles(
        config,
        particles,
        contrast * gain_of_unit_contrast(config),
        &mut Canvas { pixels: &mut density, width: canvas_width, height: canvas_height },
        margin,
        specimen,
    );
    let transfer = pixel_transfer(ctf, config.pixel_size);
    let ice_sigma = config.ice_noise.sqrt() / root_mean_square(&transfer, canvas_width, canvas_height);
    let mut canvas: Vec<_> = density
        .into_iter()
        .enumerate()
        .map(|(i, density)| {
            let x = (i % canvas_width) as f64 - margin as f64;
            let y = (i / canvas_width) as f64 - margin as f64;
            let carbon = field.carbon(x, y);
            let matter = CARBON_PHASE * carbon + CONTAMINATION_PHASE * field.contamination(x, y);
            let mut grain = 1.0 + (CARBON_GRAIN - 1.0) * carbon;
            if config.ice_gradient > 0.0 {
                grain *= 1.0 + 0.4 * field.ice(x, y);
            }
            Complex::new(density + (contrast * matter) as f32, (ice_sigma * grain * noise.normal()) as f32)
        })
        .collect();
    filter(&mut canvas, canvas_width, canvas_height, &transfer);

    // Shot noise: its variance follows the mean, which is √electrons standard deviations.
    let mean_over_sigma = (DOSE * config.pixel_size * config.pixel_size).sqrt();
    let shot_sigma = (1.0 - config.ice_noise).sqrt();
    let mut image = Image::filled(width, height, 0.0);
    for (i, pixel) in image.pixels.iter_mut().enumerate() {
        let (column, row) = (i % width, i / width);
        let (x, y) = (column as f64, row as f64);
        let seen = canvas[(row + margin) * canvas_width + column + margin];
        let background = contrast
            * (CARBON_DARKNESS * field.carbon(x, y) + CONTAMINATION_DARKNESS * field.contamination(x, y))
            + config.ice_gradient * field.ice(x, y)
            + config.vignetting * field.off_centre(x, y);
        let mean = f64::from(seen.re + seen.im) - background;
        let intensity = (1.0 + mean / mean_over_sigma).max(0.0);
        let value = mean + shot_sigma * intensity.sqrt() * noise.normal();
        *pixel = (MEAN_LEVEL + NOISE_LEVEL * value).round().clamp(0.0, 65_535.0) as f32;
    }
    image
}

/// [`Ctf`] by cycles per pixel.
fn pixel_transfer(ctf: &Ctf, pixel_size: f64) -> impl Fn(f64, f64) -> f64 {
    let ctf = *ctf;
    move |x, y| {
        let (sx, sy) = (x / pixel_size, y / pixel_size);
        // At the highest frequency x and -x are one bin: the odd part has no place there.
        let cross = if x == -0.5 || y == -0.5 { 0.0 } else { 2.0 * sx * sy };
        ctf.transfer(sx * sx + sy * sy, sx * sx - sy * sy, cross)
    }
}

/// Standard deviation of white noise of unit variance after `transfer`; from a coarse grid, it being smooth.
fn root_mean_square(transfer: impl Fn(f64, f64) -> f64, width: usize, height: usize) -> f64 {
    let (columns, rows) = (width.min(256), height.min(256));
    let sum: f64 = (0..columns * rows)
        .map(|i| {
            let x = ((i % columns) as f64 + 0.5) / columns as f64 - 0.5;
            let y = ((i / columns) as f64 + 0.5) / rows as f64 - 0.5;
            transfer(x, y).powi(2)
        })
        .sum();
    // A B-factor can leave next to nothing of the ice; do not amplify it back without limit.
    (sum / (columns * rows) as f64).sqrt().max(1e-3)
}

/// Particles and debris.
fn add_particles(
    config: &MicrographConfig,
    particles: &[Particle],
    gain: f64,
    canvas: &mut Canvas<'_>,
    margin: usize,
    random: &mut Random,
) {
    let blobs = config.particle.blobs();
    let diameter = config.particle_diameter;
    let shift = margin as f64;
    for particle in particles {
        let rotation = random_rotation(random);
        // Depth in the ice, radiation damage and binding partners make some fainter than others.
        let gain = gain * random.between(0.65, 1.25);
        canvas.project(&blobs, &rotation, [particle.x + shift, particle.y + shift], diameter, gain);
    }
    let pieces = random.count((config.debris * particles.len() as f64).min(500.0));
    for _ in 0..pieces {
        let x = random.unit() * config.width as f64;
        let y = random.unit() * config.height as f64;
        let first = (random.unit() * blobs.len() as f64) as usize;
        let rotation = random_rotation(random);
        if particles.iter().any(|p| (p.x - x).hypot(p.y - y) < 0.75 * diameter) {
            continue;
        }
        // A few neighbouring blobs, moved to where the piece lies.
        let count = (blobs.len() / 8).max(1);
        let piece: Vec<_> = (0..count).map(|i| blobs[(first + i) % blobs.len()]).collect();
        let middle = [0, 1, 2].map(|i| piece.iter().map(|b| b.centre[i]).sum::<f64>() / count as f64);
        let piece: Vec<_> = piece
            .into_iter()
            .map(|mut blob| {
                blob.centre = [0, 1, 2].map(|i| 0.6 * (blob.centre[i] - middle[i]));
                blob
            })
            .collect();
        canvas.project(&piece, &rotation, [x + shift, y + shift], diameter, gain);
    }
}

/// Gain of a projection whose root mean square inside the disc is 1 after the contrast transfer function at the
/// middle defocus. Measured on a few fixed orientations, so it is the same for every micrograph of a set.
fn gain_of_unit_contrast(config: &MicrographConfig) -> f64 {
    let middle = 0.5 * (config.defocus[0] + config.defocus[1]);
    let ctf = ctf_at(config, middle, middle, 0.0);
    // A coarse picture is enough: blobs are smooth.
    let diameter = config.particle_diameter.min(48.0);
    let pixel_size = config.pixel_size * config.particle_diameter / diameter;
    let size = fast_size((2.0 * diameter) as usize + 16);
    let centre = (size / 2) as f64;
    let blobs = config.particle.blobs();
    let mut random = Random::new(rng(0, Stream::Synth, 0));
    let mut project = || {
        let mut pixels = vec![0.0f32; size * size];
        Canvas { pixels: &mut pixels, width: size, height: size }.project(
            &blobs,
            &random_rotation(&mut random),
            [centre, centre],
            diameter,
            1.0,
        );
        pixels
    };
    let (mut sum, mut count) = (0.0, 0usize);
    for _ in 0..2 {
        let (one, other) = (project(), project());
        let mut canvas: Vec<_> = one.iter().zip(&other).map(|(&re, &im)| Complex::new(re, im)).collect();
        filter(&mut canvas, size, size, pixel_transfer(&ctf, pixel_size));
        for (i, value) in canvas.iter().enumerate() {
            let (dx, dy) = ((i % size) as f64 - centre, (i / size) as f64 - centre);
            if dx * dx + dy * dy <= diameter * diameter / 4.0 {
                sum += f64::from(value.norm_sqr());
                count += 2;
            }
        }
    }
    let root_mean_square = (sum / count.max(1) as f64).sqrt();
    if root_mean_square > 1e-12 { 1.0 / root_mean_square } else { 0.0 }
}
