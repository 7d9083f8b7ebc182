//! Tiles of micrographs for training, windows over a whole image for prediction, and the order in which samples
//! are visited.
//!
//! Everything random is a pure function of a seed and a position (see [`crate::rng`]).

use rand::Rng;

use crate::dataset::Pair;
use crate::image::Image;
use crate::rng::{Stream, rng};

/// A square part of one image of a dataset. It may reach beyond the image, see [`cut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Index of the image in its dataset.
    pub entry: usize,
    /// Left column, in pixels.
    pub x: usize,
    /// Top row, in pixels.
    pub y: usize,
    /// Side, in pixels.
    pub size: usize,
}

/// A square sample, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Side, in pixels.
    pub size: usize,
    /// `size * size` intensities, normalised as the dataset's images are.
    pub image: Vec<f32>,
    /// `size * size` labels in {-1, 0, 1}, where the image has labels.
    pub labels: Option<Vec<i8>>,
}

/// Non-overlapping whole tiles of side `tile`, from the top left, row by row, for images of `sizes`
/// `(width, height)`.
///
/// What is left at the right and bottom edge is not used. An image narrower or lower than a tile has one tile in
/// that direction, which [`cut`] pads. An empty image has none; `tile` = 0 gives none at all.
pub fn grid(sizes: &[(usize, usize)], tile: usize) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (entry, &(width, height)) in sizes.iter().enumerate() {
        if tile == 0 || width == 0 || height == 0 {
            continue;
        }
        for row in 0..(height / tile).max(1) {
            for column in 0..(width / tile).max(1) {
                tiles.push(Tile { entry, x: column * tile, y: row * tile, size: tile });
            }
        }
    }
    tiles
}

/// Cuts a tile out of a pair.
///
/// Where the tile reaches beyond the image the picture is reflected (without repeating the edge) and the labels
/// are -1, so that no labelled pixel counts twice. An empty image gives zeros.
pub fn cut(pair: &Pair, tile: Tile) -> Patch {
    let (width, height) = (pair.image.width, pair.image.height);
    Patch {
        size: tile.size,
        image: reflected(&pair.image.pixels, width, height, tile.x, tile.y, tile.size),
        labels: pair.labels.as_ref().map(|l| ignoring(l, width, height, tile.x, tile.y, tile.size)),
    }
}

/// A crop of side `size` at a uniformly drawn place.
///
/// In a direction in which the patch is smaller than `size` it is padded as [`cut`] does. Draws two numbers
/// whatever the sizes.
pub fn random_crop(patch: &Patch, size: usize, rng: &mut impl Rng) -> Patch {
    let room = patch.size.saturating_sub(size) as u64 + 1;
    let x = below(rng, room) as usize;
    let y = below(rng, room) as usize;
    let side = patch.size;
    Patch {
        size,
        image: reflected(&patch.image, side, side, x, y, size),
        labels: patch.labels.as_ref().map(|l| ignoring(l, side, side, x, y, size)),
    }
}

/// Index into `0..n` of position `at`, reflected at the ends without repeating them. `n` >= 1.
pub(crate) fn reflect(at: usize, n: usize) -> usize {
    if at < n {
        return at;
    }
    if n == 1 {
        return 0;
    }
    let period = 2 * (n - 1);
    let at = at % period;
    if at < n { at } else { period - at }
}

fn reflected(pixels: &[f32], width: usize, height: usize, x: usize, y: usize, size: usize) -> Vec<f32> {
    if width == 0 || height == 0 {
        return vec![0.0; size * size];
    }
    let mut out = Vec::with_capacity(size * size);
    let inside = width.saturating_sub(x).min(size);
    for row in 0..size {
        let line = &pixels[reflect(y + row, height) * width..][..width];
        out.extend_from_slice(line.get(x..x + inside).unwrap_or_default());
        out.extend((inside..size).map(|column| line[reflect(x + column, width)]));
    }
    out
}

fn ignoring(labels: &[i8], width: usize, height: usize, x: usize, y: usize, size: usize) -> Vec<i8> {
    let mut out = vec![-1; size * size];
    let inside = width.saturating_sub(x).min(size);
    if inside > 0 {
        for row in 0..height.saturating_sub(y).min(size) {
            let from = (y + row) * width + x;
            out[row * size..][..inside].copy_from_slice(&labels[from..from + inside]);
        }
    }
    out
}

// ---------------------------------------------------------------------------------------------------------------
// Order of the samples

/// A number in `0..n`, each equally likely; `n` = 0 counts as 1. Our own so that a new version of `rand` cannot
/// change the order of a run that is resumed.
pub fn below(rng: &mut impl Rng, n: u64) -> u64 {
    let n = n.max(1);
    // Lemire 2019, <https://arxiv.org/abs/1805.10941>: the high half of a product, rejecting the few low halves
    // that would make some numbers more likely.
    let threshold = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

fn permutation(rng: &mut impl Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(rng, i as u64 + 1) as usize);
    }
    order
}

/// The labelled samples: `max(1, floor(n * ratio))` of `0..n`, in a drawn order.
///
/// The same seed shuffles the same way for every ratio, so the subset of a smaller ratio is a prefix of that of a
/// larger one. `ratio` is in 0..=1; beyond 1 counts as 1. A product below a whole number by no more than rounding
/// (one part in 10^9) counts as that number: .29 of 100 is 29. Empty only for `n` = 0.
pub fn labelled_subset(n: usize, ratio: f64, seed: u64) -> Vec<usize> {
    let mut order = permutation(&mut rng(seed, Stream::LabelledSubset, 0), n);
    // The cast saturates and takes NaN to 0.
    let wanted = (n as f64 * ratio * (1.0 + 1e-9)) as usize;
    order.truncate(wanted.max(1));
    order
}

/// The order in which epoch `pass` (from 0) visits `0..n`: a uniform permutation.
pub fn epoch_order(seed: u64, pass: u64, n: usize) -> Vec<usize> {
    permutation(&mut rng(seed, Stream::Order, pass), n)
}

/// Number of batches in an epoch of `n` samples; the last may be short. `batch` = 0 counts as 1.
pub fn epoch_batches(n: usize, batch: usize) -> usize {
    n.div_ceil(batch.max(1))
}

/// The samples of batch `step`, counted from 0 over all epochs; the last batch of an epoch may be short.
///
/// Pure function of its arguments, in time proportional to `n`. Empty only for `n` = 0.
pub fn epoch_batch(seed: u64, step: u64, n: usize, batch: usize) -> Vec<usize> {
    let batch = batch.max(1);
    let batches = epoch_batches(n, batch) as u64;
    if batches == 0 {
        return Vec::new();
    }
    let from = (step % batches) as usize * batch;
    epoch_order(seed, step / batches, n)[from..(from + batch).min(n)].to_vec()
}

/// Elements `start..start + count` of the endless sequence `epoch_order(seed, 0, n), epoch_order(seed, 1, n), …`.
///
/// Pure function of its arguments, in time proportional to `n` for each epoch touched. Empty for `n` = 0.
pub fn stream_indices(seed: u64, start: u64, count: usize, n: usize) -> Vec<usize> {
    if n == 0 {
        return Vec::new();
    }
    let mut indices = Vec::with_capacity(count);
    let mut pass = start / n as u64;
    let mut from = (start % n as u64) as usize;
    while indices.len() < count {
        let order = epoch_order(seed, pass, n);
        indices.extend(order[from..].iter().copied().take(count - indices.len()));
        pass = pass.wrapping_add(1);
        from = 0;
    }
    indices
}

// ---------------------------------------------------------------------------------------------------------------
// Whole images

/// Predicts an image of any size by overlapping square windows and blends them.
///
/// Use: for each `i` of `0..len()`, predict [`window`](Self::window)`(i, image)` and hand the result to
/// [`accumulate`](Self::accumulate); then [`finish`](Self::finish).
///
/// A window weighs `exp(-(d_x^2 + d_y^2) / (2 sigma^2))`, d the distance from its centre, `sigma` = side / 8 as in
/// nnU-Net (Isensee et al. 2021); the weights of a pixel are divided by their sum. The windows form a grid, so
/// weights and sums are products of one-dimensional ones and no weight image is kept.
#[derive(Debug, Clone)]
pub struct BlendPlan {
    width: usize,
    height: usize,
    tile: usize,
    columns: Vec<AxisWindow>,
    rows: Vec<AxisWindow>,
    /// In double precision: with much overlap a pixel is the sum of very many terms.
    sum: Vec<f64>,
    done: Vec<bool>,
}

/// A window along one axis: first pixel and the normalised weight of each pixel inside the image.
#[derive(Debug, Clone)]
struct AxisWindow {
    origin: usize,
    weights: Vec<f64>,
}

impl BlendPlan {
    /// A plan for an image of `width` x `height` pixels with windows of side `tile`, of which neighbours share at
    /// least `overlap` pixels (half the side is usual).
    ///
    /// The last window of each row and column is shifted inward to end at the edge; an image smaller than a window
    /// is padded by reflection at the right and bottom. `tile` is at least 1 (0 counts as 1); `overlap` is at most
    /// `tile - 1` (more counts as that). An empty image has no windows.
    pub fn new(width: usize, height: usize, tile: usize, overlap: usize) -> Self {
        let tile = tile.max(1);
        let stride = tile - overlap.min(tile - 1);
        let columns = axis(width, tile, stride);
        let rows = axis(height, tile, stride);
        let windows = columns.len() * rows.len();
        Self {
            width,
            height,
            tile,
            columns,
            rows,
            sum: vec![0.0; width * height],
            done: vec![false; windows],
        }
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether there are no windows: the image is empty.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Side of a window, in pixels.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// Left column and top row of window `i`. Windows are counted row by row from the top left.
    ///
    /// # Panics
    /// If there is no window `i`.
    pub fn origin(&self, i: usize) -> (usize, usize) {
        let (column, row) = self.axes(i);
        (column.origin, row.origin)
    }

    /// The `tile * tile` pixels of window `i`, row-major.
    ///
    /// # Panics
    /// If there is no window `i` or `image` is not of the plan's size.
    pub fn window(&self, i: usize, image: &Image) -> Vec<f32> {
        assert_eq!(
            (image.width, image.height),
            (self.width, self.height),
            "the plan is for another image size"
        );
        let (x, y) = self.origin(i);
        reflected(&image.pixels, self.width, self.height, x, y, self.tile)
    }

    /// Adds the prediction for window `i`, `tile * tile` values, row-major. Each window once, in any order; the
    /// same order gives the same bits.
    ///
    /// # Panics
    /// If there is no window `i`, it has been added before, or `values` has another length.
    pub fn accumulate(&mut self, i: usize, values: &[f32]) {
        assert_eq!(values.len(), self.tile * self.tile, "a window has tile * tile values");
        assert!(!std::mem::replace(&mut self.done[i], true), "window {i} was accumulated before");
        let column = &self.columns[i % self.columns.len()];
        let row = &self.rows[i / self.columns.len()];
        for ((r, &row_weight), line) in row.weights.iter().enumerate().zip(values.chunks_exact(self.tile)) {
            let out = &mut self.sum[(row.origin + r) * self.width + column.origin..];
            for ((out, &value), &weight) in out.iter_mut().zip(line).zip(&column.weights) {
                *out += row_weight * weight * f64::from(value);
            }
        }
    }

    /// The blended image.
    ///
    /// # Panics
    /// If a window was never accumulated.
    pub fn finish(self) -> Image {
        if let Some(missing) = self.done.iter().position(|done| !done) {
            panic!("window {missing} of {} was never accumulated", self.done.len());
        }
        Image {
            width: self.width,
            height: self.height,
            pixels: self.sum.into_iter().map(|p| p as f32).collect(),
        }
    }

    fn axes(&self, i: usize) -> (&AxisWindow, &AxisWindow) {
        assert!(i < self.len(), "window {i} of {}", self.len());
        (&self.columns[i % self.columns.len()], &self.rows[i / self.columns.len()])
    }
}

fn axis(length: usize, tile: usize, stride: usize) -> Vec<AxisWindow> {
    if length == 0 {
        return Vec::new();
    }
    let last = length.saturating_sub(tile);
    let mut origins: Vec<usize> = (0..last).step_by(stride).collect();
    origins.push(last);

    let centre = (tile as f64 - 1.0) / 2.0;
    let sigma = tile as f64 / 8.0;
    let raw: Vec<f64> = (0..tile).map(|i| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp()).collect();
    let mut total = vec![0.0f64; length];
    for &origin in &origins {
        for (sum, weight) in total[origin..].iter_mut().zip(&raw) {
            *sum += weight;
        }
    }
    origins
        .into_iter()
        .map(|origin| {
            let weights = total[origin..].iter().zip(&raw).map(|(sum, weight)| weight / sum).collect();
            AxisWindow { origin, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(width: usize, height: usize) -> Pair {
        let pixels = (0..width * height).map(|i| i as f32).collect();
        let labels = (0..width * height).map(|i| (i % 2) as i8).collect();
        Pair { name: "m".to_owned(), image: Image { width, height, pixels }, labels: Some(labels) }
    }

    fn sorted(mut values: Vec<usize>) -> Vec<usize> {
        values.sort_unstable();
        values
    }

    #[test]
    fn a_micrograph_of_1240_by_1200_has_sixteen_tiles_of_256() {
        let tiles = grid(&[(1240, 1200), (1240, 1200)], 256);
        assert_eq!(tiles.len(), 32);
        assert_eq!(tiles[5], Tile { entry: 0, x: 256, y: 256, size: 256 });
        assert_eq!(tiles[16], Tile { entry: 1, x: 0, y: 0, size: 256 });
    }

    #[test]
    fn images_smaller_than_a_tile_have_one_and_empty_ones_none() {
        assert_eq!(grid(&[(10, 100), (0, 5)], 32).len(), 3);
        assert!(grid(&[(10, 10)], 0).is_empty());
    }

    #[test]
    fn what_lies_beyond_the_image_is_reflected_and_ignored() {
        let patch = cut(&numbered(3, 2), Tile { entry: 0, x: 0, y: 0, size: 5 });
        let row0 = [0.0, 1.0, 2.0, 1.0, 0.0];
        let row1 = [3.0, 4.0, 5.0, 4.0, 3.0];
        assert_eq!(patch.image, [row0, row1, row0, row1, row0].concat());
        let labels = patch.labels.unwrap();
        assert_eq!(labels[..10], [0, 1, 0, -1, -1, 1, 0, 1, -1, -1]);
        assert!(labels[10..].iter().all(|&l| l == -1));
    }

    #[test]
    fn a_single_pixel_and_an_empty_image_can_be_cut() {
        let tile = Tile { entry: 0, x: 0, y: 0, size: 3 };
        assert_eq!(cut(&numbered(1, 1), tile).image, [0.0; 9]);
        assert_eq!(cut(&numbered(0, 0), tile).labels.unwrap(), [-1; 9]);
        let outside = Tile { entry: 0, x: 40, y: 40, size: 3 };
        assert_eq!(cut(&numbered(4, 4), outside).labels.unwrap(), [-1; 9]);
    }

    #[test]
    fn at_least_one_sample_is_labelled_and_the_count_is_rounded_down() {
        for (n, ratio, count) in
            [(5170, 0.1, 517), (192, 0.01, 1), (10, 0.0, 1), (0, 0.5, 0), (100, 0.29, 29)]
        {
            assert_eq!(labelled_subset(n, ratio, 7).len(), count, "{n} * {ratio}");
        }
        assert_eq!(labelled_subset(9, 7.5, 7).len(), 9);
        assert_eq!(labelled_subset(9, f64::NAN, 7).len(), 1);
        assert_eq!(labelled_subset(199, 0.01, 7).len(), 1);
    }

    #[test]
    fn the_orders_do_not_change_between_versions() {
        // Made by this program; a resumed run depends on them.
        assert_eq!(epoch_order(0, 0, 8), ORDER_0_0_8);
        assert_eq!(labelled_subset(8, 1.0, 0), SUBSET_0_8);
    }
    const ORDER_0_0_8: [usize; 8] = [4, 3, 7, 0, 1, 6, 2, 5];
    const SUBSET_0_8: [usize; 8] = [4, 5, 0, 7, 3, 6, 2, 1];

    #[test]
    fn passes_differ_and_517_samples_make_130_batches_of_4() {
        assert_ne!(epoch_order(1, 0, 50), epoch_order(1, 1, 50));
        assert_ne!(epoch_order(1, 0, 50), epoch_order(2, 0, 50));
        assert_eq!(epoch_batches(517, 4), 130);
        assert_eq!(epoch_batch(1, 129, 517, 4).len(), 1);
        assert_eq!(epoch_batch(1, 130, 517, 4), epoch_order(1, 1, 517)[..4]);
        assert!(epoch_batch(1, 3, 0, 4).is_empty());
    }

    #[test]
    fn small_permutations_are_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        for pass in 0..6000 {
            *counts.entry(epoch_order(3, pass, 3)).or_insert(0) += 1;
        }
        // Six orders, 1000 each, standard deviation 29.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&c| (850..1150).contains(&c)), "{counts:?}");
    }

    #[test]
    fn windows_cover_with_the_last_shifted_inward() {
        let plan = BlendPlan::new(100, 50, 32, 16);
        let origins: Vec<_> = (0..plan.len()).map(|i| plan.origin(i)).collect();
        assert_eq!(origins.len(), 6 * 3);
        assert_eq!(origins[5], (68, 0));
        assert_eq!(origins[17], (68, 18));
    }

    #[test]
    #[should_panic(expected = "never accumulated")]
    fn a_forgotten_window_is_noticed() {
        let _ = BlendPlan::new(8, 8, 8, 0).finish();
    }

    fn blended(image: &Image, tile: usize, overlap: usize) -> Image {
        let mut plan = BlendPlan::new(image.width, image.height, tile, overlap);
        for i in 0..plan.len() {
            let window = plan.window(i, image);
            plan.accumulate(i, &window);
        }
        plan.finish()
    }

    proptest! {
        #[test]
        fn the_identity_predictor_returns_the_image(
            width in 1usize..80, height in 1usize..80, tile in 1usize..40, overlap in 0usize..45,
        ) {
            let pixels = (0..width * height).map(|i| ((i * 37) % 101) as f32 / 101.0).collect();
            let image = Image { width, height, pixels };
            let out = blended(&image, tile, overlap);
            prop_assert_eq!((out.width, out.height), (width, height));
            for (a, b) in image.pixels.iter().zip(&out.pixels) {
                prop_assert!((a - b).abs() < 1e-6, "{} became {}", a, b);
            }
        }

        #[test]
        fn a_constant_stays_constant_so_every_pixel_is_covered(
            width in 0usize..90, height in 0usize..90, tile in 0usize..40, overlap in 0usize..45,
        ) {
            let out = blended(&Image::filled(width, height, 1.0), tile, overlap);
            prop_assert!(out.pixels.iter().all(|p| (p - 1.0).abs() < 1e-6));
        }

        #[test]
        fn tiles_lie_inside_and_do_not_overlap(
            sizes in prop::collection::vec((1usize..90, 1usize..90), 1..5), tile in 1usize..40,
        ) {
            let mut covered: Vec<Vec<bool>> = sizes.iter().map(|(w, h)| vec![false; w * h]).collect();
            for t in grid(&sizes, tile) {
                let (width, height) = sizes[t.entry];
                prop_assert!(t.x + tile <= width.max(tile) && t.y + tile <= height.max(tile));
                for y in t.y..(t.y + tile).min(height) {
                    for x in t.x..(t.x + tile).min(width) {
                        prop_assert!(!std::mem::replace(&mut covered[t.entry][y * width + x], true));
                    }
                }
            }
        }

        #[test]
        fn a_cut_inside_the_image_is_a_copy(x in 0usize..20, y in 0usize..15, size in 1usize..5) {
            let pair = numbered(24, 19);
            let patch = cut(&pair, Tile { entry: 0, x, y, size });
            for (i, value) in patch.image.iter().enumerate() {
                let at = (y + i / size) * 24 + x + i % size;
                prop_assert_eq!(*value, at as f32);
                prop_assert_eq!(patch.labels.as_ref().unwrap()[i], (at % 2) as i8);
            }
        }

        #[test]
        fn a_random_crop_is_part_of_the_patch(size in 1usize..12, seed: u64) {
            let patch = cut(&numbered(10, 10), Tile { entry: 0, x: 0, y: 0, size: 10 });
            let crop = random_crop(&patch, size, &mut rng(seed, Stream::Augment, 0));
            prop_assert_eq!(crop.size, size);
            prop_assert_eq!(crop.image.len(), size * size);
            let first = crop.image[0] as usize;
            prop_assert!(first % 10 + size.min(10) <= 10 && first / 10 + size.min(10) <= 10);
            let again = random_crop(&patch, size, &mut rng(seed, Stream::Augment, 0));
            prop_assert_eq!(crop, again);
        }

        #[test]
        fn orders_are_permutations(seed: u64, pass: u64, n in 0usize..200) {
            prop_assert_eq!(sorted(epoch_order(seed, pass, n)), (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn a_smaller_labelled_subset_is_a_prefix_of_a_larger_one(
            seed: u64, n in 1usize..300, a in 0.0f64..1.0, b in 0.0f64..1.0,
        ) {
            let small = labelled_subset(n, a.min(b), seed);
            let large = labelled_subset(n, a.max(b), seed);
            prop_assert!(large.starts_with(&small));
            prop_assert_eq!(sorted(labelled_subset(n, 1.0, seed)), (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn the_stream_can_be_entered_anywhere(
            seed: u64, start in 0u64..500, count in 0usize..200, n in 1usize..60,
        ) {
            let whole = stream_indices(seed, 0, start as usize + count, n);
            prop_assert_eq!(&stream_indices(seed, start, count, n), &whole[start as usize..]);
            for (pass, chunk) in whole.chunks_exact(n).enumerate() {
                prop_assert_eq!(chunk, epoch_order(seed, pass as u64, n));
            }
        }

        #[test]
        fn the_batches_of_an_epoch_are_its_order(seed: u64, n in 1usize..60, batch in 1usize..20) {
            let batches = epoch_batches(n, batch) as u64;
            let joined: Vec<usize> = (batches..2 * batches).flat_map(|s| epoch_batch(seed, s, n, batch)).collect();
            prop_assert_eq!(joined, epoch_order(seed, 1, n));
        }
    }
}
