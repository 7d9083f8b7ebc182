//! Gradients by weight and bias.

use super::Conv;
use super::micro::Dots;
use super::plan::{Gather, Plan, Tile, copy_row};
use super::run::as_u32;
use crate::par::{self, Shared};
use crate::simd::multiversion;
use crate::{Isa, scratch};

/// Output channels of a task.
const ROWS: usize = 64;
/// Tasks aimed at. Not the number of threads: the order of a sum must not depend on it.
const TASKS: usize = 8;
/// Most floats that partial sums of the weight may take together.
const PARTIAL: usize = 4 << 20;

/// See [`super::backward_weight`].
pub(super) fn weight(c: &Conv, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    if x.is_empty() || dy.is_empty() {
        dweight.fill(0.0);
        return;
    }
    let plan = &*Plan::of(c, Gather::Weight, Isa::current());
    let (rows, channels) = (plan.write_channels, plan.read_channels);
    let taps = c.taps();
    let tiles: usize = plan.tiles().iter().product();
    // Work is shared out by group and output channels first, and by parts of the positions, each with sums of its own,
    // where that is not enough.
    let mut row_parts = rows.div_ceil(ROWS);
    let together = plan.together(c.batch);
    let pieces = c.batch.div_ceil(together) * tiles;
    let most_parts = (PARTIAL / dweight.len().max(1)).clamp(1, pieces);
    let parts = TASKS.div_ceil(c.groups * row_parts).min(most_parts);
    while c.groups * row_parts * parts < TASKS && rows.div_ceil(row_parts) > 2 * plan.kernels.rows {
        row_parts *= 2;
    }
    let height = rows.div_ceil(row_parts).next_multiple_of(plan.kernels.rows);
    let row_parts = rows.div_ceil(height);
    let x_plane: usize = c.size.iter().product();
    let y_plane: usize = c.out_size().iter().product();
    let positions = plan.vectors() * plan.kernels.lanes;
    let len = dweight.len();

    let compute = |to: &mut [f32]| {
        let to = Shared::new(to);
        par::for_each(parts * c.groups * row_parts, |task| {
            let (part, rest) = (task / (c.groups * row_parts), task % (c.groups * row_parts));
            let (group, nth) = (rest / row_parts, rest % row_parts);
            let first = nth * height;
            let height = height.min(rows - first);
            let at = part * len + (group * rows + first) * channels * taps;
            // SAFETY: tasks differ in part, group or rows.
            let to = unsafe { to.slice(at..at + height * channels * taps) };
            to.fill(0.0);
            let lanes = plan.kernels.lanes;
            let ld = together * positions;
            scratch::with(together * plan.copy_len() + height * ld + ld / lanes, |room| {
                let (copy, room) = room.split_at_mut(together * plan.copy_len());
                let (other, room) = room.split_at_mut(height * ld);
                let bases = as_u32(room);
                for piece in par::part(pieces, parts, part) {
                    let (images, tile) = (piece / tiles * together, plan.tile_at(piece % tiles));
                    let images = images..c.batch.min(images + together);
                    let bases = &mut bases[..images.len() * tile.vectors()];
                    tile.bases(plan, images.len(), bases);
                    for (nth, image) in images.clone().enumerate() {
                        let at = (image * c.groups + group) * rows + first;
                        for (row, other) in other.chunks_exact_mut(ld).enumerate() {
                            let other = &mut other[nth * tile.vectors() * lanes..];
                            take(plan, &tile, &dy[(at + row) * y_plane..(at + row + 1) * y_plane], other);
                        }
                    }
                    let mut done = 0;
                    while done < channels {
                        let pass = plan.pass.min(channels - done);
                        for (image, copy) in images.clone().zip(copy.chunks_exact_mut(plan.copy_len())) {
                            let at = ((image * c.groups + group) * channels + done) * x_plane;
                            plan.copy(&tile, &x[at..], pass, copy);
                        }
                        plan.kernels.dots(&mut Dots {
                            rows: height,
                            bases,
                            distance: &plan.jobs[0].distance[..pass * taps],
                            copy,
                            other,
                            ld,
                            to: &mut to[done * taps..],
                            to_ld: channels * taps,
                        });
                        done += pass;
                    }
                }
            });
        });
    };
    if parts == 1 {
        compute(dweight);
    } else {
        scratch::with(parts * len, |partial| {
            compute(partial);
            let (isa, partial) = (Isa::current(), &*partial);
            let to = Shared::new(dweight);
            const BLOCK: usize = 1 << 15;
            par::for_blocks(len, BLOCK, |range| {
                // SAFETY: tasks do not overlap.
                let to = unsafe { to.slice(range.clone()) };
                to.copy_from_slice(&partial[range.clone()]);
                for part in 1..parts {
                    add(isa, &partial[part * len + range.start..][..range.len()], to);
                }
            });
        });
    }
}

/// The output's gradient in the order of the tile's vectors, zero where a lane is no position.
fn take(plan: &Plan, tile: &Tile, plane: &[f32], to: &mut [f32]) {
    let size = plan.write_size;
    let lanes = plan.kernels.lanes;
    let mut filled = 0;
    for z in 0..tile.len[0] {
        for y in 0..tile.len[1] {
            let at = tile.row(lanes, z, y);
            let from = ((tile.start[0] + z) * size[1] + tile.start[1] + y) * size[2] + tile.start[2];
            if filled < at {
                to[filled..at].fill(0.0);
            }
            copy_row(&plane[from..from + tile.len[2]], &mut to[at..at + tile.len[2]]);
            filled = at + tile.len[2];
        }
    }
    to[filled..tile.vectors() * lanes].fill(0.0);
}

multiversion! {
    fn add(part: &[f32], to: &mut [f32]) {
        for (to, part) in to.iter_mut().zip(part) {
            *to += part;
        }
    }
}

/// See [`super::backward_bias`].
pub(super) fn bias(batch: usize, positions: usize, dy: &[f32], dbias: &mut [f32]) {
    let channels = dbias.len();
    let isa = Isa::current();
    let to = Shared::new(dbias);
    par::spread(channels, positions, 4096, |channel| {
        let sum: f64 = (0..batch)
            .map(|image| sum(isa, &dy[(image * channels + channel) * positions..][..positions]))
            .sum();
        // SAFETY: each channel is met once.
        let to = unsafe { to.slice(channel..channel + 1) };
        to[0] = sum as f32;
    });
}

multiversion! {
    fn sum(x: &[f32]) -> f64 {
        let mut total = 0.0;
        // Short runs in f32, added up in f64.
        for run in x.chunks(4096) {
            let mut lanes = [0f32; 32];
            let chunks = run.chunks_exact(32);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane += x;
                }
            }
            for (lane, x) in lanes.iter_mut().zip(rest) {
                *lane += x;
            }
            total += lanes.iter().map(|l| f64::from(*l)).sum::<f64>();
        }
        total
    }
}
