//! From a probability map to particle centres, and how well they match the truth.

use std::collections::HashMap;

use crate::{Image, Labels, Particle};

/// Two picks are at least this many diameters apart. Below 1, because particles overlap in projection and
/// centres are uncertain; well above ½, so that one particle is not picked twice.
pub const SEPARATION: f64 = 0.7;

/// Standard deviation of the smoothing before the search for maxima, in diameters. A quarter puts the flank of
/// the Gaussian on the edge of the disc: neighbours stay apart and a filled disc peaks in its middle only.
const SMOOTHING: f64 = 0.25;

/// Particle centres in a map of foreground probability, best first.
///
/// Probabilities below `mask_threshold` count as 0 (as do values that are not numbers), the map is smoothed by
/// a Gaussian of a quarter diameter, and its local maxima are taken in descending order unless a higher one is
/// within [`SEPARATION`] (0.7) diameters. Centres are refined to a fraction of a pixel by a parabola.
///
/// Each pick has `diameter` set to `diameter` and `score` to the mean probability (0..=1, clamped, without the
/// threshold) over the part of its disc that is inside the image; picks scoring below `min_score` are dropped.
/// The result is sorted by descending score, then row, then column, and depends on nothing else.
///
/// An empty image or a `diameter` that is not a positive number gives no picks.
pub fn pick(probability: &Image, mask_threshold: f32, diameter: f64, min_score: f64) -> Vec<Particle> {
    let (width, height) = (probability.width, probability.height);
    let pixels = &probability.pixels;
    if pixels.is_empty() || pixels.len() != width * height || !(diameter > 0.0 && diameter.is_finite()) {
        return Vec::new();
    }
    let masked: Vec<f64> =
        pixels.iter().map(|&p| if p >= mask_threshold { f64::from(sane(p)) } else { 0.0 }).collect();
    let smooth = blur(&masked, width, height, SMOOTHING * diameter);
    let mut maxima = local_maxima(&smooth, width, height);
    // Ties by position: the order must not depend on how the sort moves equal elements.
    maxima.sort_by(|&a, &b| smooth[b].total_cmp(&smooth[a]).then(a.cmp(&b)));

    let mut kept = Apart::new(SEPARATION * diameter);
    let mut picks: Vec<Particle> = maxima
        .into_iter()
        .filter_map(|index| {
            let (x, y) = refine(&smooth, width, height, index);
            if !kept.try_insert(x, y) {
                return None;
            }
            let score = mean_in_disc(probability, x, y, diameter / 2.0);
            (score >= min_score).then_some(Particle { x, y, diameter: Some(diameter), score: Some(score) })
        })
        .collect();
    picks.sort_by(|a, b| {
        let by_score = b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0));
        by_score.then(a.y.total_cmp(&b.y)).then(a.x.total_cmp(&b.x))
    });
    picks
}

/// How picks match true particles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PickScore {
    /// Picks that match a particle.
    pub true_positive: usize,
    /// Picks that match none.
    pub false_positive: usize,
    /// Particles that no pick matches.
    pub false_negative: usize,
    /// Share of picks that match, 0..=1; 1 where nothing was picked.
    pub precision: f64,
    /// Share of particles that are matched, 0..=1; 1 where there are none.
    pub recall: f64,
    /// Harmonic mean of the two, `2 TP / (2 TP + FP + FN)`; 1 where there is nothing to find and nothing found.
    pub f1: f64,
}

impl PickScore {
    /// The score of these counts; sum the counts of several micrographs for the score of all.
    pub fn from_counts(true_positive: usize, false_positive: usize, false_negative: usize) -> Self {
        let share = |part: usize, all: usize| {
            if all == 0 { 1.0 } else { part as f64 / all as f64 }
        };
        Self {
            true_positive,
            false_positive,
            false_negative,
            precision: share(true_positive, true_positive + false_positive),
            recall: share(true_positive, true_positive + false_negative),
            f1: share(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        }
    }
}

/// Matches picks to particles one to one, nearest pair first, up to a distance of `tolerance` pixels
/// (inclusive); half a particle's diameter is customary.
pub fn match_particles(picked: &[Particle], truth: &[Particle], tolerance: f64) -> PickScore {
    let mut pairs = Vec::new();
    if tolerance >= 0.0 {
        // Sorted by row, only a band of the truth has to be looked at for each pick.
        let mut by_row: Vec<_> = truth.iter().enumerate().filter(|(_, t)| is_placed(t)).collect();
        by_row.sort_by(|a, b| a.1.y.total_cmp(&b.1.y));
        for (i, p) in picked.iter().enumerate().filter(|(_, p)| is_placed(p)) {
            let start = by_row.partition_point(|(_, t)| t.y < p.y - tolerance);
            for &(j, t) in by_row[start..].iter().take_while(|(_, t)| t.y <= p.y + tolerance) {
                let distance = (p.x - t.x).hypot(p.y - t.y);
                if distance <= tolerance {
                    pairs.push((distance, i, j));
                }
            }
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let (mut pick_used, mut truth_used) = (vec![false; picked.len()], vec![false; truth.len()]);
    let mut matched = 0;
    for (_, i, j) in pairs {
        if !pick_used[i] && !truth_used[j] {
            (pick_used[i], truth_used[j]) = (true, true);
            matched += 1;
        }
    }
    PickScore::from_counts(matched, picked.len() - matched, truth.len() - matched)
}

/// The diameter of the particles in a mask, pixels: for when the file formats tell none.
///
/// Foreground is every label above 0. Of the connected components (four neighbours) that are round and do not
/// touch the border, the median over their pixels (so that specks do not count) of the diameter of the disc of
/// equal area. Where all touch each other or the border, twice the median depth of the mask's ridges instead.
/// `None` without foreground.
pub fn estimate_diameter(mask: &Labels) -> Option<f64> {
    let (width, height) = (mask.width, mask.height);
    if mask.values.len() != width * height || !mask.values.iter().any(|&v| v > 0) {
        return None;
    }
    let mut diameters: Vec<(f64, usize)> = components(mask)
        .into_iter()
        .filter(|c| c.is_round() && !c.touches_border(width, height))
        .map(|c| (2.0 * (c.area as f64 / std::f64::consts::PI).sqrt(), c.area))
        .collect();
    if diameters.is_empty() {
        return Some(ridge_diameter(mask));
    }
    diameters.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = diameters.iter().map(|d| d.1).sum::<usize>().div_ceil(2);
    let mut seen = 0;
    diameters.iter().find_map(|&(diameter, area)| {
        seen += area;
        (seen >= half).then_some(diameter)
    })
}

fn is_placed(particle: &Particle) -> bool {
    particle.x.is_finite() && particle.y.is_finite()
}

fn sane(probability: f32) -> f32 {
    if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) }
}

/// Gaussian blur as three box blurs (Kovesi 2010, *Fast almost-Gaussian filtering*): the time does not grow with
/// `sigma`. Outside the image there is nothing, rather than 0: means are over what is inside.
fn blur(image: &[f64], width: usize, height: usize, sigma: f64) -> Vec<f64> {
    let mut image = image.to_vec();
    // Beyond this every mean is over the whole image anyway.
    for radius in box_radii(sigma.min(1e6)) {
        for row in image.chunks_exact_mut(width) {
            box_blur_row(row, radius);
        }
        image = box_blur_columns(&image, width, height, radius);
    }
    image
}

/// Radii of three boxes whose variances add up to about `sigma²`.
fn box_radii(sigma: f64) -> [usize; 3] {
    let passes = 3.0;
    let ideal = (12.0 * sigma * sigma / passes + 1.0).sqrt();
    let small = ((ideal - 1.0) / 2.0).floor().max(0.0);
    let side = 2.0 * small + 1.0;
    let narrow = (12.0 * sigma * sigma - passes * side * side - 4.0 * passes * side - 3.0 * passes)
        / (-4.0 * side - 4.0);
    let narrow = narrow.round().clamp(0.0, passes) as usize;
    [0, 1, 2].map(|pass| small as usize + usize::from(pass >= narrow))
}

fn box_blur_row(row: &mut [f64], radius: usize) {
    let original = row.to_vec();
    let size = original.len();
    let mut sum: f64 = original[..radius.min(size)].iter().sum();
    for (i, value) in row.iter_mut().enumerate() {
        if let Some(entering) = i.checked_add(radius).and_then(|k| original.get(k)) {
            sum += entering;
        }
        if i > radius {
            sum -= original[i - radius - 1];
        }
        let count = i.saturating_add(radius).min(size - 1) - i.saturating_sub(radius) + 1;
        *value = sum / count as f64;
    }
}

/// Row by row with one running sum a column, so that memory is read in order.
fn box_blur_columns(image: &[f64], width: usize, height: usize, radius: usize) -> Vec<f64> {
    let row = |y: usize| &image[y * width..][..width];
    let mut sums = vec![0.0; width];
    let mut blurred = Vec::with_capacity(image.len());
    for y in 0..radius.min(height) {
        sums.iter_mut().zip(row(y)).for_each(|(s, v)| *s += v);
    }
    for y in 0..height {
        if let Some(entering) = y.checked_add(radius).filter(|&k| k < height) {
            sums.iter_mut().zip(row(entering)).for_each(|(s, v)| *s += v);
        }
        if y > radius {
            sums.iter_mut().zip(row(y - radius - 1)).for_each(|(s, v)| *s -= v);
        }
        let count = y.saturating_add(radius).min(height - 1) - y.saturating_sub(radius) + 1;
        blurred.extend(sums.iter().map(|s| s / count as f64));
    }
    blurred
}

/// Pixels above 0 that no neighbour exceeds; of a plateau's pixels side by side, the first.
fn local_maxima(smooth: &[f64], width: usize, height: usize) -> Vec<usize> {
    // Running sums leave rounding errors; they must not make maxima of a plateau.
    const LEAST: f64 = 1e-9;
    let mut maxima = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let index = y * width + x;
            let value = smooth[index];
            if value <= LEAST {
                continue;
            }
            let is_peak = (y.saturating_sub(1)..(y + 2).min(height)).all(|v| {
                (x.saturating_sub(1)..(x + 2).min(width)).all(|u| {
                    let other = v * width + u;
                    match other.cmp(&index) {
                        std::cmp::Ordering::Less => smooth[other] < value - LEAST * value,
                        std::cmp::Ordering::Equal => true,
                        std::cmp::Ordering::Greater => smooth[other] <= value + LEAST * value,
                    }
                })
            });
            if is_peak {
                maxima.push(index);
            }
        }
    }
    maxima
}

/// The top of the parabola through the maximum and its neighbours, along each axis.
fn refine(smooth: &[f64], width: usize, height: usize, index: usize) -> (f64, f64) {
    let (x, y) = (index % width, index / width);
    let offset = |before: f64, after: f64| {
        let bend = before - 2.0 * smooth[index] + after;
        if bend < 0.0 { (0.5 * (before - after) / bend).clamp(-0.5, 0.5) } else { 0.0 }
    };
    let mut centre = (x as f64, y as f64);
    if x > 0 && x + 1 < width {
        centre.0 += offset(smooth[index - 1], smooth[index + 1]);
    }
    if y > 0 && y + 1 < height {
        centre.1 += offset(smooth[index - width], smooth[index + width]);
    }
    centre
}

/// Mean probability over the disc's pixels inside the image; 0 where it has none.
fn mean_in_disc(probability: &Image, x: f64, y: f64, radius: f64) -> f64 {
    let span = |centre: f64, size: usize| {
        let first = (centre - radius).ceil().max(0.0) as usize;
        first..((centre + radius).floor() + 1.0).clamp(0.0, size as f64) as usize
    };
    let (mut sum, mut count) = (0.0, 0usize);
    for row in span(y, probability.height) {
        for column in span(x, probability.width) {
            let (dx, dy) = (column as f64 - x, row as f64 - y);
            if dx * dx + dy * dy <= radius * radius {
                sum += f64::from(sane(probability.pixels[row * probability.width + column]));
                count += 1;
            }
        }
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Points that keep a distance. Sparse: a point has a bucket only where there is one.
struct Apart {
    distance: f64,
    buckets: HashMap<(i64, i64), Vec<(f64, f64)>>,
}

impl Apart {
    fn new(distance: f64) -> Self {
        Self { distance, buckets: HashMap::new() }
    }

    /// Adds the point unless another is closer than the distance.
    fn try_insert(&mut self, x: f64, y: f64) -> bool {
        // Buckets of at least a pixel: a tiny distance must not overflow their numbers.
        let size = self.distance.max(1.0);
        let (column, row) = ((x / size).floor() as i64, (y / size).floor() as i64);
        let is_near = (row - 1..=row + 1)
            .flat_map(|r| (column - 1..=column + 1).map(move |c| (c, r)))
            .filter_map(|key| self.buckets.get(&key))
            .flatten()
            .any(|&(px, py)| (px - x).hypot(py - y) < self.distance);
        if !is_near {
            self.buckets.entry((column, row)).or_default().push((x, y));
        }
        !is_near
    }
}

/// A connected component: its area and bounding box (inclusive).
struct Component {
    area: usize,
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Component {
    fn touches_border(&self, width: usize, height: usize) -> bool {
        self.left == 0 || self.top == 0 || self.right + 1 == width || self.bottom + 1 == height
    }

    /// Whether the box is about square and filled as a disc fills its box (π/4 = 0.79): two discs in contact are
    /// not round.
    fn is_round(&self) -> bool {
        let (width, height) = ((self.right - self.left + 1) as f64, (self.bottom - self.top + 1) as f64);
        let fill = self.area as f64 / (width * height);
        (0.75..=1.34).contains(&(width / height)) && (0.68..=0.92).contains(&fill)
    }
}

/// The connected components of the foreground, four neighbours.
fn components(mask: &Labels) -> Vec<Component> {
    let (width, height) = (mask.width, mask.height);
    let mut open: Vec<bool> = mask.values.iter().map(|&v| v > 0).collect();
    let mut found = Vec::new();
    let mut stack = Vec::new();
    for start in 0..open.len() {
        if !open[start] {
            continue;
        }
        open[start] = false;
        stack.push(start);
        let mut component = Component { area: 0, left: width, right: 0, top: height, bottom: 0 };
        while let Some(index) = stack.pop() {
            let (x, y) = (index % width, index / width);
            component.area += 1;
            component.left = component.left.min(x);
            component.right = component.right.max(x);
            component.top = component.top.min(y);
            component.bottom = component.bottom.max(y);
            let mut visit = |next: usize| {
                if std::mem::take(&mut open[next]) {
                    stack.push(next);
                }
            };
            if x > 0 {
                visit(index - 1);
            }
            if x + 1 < width {
                visit(index + 1);
            }
            if y > 0 {
                visit(index - width);
            }
            if y + 1 < height {
                visit(index + width);
            }
        }
        found.push(component);
    }
    found
}

/// Twice the median depth of the foreground's local maxima of depth.
fn ridge_diameter(mask: &Labels) -> f64 {
    let depth = depth(mask);
    let mut ridges: Vec<f64> =
        local_maxima(&depth, mask.width, mask.height).into_iter().map(|i| depth[i]).collect();
    ridges.sort_by(f64::total_cmp);
    // The shallow ones are necks between discs and ragged edges.
    let deepest = ridges.last().copied().unwrap_or(0.0);
    ridges.retain(|&r| r >= 0.6 * deepest);
    // A pixel at depth 1 is next to the background: the edge is half a pixel nearer.
    2.0 * ridges.get(ridges.len() / 2).map_or(0.5, |r| (r - 0.5).max(0.5))
}

/// Distance in pixels from each foreground pixel to the nearest background pixel; the image's border is not
/// background. Chamfer distance with steps of 1 and √2, at most 8 % too long (Borgefors 1986).
fn depth(mask: &Labels) -> Vec<f64> {
    const DIAGONAL: f64 = std::f64::consts::SQRT_2;
    let (width, height) = (mask.width, mask.height);
    // Where there is no background at all the mask is one particle as large as the image.
    let limit = width.min(height) as f64 / 2.0 + 0.5;
    let mut depth: Vec<f64> = mask.values.iter().map(|&v| if v > 0 { limit } else { 0.0 }).collect();
    for y in 0..height {
        for x in 0..width {
            let index = y * width + x;
            let mut near = depth[index];
            if x > 0 {
                near = near.min(depth[index - 1] + 1.0);
            }
            if y > 0 {
                near = near.min(depth[index - width] + 1.0);
                if x > 0 {
                    near = near.min(depth[index - width - 1] + DIAGONAL);
                }
                if x + 1 < width {
                    near = near.min(depth[index - width + 1] + DIAGONAL);
                }
            }
            depth[index] = near;
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            let index = y * width + x;
            let mut near = depth[index];
            if x + 1 < width {
                near = near.min(depth[index + 1] + 1.0);
            }
            if y + 1 < height {
                near = near.min(depth[index + width] + 1.0);
                if x > 0 {
                    near = near.min(depth[index + width - 1] + DIAGONAL);
                }
                if x + 1 < width {
                    near = near.min(depth[index + width + 1] + DIAGONAL);
                }
            }
            depth[index] = near;
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(x: f64, y: f64) -> Particle {
        Particle { x, y, diameter: None, score: None }
    }

    /// Discs of probability 1.
    fn discs(width: usize, height: usize, diameter: f64, centres: &[(f64, f64)]) -> Image {
        let mut image = Image::filled(width, height, 0.0);
        for (i, pixel) in image.pixels.iter_mut().enumerate() {
            let (x, y) = ((i % width) as f64, (i / width) as f64);
            if centres.iter().any(|c| (c.0 - x).hypot(c.1 - y) <= diameter / 2.0) {
                *pixel = 1.0;
            }
        }
        image
    }

    fn labels(image: &Image) -> Labels {
        let values = image.pixels.iter().map(|&p| i32::from(p > 0.5)).collect();
        Labels { width: image.width, height: image.height, values }
    }

    #[test]
    fn a_disc_is_picked_once_at_its_centre_with_a_score_of_one() {
        for diameter in [6.0, 15.0, 31.0] {
            let picks = pick(&discs(64, 50, diameter, &[(30.3, 24.7)]), 0.5, diameter, 0.3);
            assert_eq!(picks.len(), 1);
            let Particle { x, y, diameter: d, score } = picks[0];
            assert!((x - 30.3).hypot(y - 24.7) < 0.5, "{x} {y}");
            assert_eq!(d, Some(diameter));
            assert!(score > Some(0.9), "{score:?}");
        }
    }

    #[test]
    fn touching_discs_are_told_apart_and_the_border_cuts_none_off() {
        let centres = [(20.0, 20.0), (40.0, 20.0), (30.0, 37.4), (63.0, 63.0), (0.0, 50.0)];
        let picks = pick(&discs(64, 64, 20.0, &centres), 0.5, 20.0, 0.5);
        let truth: Vec<_> = centres.iter().map(|c| at(c.0, c.1)).collect();
        assert_eq!(match_particles(&picks, &truth, 3.0), PickScore::from_counts(5, 0, 0));
    }

    #[test]
    fn picks_are_sorted_by_score_and_weak_ones_are_dropped() {
        let mut image = discs(90, 30, 14.0, &[(15.0, 15.0), (45.0, 15.0), (75.0, 15.0)]);
        for (i, p) in image.pixels.iter_mut().enumerate() {
            *p *= [0.6, 0.9, 0.3][(i % 90) / 30];
        }
        let order = |picks: Vec<Particle>| -> Vec<i64> { picks.iter().map(|p| p.x.round() as i64).collect() };
        assert_eq!(order(pick(&image, 0.1, 14.0, 0.0)), [45, 15, 75]);
        assert_eq!(order(pick(&image, 0.1, 14.0, 0.5)), [45, 15]);
        assert_eq!(order(pick(&image, 0.5, 14.0, 0.0)), [45, 15]);
    }

    #[test]
    fn degenerate_maps_give_no_picks_or_one_and_never_panic() {
        let empty = Image { width: 0, height: 0, pixels: vec![] };
        assert_eq!(pick(&empty, 0.5, 10.0, 0.0), []);
        assert_eq!(pick(&Image { width: 3, height: 3, pixels: vec![1.0; 2] }, 0.5, 10.0, 0.0), []);
        assert_eq!(pick(&Image::filled(20, 20, f32::NAN), 0.5, 10.0, 0.0), []);
        assert_eq!(pick(&Image::filled(20, 20, 0.0), 0.0, 10.0, 0.0), []);
        assert_eq!(pick(&Image::filled(40, 30, 1.0), 0.5, 10.0, 0.0).len(), 1);
        assert_eq!(pick(&Image::filled(1, 1, 1.0), 0.5, 1e300, 0.0).len(), 1);
        for diameter in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(pick(&Image::filled(20, 20, 1.0), 0.5, diameter, 0.0), []);
        }
    }

    #[test]
    fn matching_takes_the_nearest_pair_first_and_each_particle_once() {
        let truth = [at(0.0, 0.0), at(10.0, 0.0)];
        assert_eq!(match_particles(&[at(4.0, 0.0)], &truth, 6.0), PickScore::from_counts(1, 0, 1));
        let doubled = [at(1.0, 0.0), at(0.5, 0.0)];
        assert_eq!(match_particles(&doubled, &truth, 5.0), PickScore::from_counts(1, 1, 1));
        // The pick at 4 is nearest to 0, yet 0 has a nearer pick; it is left with 10.
        let both = [at(4.0, 0.0), at(0.0, 0.0)];
        assert_eq!(match_particles(&both, &truth, 6.0), PickScore::from_counts(2, 0, 0));
        assert_eq!(match_particles(&truth, &truth, 0.0).f1, 1.0);
        assert_eq!(match_particles(&truth, &truth, f64::NAN).true_positive, 0);
    }

    #[test]
    fn a_score_without_picks_or_particles_is_defined() {
        assert_eq!(PickScore::from_counts(0, 0, 0).f1, 1.0);
        let missed = PickScore::from_counts(0, 0, 3);
        assert_eq!((missed.precision, missed.recall, missed.f1), (1.0, 0.0, 0.0));
        let invented = PickScore::from_counts(0, 3, 0);
        assert_eq!((invented.precision, invented.recall, invented.f1), (0.0, 1.0, 0.0));
    }

    fn check_diameter(image: &Image, expected: f64, tolerance: f64) {
        let found = estimate_diameter(&labels(image)).expect("there is foreground");
        assert!((found - expected).abs() <= tolerance, "{found}, expected {expected}");
    }

    #[test]
    fn the_diameter_of_discs_is_found_among_specks_and_pairs() {
        check_diameter(&discs(60, 60, 20.0, &[(30.0, 30.0)]), 20.0, 0.4);
        let mut image = discs(120, 60, 20.0, &[(20.0, 30.0), (60.0, 30.0), (80.0, 30.0), (110.0, 15.0)]);
        for speck in [3, 50, 130, 245, 5_000] {
            image.pixels[speck] = 1.0;
        }
        check_diameter(&image, 20.0, 0.4);
    }

    #[test]
    fn the_diameter_is_found_where_all_discs_touch_each_other_or_the_border() {
        check_diameter(&discs(60, 60, 20.0, &[(20.0, 30.0), (40.0, 30.0)]), 20.0, 2.0);
        check_diameter(&discs(40, 40, 20.0, &[(3.0, 20.0)]), 20.0, 3.0);
        check_diameter(&Image::filled(30, 20, 1.0), 20.0, 0.5);
        check_diameter(&Image::filled(1, 1, 1.0), 1.0, 0.5);
        assert_eq!(estimate_diameter(&Labels::filled(9, 9, 0)), None);
        assert_eq!(estimate_diameter(&Labels::filled(0, 0, 0)), None);
        assert_eq!(estimate_diameter(&Labels::filled(9, 9, -1)), None);
    }

    #[test]
    fn the_blur_has_the_asked_width_and_keeps_constants() {
        for sigma in [2.0, 3.3, 6.5] {
            let mut image = vec![0.0; 81 * 81];
            image[40 * 81 + 40] = 1.0;
            let blurred = blur(&image, 81, 81, sigma);
            let variance: f64 =
                blurred.iter().enumerate().map(|(i, v)| v * ((i % 81) as f64 - 40.0).powi(2)).sum();
            assert!((variance.sqrt() / sigma - 1.0).abs() < 0.1, "{} for {sigma}", variance.sqrt());
        }
        assert!(blur(&[2.0; 35], 7, 5, 4.0).iter().all(|v| (v - 2.0).abs() < 1e-12));
    }

    fn any_probability() -> impl Strategy<Value = f32> {
        prop_oneof![6 => 0.0f32..1.0, 1 => Just(f32::NAN), 1 => -9.0f32..9.0, 1 => Just(f32::INFINITY)]
    }

    proptest! {
        #[test]
        fn picks_are_inside_apart_sorted_and_scored(
            (width, height, pixels) in (1usize..24, 1usize..24).prop_flat_map(|(w, h)| {
                (Just(w), Just(h), proptest::collection::vec(any_probability(), w * h))
            }),
            threshold in any_probability(),
            diameter in 0.1f64..40.0,
        ) {
            let picks = pick(&Image { width, height, pixels }, threshold, diameter, 0.0);
            for (i, p) in picks.iter().enumerate() {
                let score = p.score.unwrap_or(-1.0);
                prop_assert!((0.0..=1.0).contains(&score));
                prop_assert!(p.x >= 0.0 && p.x <= width as f64 - 1.0 && p.y >= 0.0 && p.y <= height as f64 - 1.0);
                for q in &picks[..i] {
                    prop_assert!((p.x - q.x).hypot(p.y - q.y) >= SEPARATION * diameter);
                    prop_assert!(q.score >= p.score);
                }
            }
        }

        #[test]
        fn counts_of_a_match_add_up(
            picked in proptest::collection::vec((0.0f64..50.0, 0.0f64..50.0), 0..30),
            truth in proptest::collection::vec((0.0f64..50.0, 0.0f64..50.0), 0..30),
            tolerance in 0.0f64..20.0,
        ) {
            let particles = |v: &[(f64, f64)]| -> Vec<Particle> { v.iter().map(|p| at(p.0, p.1)).collect() };
            let (picked, truth) = (particles(&picked), particles(&truth));
            let score = match_particles(&picked, &truth, tolerance);
            prop_assert_eq!(score.true_positive + score.false_positive, picked.len());
            prop_assert_eq!(score.true_positive + score.false_negative, truth.len());
            prop_assert_eq!(match_particles(&truth, &picked, tolerance).true_positive, score.true_positive);
            prop_assert_eq!(match_particles(&truth, &truth, tolerance).true_positive, truth.len());
        }

        #[test]
        fn diameters_are_positive_and_fit_the_image(
            (width, height, values) in (1usize..20, 1usize..20).prop_flat_map(|(w, h)| {
                (Just(w), Just(h), proptest::collection::vec(-1i32..3, w * h))
            }),
        ) {
            let is_empty = values.iter().all(|&v| v <= 0);
            match estimate_diameter(&Labels { width, height, values }) {
                None => prop_assert!(is_empty),
                Some(d) => prop_assert!(d > 0.0 && d <= (width.max(height) + 1) as f64, "{}", d),
            }
        }
    }
}
