//! What a convolution's geometry decides once: tiles, the layout of the copied input, the taps' distances.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Conv;
use super::micro::Kernels;
use crate::Isa;

/// Sums of a task, of all its jobs together: 256 KiB, a part of the second-level cache.
pub(super) const SUMS: usize = 64 << 10;
/// Written channels of a task. A tile has as many positions as the sums have room for; where a single tap gives little to do
/// for each element copied, more channels share the copy.
const ROWS: usize = 64;
/// Positions of a task with several small images.
const TILE: usize = SUMS / ROWS;
/// Bytes of the copied input that a register tile reads for one pass over its channels; they and the weights beside them
/// stay in the first-level cache.
const NEAR: usize = 24 << 10;
/// Bytes of the copied input of a tile for one pass over its channels; they stay in the second-level cache.
const FAR: usize = 320 << 10;

/// Which side is gathered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Gather {
    /// Outputs from the input.
    Forward,
    /// As `Forward`, for the dot products with the output's gradient.
    Weight,
    /// The input's side from the output's side: gradient by the input, transposed convolution.
    Transposed,
}

/// One phase of the written side, with the taps that reach it.
pub(super) struct Job {
    /// Taps of the jobs before it.
    pub taps_before: usize,
    /// Written index of position `j` along each dimension: `j * step + shift`.
    pub step: [usize; 3],
    pub shift: [isize; 3],
    /// Index of each tap in the weight's kernel.
    pub taps: Vec<usize>,
    /// Distance in the copy of each (channel of a pass, tap), channel by channel.
    pub distance: Vec<u32>,
}

/// See the module's head.
pub(super) struct Plan {
    pub kernels: Kernels,
    /// Channels of a group on the read and on the written side.
    pub read_channels: usize,
    pub write_channels: usize,
    /// Written channels of a task.
    pub rows: usize,
    pub read_size: [usize; 3],
    pub write_size: [usize; 3],
    /// Positions `origin..origin + count` are computed, in tiles of `tile`.
    pub origin: [isize; 3],
    pub count: [usize; 3],
    pub tile: [usize; 3],
    /// The copy consists of segments along each dimension. Read index of element `e` of segment `i` in a tile that starts at
    /// `start`: `(start + e) * read_step + segments[i]`.
    pub read_step: [usize; 3],
    pub segments: [Vec<isize>; 3],
    /// Elements of a segment along each dimension.
    pub extent: [usize; 3],
    /// Elements of the copy of a channel, all segments and a gap included.
    pub channel: usize,
    /// Channels copied at a time.
    pub pass: usize,
    pub jobs: Vec<Job>,
}

impl Plan {
    /// The plan of `c`, made once for a geometry and instruction set.
    pub(super) fn of(c: &Conv, gather: Gather, isa: Isa) -> Arc<Self> {
        type Key = (Conv, Gather, Isa);
        static PLANS: Mutex<Option<HashMap<Key, Arc<Plan>>>> = Mutex::new(None);
        // The batch does not matter to a plan.
        let key = (Conv { batch: 0, ..*c }, gather, isa);
        let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
        let plans = plans.get_or_insert_default();
        if let Some(plan) = plans.get(&key) {
            return plan.clone();
        }
        // A program that meets ever new sizes must not grow without bound.
        if plans.len() >= 4096 {
            plans.clear();
        }
        let plan = Arc::new(Self::new(c, gather, Kernels::of(isa)));
        plans.insert(key, plan.clone());
        plan
    }

    fn new(c: &Conv, gather: Gather, kernels: Kernels) -> Self {
        let (input, output) = (c.input / c.groups, c.output / c.groups);
        let out = c.out_size();
        let taps = c.taps();
        // Tap t of dimension d reaches `o * stride + reach`: phase `reach % stride`, `reach / stride` elements on.
        let reach = |d: usize, t: usize| t * c.dilation[d];
        let phase = |d: usize, t: usize| reach(d, t) % c.stride[d];
        let on = |d: usize, t: usize| reach(d, t) / c.stride[d];
        let farthest: [usize; 3] = std::array::from_fn(|d| on(d, c.kernel[d] - 1));
        let padding = c.padding.map(|p| p as isize);
        let forward = gather != Gather::Transposed;

        // A stride splits what is read into phases, every stride-th element from another start.
        let phases: [Vec<usize>; 3] = std::array::from_fn(|d| {
            let mut all: Vec<usize> =
                if forward { (0..c.kernel[d]).map(|t| phase(d, t)).collect() } else { vec![0] };
            all.sort_unstable();
            all.dedup();
            all
        });
        let (read_size, write_size) = if forward { (c.size, out) } else { (out, c.size) };
        let (origin, count): ([isize; 3], [usize; 3]) = if forward {
            ([0; 3], out)
        } else {
            // Input i is position (i + padding) / stride of phase (i + padding) % stride.
            let first: [usize; 3] = std::array::from_fn(|d| c.padding[d] / c.stride[d]);
            let count = std::array::from_fn(|d| match c.size[d] {
                0 => 0,
                size => (size - 1 + c.padding[d]) / c.stride[d] + 1 - first[d],
            });
            (first.map(|f| f as isize), count)
        };

        let read_channels = if forward { input } else { output };
        let jobs_count: usize = if forward { 1 } else { c.stride.iter().product() };
        let write_channels = if forward { output } else { input };
        let aim = match gather {
            // Long dot products, for their sums across vectors cost as much as twenty steps.
            Gather::Weight => SUMS / write_channels.clamp(ROWS / 2, ROWS),
            _ if taps == 1 => SUMS / write_channels.clamp(ROWS, 4 * ROWS),
            _ => SUMS / ROWS,
        };
        let aim = (aim / jobs_count).max(64);
        let mut tile = [1, 1, count[2].clamp(1, aim)];
        tile[1] = (aim / tile[2]).clamp(1, count[1].max(1));
        if tile[1] == count[1] {
            tile[0] = (aim / (tile[1] * tile[2])).clamp(1, count[0].max(1));
        }
        // Where the taps lie farther apart than the tile is long, a segment for each tap is less than one for all.
        let apart = |d: usize, tile: usize| c.kernel[d] * tile < phases[d].len() * (tile + farthest[d]);
        let floats_of = |tile: [usize; 3]| -> usize {
            (0..3)
                .map(|d| match apart(d, tile[d]) {
                    true => c.kernel[d] * tile[d],
                    false => phases[d].len() * (tile[d] + farthest[d]),
                })
                .product()
        };
        // A single channel must not be larger than what is copied at a time.
        for d in [0, 1, 2] {
            while tile[d] > 1 && floats_of(tile) * 4 > FAR {
                tile[d] = tile[d].div_ceil(2);
            }
        }
        // Near-equal tiles instead of full ones and a rest.
        let tile: [usize; 3] =
            std::array::from_fn(|d| count[d].max(1).div_ceil(count[d].max(1).div_ceil(tile[d])));
        let apart: [bool; 3] = std::array::from_fn(|d| apart(d, tile[d]));
        let extent: [usize; 3] =
            std::array::from_fn(|d| if apart[d] { tile[d] } else { tile[d] + farthest[d] });
        let segments: [Vec<isize>; 3] = std::array::from_fn(|d| match (apart[d], forward) {
            (true, true) => (0..c.kernel[d]).map(|t| reach(d, t) as isize - padding[d]).collect(),
            (true, false) => (0..c.kernel[d]).map(|t| -(on(d, t) as isize)).collect(),
            (false, true) => phases[d].iter().map(|p| *p as isize - padding[d]).collect(),
            (false, false) => vec![-(farthest[d] as isize)],
        });
        // An odd number of cache lines, so that channels do not compete for the same sets.
        let channel = (floats_of(tile).div_ceil(16) | 1) * 16;
        let rows = segments[2].len() * c.kernel[0] * c.kernel[1];
        let near = NEAR / (rows * (kernels.columns * kernels.lanes * 4 + 64));
        let pass = near.max(8).min(FAR / (channel * 4)).clamp(1, read_channels.max(1));
        // Equal passes.
        let pass = read_channels.max(1).div_ceil(read_channels.max(1).div_ceil(pass));

        let plane: usize = extent.iter().product();
        // Segment and element at which a tap of a dimension finds the first position of a tile.
        let place = |d: usize, t: usize| match (apart[d], forward) {
            (true, _) => (t, 0),
            (false, true) => (phases[d].iter().position(|p| *p == phase(d, t)).unwrap_or(0), on(d, t)),
            (false, false) => (0, farthest[d] - on(d, t)),
        };
        let distance_of = |t: [usize; 3]| -> usize {
            let [(sz, z), (sy, y), (sx, x)] = std::array::from_fn(|d| place(d, t[d]));
            let segment = (sz * segments[1].len() + sy) * segments[2].len() + sx;
            segment * plane + (z * extent[1] + y) * extent[2] + x
        };
        let all_taps = || {
            let k = c.kernel;
            (0..k[0]).flat_map(move |z| (0..k[1]).flat_map(move |y| (0..k[2]).map(move |x| [z, y, x])))
        };
        let job = |residue: [usize; 3]| {
            let taps: Vec<[usize; 3]> =
                all_taps().filter(|t| forward || (0..3).all(|d| phase(d, t[d]) == residue[d])).collect();
            let distance = (0..pass)
                .flat_map(|ch| taps.iter().map(move |t| (ch, t)))
                .map(|(ch, t)| (ch * channel + distance_of(*t)) as u32)
                .collect();
            let taps = taps.iter().map(|t| (t[0] * c.kernel[1] + t[1]) * c.kernel[2] + t[2]).collect();
            let (step, shift) = if forward {
                ([1; 3], [0; 3])
            } else {
                (c.stride, std::array::from_fn(|d| residue[d] as isize - padding[d]))
            };
            Job { taps_before: 0, step, shift, taps, distance }
        };
        let mut jobs: Vec<Job> = if forward {
            vec![job([0; 3])]
        } else {
            let s = c.stride;
            (0..s[0])
                .flat_map(|z| (0..s[1]).flat_map(move |y| (0..s[2]).map(move |x| [z, y, x])))
                .map(job)
                .collect()
        };
        let mut before = 0;
        for job in &mut jobs {
            job.taps_before = before;
            before += job.taps.len();
        }
        Self {
            kernels,
            read_channels,
            write_channels,
            rows: if taps == 1 { 4 * ROWS } else { ROWS },
            read_size,
            write_size,
            origin,
            count,
            tile,
            read_step: if forward { c.stride } else { [1; 3] },
            segments,
            extent,
            channel,
            pass,
            jobs,
        }
    }

    /// Floats of the copy of one pass, with room for a vector to read beyond its end.
    pub(super) fn copy_len(&self) -> usize {
        self.pass * self.channel + self.kernels.lanes
    }

    /// Number of tiles along each dimension.
    pub(super) fn tiles(&self) -> [usize; 3] {
        std::array::from_fn(|d| self.count[d].div_ceil(self.tile[d]))
    }

    /// Positions of tile `index`: start (counted from `origin`) and length along each dimension.
    pub(super) fn tile_at(&self, index: usize) -> Tile {
        let n = self.tiles();
        let at = [index / (n[1] * n[2]), index / n[2] % n[1], index % n[2]];
        let start: [usize; 3] = std::array::from_fn(|d| at[d] * self.tile[d]);
        let len: [usize; 3] = std::array::from_fn(|d| self.tile[d].min(self.count[d] - start[d]));
        // Vectors may run on over the ends of rows (computing what nobody reads between them), or start anew in each row.
        let lanes = self.kernels.lanes;
        let run_on = ((len[1] - 1) * self.extent[2] + len[2]).div_ceil(lanes);
        let by_row = len[1] * len[2].div_ceil(lanes);
        let rows_apart = if run_on < by_row { self.extent[2] } else { len[2].div_ceil(lanes) * lanes };
        Tile { start, len, vectors_plane: run_on.min(by_row), rows_apart }
    }

    /// Images that a task takes together where one alone has few vectors: they fill the register tiles better, and share
    /// the weights in the cache.
    pub(super) fn together(&self, batch: usize) -> usize {
        if self.tiles() != [1; 3] {
            return 1;
        }
        let room = FAR / (self.copy_len() * 4);
        (TILE / self.jobs.len() / self.kernels.lanes / self.vectors()).min(room).clamp(1, batch)
    }

    /// Most vectors a tile has.
    pub(super) fn vectors(&self) -> usize {
        // The first tile is as large as any.
        self.tile_at(0).vectors()
    }

    /// Copies `channels` channels of `read` (whose planes follow one another) for `tile`.
    pub(super) fn copy(&self, tile: &Tile, read: &[f32], channels: usize, to: &mut [f32]) {
        let size = self.read_size;
        let positions: usize = size.iter().product();
        let [ez, ey, ex] = self.extent;
        let start: [isize; 3] = std::array::from_fn(|d| self.origin[d] + tile.start[d] as isize);
        let index =
            |d: usize, e: usize, shift: isize| (start[d] + e as isize) * self.read_step[d] as isize + shift;
        // Rows and planes beyond those that this tile reads are zeros.
        let used: [usize; 3] = std::array::from_fn(|d| self.extent[d] - (self.tile[d] - tile.len[d]));
        let step = self.read_step[2];
        for ch in 0..channels {
            let from = &read[ch * positions..(ch + 1) * positions];
            let to = &mut to[ch * self.channel..(ch + 1) * self.channel];
            let mut at = 0;
            for &pz in &self.segments[0] {
                for &py in &self.segments[1] {
                    for &px in &self.segments[2] {
                        // Elements of a row that lie inside the image: first..last.
                        let first = index(2, 0, px);
                        let skipped =
                            if first < 0 { (-first as usize).div_ceil(step) } else { 0 }.min(used[2]);
                        let offset = (first + (skipped * step) as isize) as usize;
                        let inside = match size[2].checked_sub(offset) {
                            Some(room) if skipped < used[2] => room.div_ceil(step).min(used[2] - skipped),
                            _ => 0,
                        };
                        for e in 0..ez {
                            let z = index(0, e, pz);
                            let z_inside = (0..size[0] as isize).contains(&z) && e < used[0];
                            if !z_inside {
                                to[at..at + ey * ex].fill(0.0);
                                at += ey * ex;
                                continue;
                            }
                            for e in 0..ey {
                                let y = index(1, e, py);
                                let row = &mut to[at..at + ex];
                                at += ex;
                                if !(0..size[1] as isize).contains(&y) || e >= used[1] || inside == 0 {
                                    row.fill(0.0);
                                    continue;
                                }
                                let begin = (z as usize * size[1] + y as usize) * size[2] + offset;
                                zero(&mut row[..skipped]);
                                zero(&mut row[skipped + inside..]);
                                let row = &mut row[skipped..skipped + inside];
                                if step == 1 {
                                    copy_row(&from[begin..begin + inside], row);
                                } else {
                                    for (to, from) in row.iter_mut().zip(from[begin..].iter().step_by(step)) {
                                        *to = *from;
                                    }
                                }
                            }
                        }
                    }
                }
            }
            to[at..].fill(0.0);
        }
        // What a last vector reads beyond the last channel must be finite: the weight's gradient multiplies it by zero.
        to[channels * self.channel..][..self.kernels.lanes].fill(0.0);
    }
}

/// A tile and how its positions map to vectors.
pub(super) struct Tile {
    pub start: [usize; 3],
    pub len: [usize; 3],
    vectors_plane: usize,
    rows_apart: usize,
}

impl Tile {
    pub(super) fn vectors(&self) -> usize {
        self.len[0] * self.vectors_plane
    }

    /// Index of the first lane of row (z, y) among the lanes of all vectors.
    pub(super) fn row(&self, lanes: usize, z: usize, y: usize) -> usize {
        z * self.vectors_plane * lanes + y * self.rows_apart
    }

    /// Writes where each vector begins in the copies of `images` images, one copy after the other.
    pub(super) fn bases(&self, plan: &Plan, images: usize, bases: &mut [u32]) {
        for (image, bases) in bases.chunks_exact_mut(self.vectors()).enumerate().take(images) {
            self.bases_of_one(plan, (image * plan.copy_len()) as u32, bases);
        }
    }

    fn bases_of_one(&self, plan: &Plan, from: u32, bases: &mut [u32]) {
        let [_, ey, ex] = plan.extent;
        let lanes = plan.kernels.lanes;
        let mut bases = bases.iter_mut();
        for z in 0..self.len[0] {
            if self.rows_apart == ex {
                for v in 0..self.vectors_plane {
                    *bases.next().expect("a base for each vector") = from + (z * ey * ex + v * lanes) as u32;
                }
            } else {
                for y in 0..self.len[1] {
                    for v in 0..self.rows_apart / lanes {
                        let base = ((z * ey + y) * ex + v * lanes) as u32;
                        *bases.next().expect("a base for each vector") = from + base;
                    }
                }
            }
        }
    }
}

/// `to = from`. Rows are short, and many: what a call of the C library's copy costs shows.
#[inline(always)]
pub(super) fn copy_row(from: &[f32], to: &mut [f32]) {
    let n = from.len();
    if !(16..=64).contains(&n) || to.len() != n {
        return to.copy_from_slice(from);
    }
    type Lanes = [f32; 16];
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    // SAFETY: all offsets are at most n - 16, and both slices have n elements.
    unsafe {
        // The last sixteen, which may overlap those before.
        let last = from.add(n - 16).cast::<Lanes>().read_unaligned();
        for at in [0, 16, 32] {
            if n > at + 16 {
                to.add(at).cast::<Lanes>().write_unaligned(from.add(at).cast::<Lanes>().read_unaligned());
            }
        }
        to.add(n - 16).cast::<Lanes>().write_unaligned(last);
    }
}

/// Zeroes what is mostly nothing or one element.
#[inline(always)]
fn zero(row: &mut [f32]) {
    match row {
        [] => {}
        [one] => *one = 0.0,
        _ => row.fill(0.0),
    }
}
