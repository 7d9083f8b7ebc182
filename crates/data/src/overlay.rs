//! Pictures of what a network found: a micrograph with outlines, and a figure that explains itself.
//!
//! Colours are of the palette of Okabe & Ito 2008, distinguishable with every common colour blindness: what is
//! predicted is orange, the truth is blue, where they agree is tinted green, picks are yellow.

use font8x8::legacy::BASIC_LEGACY;
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use crate::{Image, Labels, Particle};

const PREDICTED: [u8; 3] = [230, 159, 0];
const TRUTH: [u8; 3] = [86, 180, 233];
const AGREED: [u8; 3] = [0, 158, 115];
const PICK: [u8; 3] = [240, 228, 66];
const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [32, 32, 32];
const FAINT_INK: [u8; 3] = [96, 96, 96];

/// A colour picture, eight bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Red, green and blue of every pixel, row by row; `rgb.len() == 3 * width * height`.
    pub rgb: Vec<u8>,
}

impl RgbImage {
    fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, rgb: colour.repeat(width * height) }
    }

    /// The picture as a PNG file. A picture without pixels, which PNG cannot hold, or one wider or higher than
    /// PNG allows (2³¹ - 1) gives no bytes.
    pub fn to_png(&self) -> Vec<u8> {
        let mut png = Vec::new();
        let (Ok(width), Ok(height)) = (u32::try_from(self.width), u32::try_from(self.height)) else {
            return png;
        };
        let is_whole = !self.rgb.is_empty() && self.rgb.len() == 3 * self.width * self.height;
        if is_whole {
            // The encoder's own choice, the fastest, stores a noisy picture as it is.
            let encoder =
                PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive);
            let encoded = encoder.write_image(&self.rgb, width, height, image::ExtendedColorType::Rgb8);
            // Writing to memory fails for nothing but the size.
            if encoded.is_err() {
                png.clear();
            }
        }
        png
    }

    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            self.rgb[3 * (y * self.width + x)..][..3].copy_from_slice(&colour);
        }
    }

    /// Moves a pixel's colour towards `colour` by `share`, 0..=1.
    fn tint(&mut self, x: usize, y: usize, colour: [u8; 3], share: f64) {
        if x < self.width && y < self.height {
            let pixel = &mut self.rgb[3 * (y * self.width + x)..][..3];
            for (old, new) in pixel.iter_mut().zip(colour) {
                *old = (f64::from(*old) * (1.0 - share) + f64::from(new) * share).round() as u8;
            }
        }
    }

    fn rectangle(&mut self, [x, y]: [usize; 2], width: usize, height: usize, colour: [u8; 3]) {
        for row in y..y + height {
            for column in x..x + width {
                self.set(column, row, colour);
            }
        }
    }

    fn paste(&mut self, other: &Self, [x, y]: [usize; 2]) {
        for row in 0..other.height.min(self.height.saturating_sub(y)) {
            let width = other.width.min(self.width.saturating_sub(x));
            let from = &other.rgb[3 * row * other.width..][..3 * width];
            self.rgb[3 * ((y + row) * self.width + x)..][..3 * width].copy_from_slice(from);
        }
    }

    /// Writes ASCII text, glyphs of `8 * scale` pixels square; anything else shows as `?`.
    fn text(&mut self, text: &str, [x, y]: [usize; 2], scale: usize, colour: [u8; 3]) {
        for (position, character) in text.chars().enumerate() {
            let code = if character.is_ascii() { character as usize } else { '?' as usize };
            for (row, bits) in BASIC_LEGACY[code].iter().enumerate() {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    let left = x + (position * GLYPH + column) * scale;
                    self.rectangle([left, y + row * scale], scale, scale, colour);
                }
            }
        }
    }

    /// A ring, smooth at its edges. Coordinates and lengths in pixels of the picture.
    fn ring(&mut self, [x, y]: [f64; 2], radius: f64, line: f64, colour: [u8; 3]) {
        let reach = radius + line;
        let span = |centre: f64, size: usize| {
            let first = (centre - reach).ceil().max(0.0) as usize;
            first..((centre + reach).floor() + 1.0).clamp(0.0, size as f64) as usize
        };
        for row in span(y, self.height) {
            for column in span(x, self.width) {
                let distance = ((column as f64 - x).hypot(row as f64 - y) - radius).abs();
                let share = (line / 2.0 + 0.5 - distance).clamp(0.0, 1.0);
                if share > 0.0 {
                    self.tint(column, row, colour, share);
                }
            }
        }
    }
}

/// Side of a glyph, in its own pixels.
const GLYPH: usize = 8;

/// Enlargement of glyphs in a figure, and the height of a line of text.
const SCALE: usize = 3;
const LINE: usize = GLYPH * SCALE;

/// The micrograph with outlines, in its own size.
///
/// Grey is stretched between the percentiles 0.5 and 99.5. The edge of the prediction (`probability` at least
/// `threshold`) is orange, that of the truth (labels above 0) blue, what both cover is tinted green and picks
/// are small yellow circles. Lines grow with the picture: 1 pixel at 256, 4 at 2048. A `probability` or `truth`
/// of another size than the image is left out, as are picks that are not at a finite position.
pub fn overlay(
    image: &Image,
    probability: Option<&Image>,
    truth: Option<&Labels>,
    picks: &[Particle],
    threshold: f32,
) -> RgbImage {
    draw_overlay(&View::native(image), image, probability, truth, picks, threshold)
}

/// A figure: micrograph, truth (if given), probability (if given, in viridis colours) and overlay side by side,
/// each with its title, above a legend and `caption` (which may be empty; characters outside ASCII show as `?`).
///
/// Small micrographs are enlarged and large ones reduced so that each is about 512 pixels wide or high; see
/// [`overlay`] for the colours. A micrograph without pixels gives a figure without panels.
pub fn panel(
    image: &Image,
    truth: Option<&Labels>,
    probability: Option<&Image>,
    picks: &[Particle],
    threshold: f32,
    caption: &str,
) -> RgbImage {
    let view = View::about(image, 512);
    let truth = truth.filter(|t| fits_labels(image, t));
    let probability = probability.filter(|p| fits(image, p));
    let mut panels = Vec::new();
    if view.width > 0 && view.height > 0 {
        panels.push(("image", view.grey(image)));
        if let Some(truth) = truth {
            panels.push(("truth", draw_truth(&view, image, truth)));
        }
        if let Some(probability) = probability {
            panels.push(("probability", draw_probability(&view, probability)));
        }
        if panels.len() > 1 || !picks.is_empty() {
            panels.push(("overlay", draw_overlay(&view, image, probability, truth, picks, threshold)));
        }
    }
    let legend = legend(truth.is_some(), probability.is_some(), !picks.is_empty());
    compose(&panels, &legend, caption)
}

/// Lays the panels out over the legend.
fn compose(panels: &[(&str, RgbImage)], legend: &[(Mark, &str)], caption: &str) -> RgbImage {
    const GAP: usize = 12;
    let panel_width = panels.first().map_or(0, |p| p.1.width);
    let panel_height = panels.first().map_or(0, |p| p.1.height);
    // A single narrow panel must still hold the longest line of text.
    let legend_width: usize = legend.iter().map(|(_, text)| entry_width(text)).sum();
    let text_width = legend_width.max(caption.chars().count() * LINE);
    let width = (panels.len() * (panel_width + GAP) + GAP).max(text_width.min(4096) + 2 * GAP);
    let top = GAP + LINE + GAP / 2;
    let mut height = top + panel_height + GAP;
    let legend_top = height;
    if !legend.is_empty() {
        height += LINE + GAP;
    }
    let caption_top = height;
    if !caption.is_empty() {
        height += LINE + GAP;
    }
    let mut figure = RgbImage::filled(width, height, PAPER);
    for (i, (title, panel)) in panels.iter().enumerate() {
        let left = GAP + i * (panel_width + GAP);
        figure.text(title, [left, GAP], SCALE, INK);
        figure.paste(panel, [left, top]);
    }
    let mut left = GAP;
    for (mark, text) in legend {
        draw_mark(&mut figure, *mark, [left, legend_top]);
        figure.text(text, [left + MARK + 10, legend_top], SCALE, INK);
        left += entry_width(text);
    }
    figure.text(caption, [GAP, caption_top], SCALE, FAINT_INK);
    figure
}

/// Width of a legend's mark, pixels.
const MARK: usize = 56;

fn entry_width(text: &str) -> usize {
    MARK + 10 + text.chars().count() * LINE + 40
}

/// What a legend shows before its text.
#[derive(Debug, Clone, Copy)]
enum Mark {
    Line([u8; 3]),
    Tint([u8; 3]),
    Ring([u8; 3]),
    Scale,
}

fn legend(truth: bool, probability: bool, picks: bool) -> Vec<(Mark, &'static str)> {
    [
        (truth, Mark::Line(TRUTH), "truth"),
        (probability, Mark::Line(PREDICTED), "predicted"),
        (truth && probability, Mark::Tint(AGREED), "both"),
        (picks, Mark::Ring(PICK), "pick"),
        (probability, Mark::Scale, "probability 0 to 1"),
    ]
    .into_iter()
    .filter_map(|(is_shown, mark, text)| is_shown.then_some((mark, text)))
    .collect()
}

fn draw_mark(figure: &mut RgbImage, mark: Mark, [x, y]: [usize; 2]) {
    const HEIGHT: usize = LINE;
    // On grey, as in the picture: yellow on white would not show.
    let backdrop = [112; 3];
    match mark {
        Mark::Line(colour) => {
            figure.rectangle([x, y], MARK, HEIGHT, backdrop);
            figure.rectangle([x, y + HEIGHT / 2 - 2], MARK, 4, colour);
        }
        Mark::Tint(colour) => {
            figure.rectangle([x, y], MARK, HEIGHT, backdrop);
            for column in x..x + MARK {
                (y..y + HEIGHT).for_each(|row| figure.tint(column, row, colour, 2.0 * AGREED_SHARE));
            }
        }
        Mark::Ring(colour) => {
            figure.rectangle([x, y], MARK, HEIGHT, backdrop);
            let centre = [(x + MARK / 2) as f64, y as f64 + (HEIGHT as f64 - 1.0) / 2.0];
            figure.ring(centre, 7.0, 2.5, colour);
        }
        Mark::Scale => {
            for column in 0..MARK {
                let colour = viridis(column as f64 / (MARK - 1) as f64);
                figure.rectangle([x + column, y], 1, HEIGHT, colour);
            }
        }
    }
}

/// How far what both cover moves towards green: seen, without hiding the particle.
const AGREED_SHARE: f64 = 0.22;

/// How a micrograph is shown: the size of the picture and how it samples the micrograph.
struct View {
    width: usize,
    height: usize,
    /// Pixels of the picture per pixel of the micrograph.
    zoom: f64,
    /// Width of lines, pixels of the picture.
    line: f64,
}

impl View {
    fn native(image: &Image) -> Self {
        let is_whole = image.pixels.len() == image.width * image.height;
        let (width, height) = if is_whole { (image.width, image.height) } else { (0, 0) };
        let line = (width.min(height) as f64 / 512.0).max(1.0);
        Self { width, height, zoom: 1.0, line }
    }

    /// Enlarged by a whole factor or reduced by any, to about `side` pixels.
    fn about(image: &Image, side: usize) -> Self {
        let Self { width, height, .. } = Self::native(image);
        let longest = width.max(height).max(1) as f64;
        let zoom = side as f64 / longest;
        let zoom = if zoom >= 1.0 { zoom.round() } else { zoom };
        let scaled = |size: usize| {
            if size == 0 { 0 } else { ((size as f64 * zoom).round() as usize).max(1) }
        };
        // Figures are shown smaller than they are: a line of one pixel would fade.
        Self { width: scaled(width), height: scaled(height), zoom, line: 2.0 }
    }

    /// Where a pixel of the picture lies in the micrograph.
    fn source(&self, x: usize, y: usize) -> [f64; 2] {
        [(x as f64 + 0.5) / self.zoom - 0.5, (y as f64 + 0.5) / self.zoom - 0.5]
    }

    /// Where a point of the micrograph lies in the picture.
    fn target(&self, x: f64, y: f64) -> [f64; 2] {
        [(x + 0.5) * self.zoom - 0.5, (y + 0.5) * self.zoom - 0.5]
    }

    /// Values at the picture's pixels: means where it is reduced, else linear in between.
    fn sample(&self, width: usize, height: usize, value: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut samples = Vec::with_capacity(self.width * self.height);
        for row in 0..self.height {
            for column in 0..self.width {
                let [x, y] = self.source(column, row);
                samples.push(if self.zoom < 1.0 {
                    mean_around(x, y, 0.5 / self.zoom, width, height, &value)
                } else {
                    between(x, y, width, height, &value)
                });
            }
        }
        samples
    }

    /// The micrograph in grey, stretched.
    fn grey(&self, image: &Image) -> RgbImage {
        let samples = self.sample(image.width, image.height, |i| image.pixels[i]);
        let (low, high) = percentiles(&samples);
        let mut rgb = Vec::with_capacity(3 * samples.len());
        for value in samples {
            let level = ((value - low) / (high - low)).clamp(0.0, 1.0);
            // `as` makes what is not a number black.
            rgb.extend([(255.0 * level).round() as u8; 3]);
        }
        RgbImage { width: self.width, height: self.height, rgb }
    }

    fn inside_truth(&self, truth: &Labels) -> Vec<bool> {
        let share = |i| if truth.values[i] > 0 { 1.0 } else { 0.0 };
        self.sample(truth.width, truth.height, share).into_iter().map(|v| v >= 0.5).collect()
    }

    fn inside_prediction(&self, probability: &Image, threshold: f32) -> Vec<bool> {
        let samples = self.sample(probability.width, probability.height, |i| probability.pixels[i]);
        samples.into_iter().map(|v| v >= threshold).collect()
    }
}

fn mean_around(x: f64, y: f64, half: f64, width: usize, height: usize, value: impl Fn(usize) -> f32) -> f32 {
    let span = |centre: f64, size: usize| {
        let first = ((centre - half + 0.5).round().max(0.0) as usize).min(size - 1);
        first..((centre + half + 0.5).round() as usize).clamp(first + 1, size)
    };
    let (mut sum, mut count) = (0.0, 0usize);
    for row in span(y, height) {
        for column in span(x, width) {
            sum += f64::from(value(row * width + column));
            count += 1;
        }
    }
    (sum / count as f64) as f32
}

fn between(x: f64, y: f64, width: usize, height: usize, value: impl Fn(usize) -> f32) -> f32 {
    let split = |position: f64, size: usize| {
        let position = position.clamp(0.0, (size - 1) as f64);
        let first = position.floor() as usize;
        (first, (first + 1).min(size - 1), (position - position.floor()) as f32)
    };
    let (left, right, u) = split(x, width);
    let (top, bottom, v) = split(y, height);
    // Weights of 0 are skipped: 0 times a value that is not a number is not 0.
    let mix = |a: f32, b: f32, t: f32| if t == 0.0 { a } else { a + (b - a) * t };
    let row = |y: usize| mix(value(y * width + left), value(y * width + right), u);
    mix(row(top), row(bottom), v)
}

/// The percentiles 0.5 and 99.5 of the finite values; never equal.
fn percentiles(values: &[f32]) -> (f32, f32) {
    // A hundred thousand values tell as much as all of them.
    let step = (values.len() / 100_000).max(1);
    let mut sorted: Vec<f32> = values.iter().copied().step_by(step).filter(|v| v.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return (0.0, 1.0);
    };
    let at = |share: f64| sorted[(share * last as f64).round() as usize];
    let (low, high) = (at(0.005), at(0.995));
    if high > low { (low, high) } else { (low - 0.5, low + 0.5) }
}

fn fits(image: &Image, other: &Image) -> bool {
    (other.width, other.height) == (image.width, image.height) && other.pixels.len() == image.pixels.len()
}

fn fits_labels(image: &Image, labels: &Labels) -> bool {
    (labels.width, labels.height) == (image.width, image.height) && labels.values.len() == image.pixels.len()
}

fn draw_overlay(
    view: &View,
    image: &Image,
    probability: Option<&Image>,
    truth: Option<&Labels>,
    picks: &[Particle],
    threshold: f32,
) -> RgbImage {
    let mut picture = view.grey(image);
    let predicted = probability.filter(|p| fits(image, p)).map(|p| view.inside_prediction(p, threshold));
    let truth = truth.filter(|t| fits_labels(image, t)).map(|t| view.inside_truth(t));
    if let (Some(predicted), Some(truth)) = (&predicted, &truth) {
        for (i, _) in predicted.iter().zip(truth).enumerate().filter(|(_, (p, t))| **p && **t) {
            picture.tint(i % view.width, i / view.width, AGREED, AGREED_SHARE);
        }
    }
    // The prediction over the truth: where they coincide it is the prediction that the reader wants to see.
    for (inside, colour) in [(truth, TRUTH), (predicted, PREDICTED)] {
        if let Some(inside) = inside {
            outline(&mut picture, &inside, view.line, colour);
        }
    }
    for pick in picks.iter().filter(|p| p.x.is_finite() && p.y.is_finite()) {
        let line = view.line * 1.25;
        let radius = match pick.diameter.filter(|d| d.is_finite() && *d > 0.0) {
            // Large enough to see, small enough to leave the outlines of a crowd of small particles.
            Some(diameter) => {
                let shown = diameter * view.zoom;
                (0.1 * shown).max((2.0 * line).min(0.15 * shown))
            }
            None => 2.0 * line,
        };
        picture.ring(view.target(pick.x, pick.y), radius, line.min(radius), PICK);
    }
    picture
}

fn draw_truth(view: &View, image: &Image, truth: &Labels) -> RgbImage {
    let mut picture = view.grey(image);
    let inside = view.inside_truth(truth);
    for (i, _) in inside.iter().enumerate().filter(|(_, inside)| **inside) {
        picture.tint(i % view.width, i / view.width, TRUTH, 0.30);
    }
    outline(&mut picture, &inside, view.line, TRUTH);
    picture
}

fn draw_probability(view: &View, probability: &Image) -> RgbImage {
    let samples = view.sample(probability.width, probability.height, |i| probability.pixels[i]);
    let rgb = samples.into_iter().flat_map(|p| viridis(f64::from(p))).collect();
    RgbImage { width: view.width, height: view.height, rgb }
}

/// Draws the inner edge of a region, `line` pixels wide. The picture's border is no edge.
fn outline(picture: &mut RgbImage, inside: &[bool], line: f64, colour: [u8; 3]) {
    let (width, height) = (picture.width, picture.height);
    let reach = line.round().max(1.0) as usize;
    for y in 0..height {
        for x in 0..width {
            let index = y * width + x;
            // Only pixels beside an edge start a line; each then covers the disc around it that is inside.
            let is_edge = inside[index]
                && ((x > 0 && !inside[index - 1])
                    || (x + 1 < width && !inside[index + 1])
                    || (y > 0 && !inside[index - width])
                    || (y + 1 < height && !inside[index + width]));
            if !is_edge {
                continue;
            }
            for v in y.saturating_sub(reach - 1)..(y + reach).min(height) {
                for u in x.saturating_sub(reach - 1)..(x + reach).min(width) {
                    let (dx, dy) = (u.abs_diff(x), v.abs_diff(y));
                    if inside[v * width + u] && dx * dx + dy * dy < reach * reach {
                        picture.set(u, v, colour);
                    }
                }
            }
        }
    }
}

/// The colour map viridis (van der Walt & Smith 2015, CC0) by Matt Zucker's polynomial (CC0), for 0..=1; what
/// is not a number is grey.
fn viridis(share: f64) -> [u8; 3] {
    const TERMS: [[f64; 3]; 7] = [
        [0.277_727_327_223_418, 0.005_407_344_544_967, 0.334_099_805_335_306],
        [0.105_093_043_108_577, 1.404_613_529_898_575, 1.384_590_162_594_685],
        [-0.330_861_828_725_556, 0.214_847_559_468_213, 0.095_095_163_028_237],
        [-4.634_230_498_983_486, -5.799_100_973_351_585, -19.332_440_956_279_87],
        [6.228_269_936_347_081, 14.179_933_366_805_09, 56.690_552_600_681_05],
        [4.776_384_997_670_288, -13.745_145_377_746_01, -65.353_032_633_372_34],
        [-5.435_455_855_934_631, 4.645_852_612_178_535, 26.312_435_249_583_2],
    ];
    if share.is_nan() {
        return [128; 3];
    }
    let share = share.clamp(0.0, 1.0);
    [0, 1, 2].map(|channel| {
        let value = TERMS.iter().rev().fold(0.0, |sum, term| sum * share + term[channel]);
        (255.0 * value.clamp(0.0, 1.0)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_viridis(share: f64, expected: [u8; 3]) {
        let found = viridis(share);
        let worst = found.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max();
        assert!(worst <= Some(4), "{share}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn viridis_matches_the_original_table() {
        check_viridis(0.0, [68, 1, 84]);
        check_viridis(0.25, [59, 82, 139]);
        check_viridis(0.5, [33, 145, 140]);
        check_viridis(0.75, [94, 201, 98]);
        check_viridis(1.0, [253, 231, 37]);
        assert_eq!(viridis(f64::NAN), [128; 3]);
        assert_eq!(viridis(7.0), viridis(1.0));
    }

    #[test]
    fn percentiles_ignore_outliers_and_are_never_equal() {
        let mut values: Vec<f32> = (0..1000).map(|v| v as f32).collect();
        values[0] = f32::NEG_INFINITY;
        values[999] = 1e9;
        let (low, high) = percentiles(&values);
        assert!((4.0..8.0).contains(&low) && (990.0..998.0).contains(&high), "{low} {high}");
        for constant in [vec![3.0; 5], vec![f32::NAN; 5], vec![]] {
            let (low, high) = percentiles(&constant);
            assert!(low < high);
        }
    }

    fn gradient(width: usize, height: usize) -> Image {
        let pixels = (0..width * height).map(|i| (i % width) as f32).collect();
        Image { width, height, pixels }
    }

    /// A square of probability and truth, the truth shifted by `shift`.
    fn scene(size: usize, shift: usize) -> (Image, Image, Labels) {
        let mut probability = Image::filled(size, size, 0.1);
        let mut truth = Labels::filled(size, size, 0);
        for y in size / 4..size / 2 {
            for x in size / 4..size / 2 {
                probability.pixels[y * size + x] = 0.9;
                truth.values[(y + shift) * size + x + shift] = 1;
            }
        }
        (gradient(size, size), probability, truth)
    }

    fn count(picture: &RgbImage, colour: [u8; 3]) -> usize {
        picture.rgb.chunks_exact(3).filter(|p| **p == colour).count()
    }

    fn decoded(picture: &RgbImage) -> image::RgbImage {
        image::load_from_memory(&picture.to_png()).expect("a PNG file").to_rgb8()
    }

    #[test]
    fn a_picture_survives_png() {
        let (grey, probability, truth) = scene(40, 3);
        for picture in [
            overlay(&grey, Some(&probability), Some(&truth), &[], 0.5),
            panel(&grey, Some(&truth), Some(&probability), &[], 0.5, "caption"),
        ] {
            let read = decoded(&picture);
            assert_eq!((read.width() as usize, read.height() as usize), (picture.width, picture.height));
            assert_eq!(read.into_raw(), picture.rgb);
        }
    }

    #[test]
    fn edges_have_their_colours_and_the_rest_stays_grey() {
        let (grey, probability, truth) = scene(64, 4);
        let picture = overlay(&grey, Some(&probability), Some(&truth), &[], 0.5);
        assert_eq!((picture.width, picture.height), (64, 64));
        // A square of 16 pixels has an edge of 60; the prediction hides two pixels of the truth's.
        assert_eq!(count(&picture, PREDICTED), 60);
        assert!((55..60).contains(&count(&picture, TRUTH)), "{}", count(&picture, TRUTH));
        let plain = overlay(&grey, None, None, &[], 0.5);
        assert!(plain.rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        // Far from the squares nothing is drawn.
        assert_eq!(picture.rgb[3 * 60..3 * 64], plain.rgb[3 * 60..3 * 64]);
    }

    #[test]
    fn lines_grow_with_the_picture() {
        let edge = |size: usize| {
            let (grey, probability, _) = scene(size, 0);
            count(&overlay(&grey, Some(&probability), None, &[], 0.5), PREDICTED) as f64 / size as f64
        };
        assert!((edge(2048) / edge(256) - 4.0).abs() < 0.2, "{} {}", edge(256), edge(2048));
    }

    #[test]
    fn picks_are_drawn_where_they_are_and_cut_at_the_border() {
        let grey = gradient(64, 64);
        let at = |x, y| Particle { x, y, diameter: Some(30.0), score: None };
        let near_yellow = |picture: &RgbImage, x: usize, y: usize| {
            let p = &picture.rgb[3 * (y * 64 + x)..][..3];
            p.iter().zip(PICK).all(|(a, b)| a.abs_diff(b) < 60)
        };
        let picture = overlay(&grey, None, None, &[at(30.0, 20.0), at(63.0, 63.0)], 0.5);
        assert!(near_yellow(&picture, 33, 20) && near_yellow(&picture, 30, 17));
        assert!(near_yellow(&picture, 60, 63) && !near_yellow(&picture, 30, 20));
        let nowhere = [at(f64::NAN, 1.0), at(-500.0, 9e9), at(f64::INFINITY, 0.0)];
        assert_eq!(overlay(&grey, None, None, &nowhere, 0.5), overlay(&grey, None, None, &[], 0.5));
    }

    #[test]
    fn what_does_not_fit_the_image_is_left_out() {
        let grey = gradient(20, 10);
        let plain = overlay(&grey, None, None, &[], 0.5);
        let (_, probability, truth) = scene(64, 4);
        assert_eq!(overlay(&grey, Some(&probability), Some(&truth), &[], 0.5), plain);
        let lying = Image { width: 20, height: 10, pixels: vec![1.0; 3] };
        assert_eq!(overlay(&grey, Some(&lying), None, &[], 0.5), plain);
        assert!(overlay(&lying, None, None, &[], 0.5).rgb.is_empty());
    }

    #[test]
    fn degenerate_images_never_panic() {
        for (width, height) in [(0, 0), (0, 7), (1, 1), (1, 300), (3000, 2)] {
            for value in [0.0, f32::NAN, f32::INFINITY] {
                let image = Image::filled(width, height, value);
                let truth = Labels::filled(width, height, 1);
                let picture = overlay(&image, Some(&image), Some(&truth), &[], f32::NAN);
                assert_eq!(picture.rgb.len(), 3 * width * height);
                assert_eq!(picture.to_png().is_empty(), width * height == 0);
                let figure = panel(&image, Some(&truth), Some(&image), &[], 0.5, "\u{b5}m \u{1f980}");
                assert_eq!(figure.rgb.len(), 3 * figure.width * figure.height);
                assert!(!figure.to_png().is_empty());
            }
        }
    }

    #[test]
    fn a_figure_has_a_panel_for_everything_given() {
        let (grey, probability, truth) = scene(256, 8);
        let pick = [Particle { x: 80.0, y: 80.0, diameter: Some(60.0), score: None }];
        let full = panel(&grey, Some(&truth), Some(&probability), &pick, 0.5, "");
        assert!(full.width > 4 * 512 && full.width < 4 * 512 + 100, "{}", full.width);
        for colour in [PREDICTED, TRUTH, PICK, viridis(0.1), viridis(0.9), INK, PAPER] {
            assert!(count(&full, colour) > 20, "{colour:?}");
        }
        let alone = panel(&grey, None, None, &[], 0.5, "");
        assert_eq!(alone.width, 512 + 24);
        assert!(panel(&grey, None, None, &[], 0.5, "caption").height > alone.height);
    }

    #[test]
    fn large_micrographs_are_reduced_and_keep_their_outlines() {
        let (grey, probability, truth) = scene(1500, 30);
        let figure = panel(&grey, Some(&truth), Some(&probability), &[], 0.5, "");
        assert!(figure.width < 2200, "{}", figure.width);
        assert!(count(&figure, PREDICTED) > 900, "{}", count(&figure, PREDICTED));
    }
}
