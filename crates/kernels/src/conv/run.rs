//! Forward convolution and its transpose: tiles over threads.

use super::Conv;
use super::micro::{Product, blocks};
use super::plan::{Gather, Job, Plan, SUMS, Tile, copy_row};
use crate::par::{self, Shared};
use crate::{Isa, scratch};

/// Computes `write` from `read` (see [`Gather`]).
pub(super) fn gather(
    c: &Conv,
    direction: Gather,
    read: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    write: &mut [f32],
) {
    if write.is_empty() {
        return;
    }
    let plan = &*Plan::of(c, direction, Isa::current());
    let (rows, channels) = (plan.write_channels, plan.read_channels);
    let tiles: usize = plan.tiles().iter().product();
    // A task takes several small images, a tile of one image, or some of the written channels of either: enough tasks to
    // share out evenly, rows in multiples of the register tile.
    let together = plan.together(c.batch);
    let groups_of_images = c.batch.div_ceil(together);
    let pieces = groups_of_images * c.groups * tiles;
    let mut parts = rows.div_ceil(plan.rows);
    while pieces * parts < 8 && rows.div_ceil(parts) > 2 * plan.kernels.rows {
        parts *= 2;
    }
    let part = rows.div_ceil(parts).next_multiple_of(plan.kernels.rows);
    let parts = rows.div_ceil(part);
    let read_plane: usize = plan.read_size.iter().product();
    let write_plane: usize = plan.write_size.iter().product();
    let positions = plan.vectors() * plan.kernels.lanes;

    scratch::with(weight.len(), |packed| {
        pack(c, direction, plan, part, weight, packed);
        let packed = &*packed;
        let write = Shared::new(write);
        par::for_each(pieces * parts, |task| {
            let (piece, nth) = (task / parts, task % parts);
            let (piece, tile) = (piece / tiles, plan.tile_at(piece % tiles));
            let (images, group) = (piece / c.groups * together, piece % c.groups);
            let images = images..c.batch.min(images + together);
            let first = nth * part;
            let height = part.min(rows - first);
            // A row of sums: the positions of one image after those of the other.
            let ld = images.len() * positions;
            let (copies, sums_len) = (images.len() * plan.copy_len(), height * ld);
            // With a large stride there are many jobs: as many at a time as there is room for sums.
            let at_once = (SUMS / sums_len).clamp(1, plan.jobs.len());
            let vectors = images.len() * tile.vectors();
            scratch::with(copies + at_once * sums_len + vectors, |room| {
                let (copy, room) = room.split_at_mut(copies);
                let (sums, room) = room.split_at_mut(at_once * sums_len);
                let bases = as_u32(room);
                tile.bases(plan, images.len(), bases);
                for jobs in plan.jobs.chunks(at_once) {
                    let mut done = 0;
                    // Once at least: without channels, the bias is left.
                    loop {
                        let pass = plan.pass.min(channels - done);
                        for (image, copy) in images.clone().zip(copy.chunks_exact_mut(plan.copy_len())) {
                            let at = ((image * c.groups + group) * channels + done) * read_plane;
                            plan.copy(&tile, &read[at..], pass, copy);
                        }
                        for (job, sums) in jobs.iter().zip(sums.chunks_exact_mut(sums_len)) {
                            let taps = job.taps.len();
                            let weight = &packed[weight_of(c, plan, group, job)..][first * channels * taps..];
                            plan.kernels.product(&mut Product {
                                rows: height,
                                bases,
                                distance: &job.distance[..pass * taps],
                                weight,
                                weight_k: channels * taps,
                                k0: done * taps,
                                copy,
                                sums,
                                ld,
                                add: done > 0,
                                bias: bias.map(|b| &b[group * rows + first..][..height]),
                            });
                        }
                        done += pass;
                        if done == channels {
                            break;
                        }
                    }
                    for (job, sums) in jobs.iter().zip(sums.chunks_exact(sums_len)) {
                        for (row, sums) in sums.chunks_exact(ld).enumerate() {
                            for (nth, image) in images.clone().enumerate() {
                                let sums = &sums[nth * tile.vectors() * plan.kernels.lanes..];
                                let plane = ((image * c.groups + group) * rows + first + row) * write_plane;
                                // SAFETY: tasks differ in image, rows or tile, and so in what they write; a task's
                                // phases are written one after the other.
                                unsafe { put(plan, job, &tile, sums, write, plane) };
                            }
                        }
                    }
                }
            });
        });
    });
}

/// Start of the packed weight of `job` in `group`: groups, in them jobs.
fn weight_of(c: &Conv, plan: &Plan, group: usize, job: &Job) -> usize {
    let entries = plan.read_channels * plan.write_channels;
    (group * c.taps() + job.taps_before) * entries
}

/// Puts the weights in the order [`Product`] reads them.
fn pack(c: &Conv, direction: Gather, plan: &Plan, part: usize, weight: &[f32], packed: &mut [f32]) {
    let (rows, channels) = (plan.write_channels, plan.read_channels);
    let taps_all = c.taps();
    // Distances in the weight between rows and between channels of the product.
    let (row_apart, channel_apart) = match direction {
        Gather::Forward | Gather::Weight => (channels * taps_all, taps_all),
        Gather::Transposed => (taps_all, rows * taps_all),
    };
    let parts = rows.div_ceil(part);
    let packed = Shared::new(packed);
    par::for_each(c.groups * parts, |task| {
        let (group, nth) = (task / parts, task % parts);
        let from = &weight[group * rows * channels * taps_all..][..rows * channels * taps_all];
        for job in &plan.jobs {
            let taps = job.taps.len();
            let start = weight_of(c, plan, group, job);
            let rows_here = nth * part..rows.min((nth + 1) * part);
            let put = |row: usize, height: usize, channel: usize| {
                let row = rows_here.start + row;
                let at = start + (row * channels + channel * height) * taps;
                // SAFETY: blocks do not overlap.
                let to = unsafe { packed.slice(at..at + height * taps) };
                let from = &from[row * row_apart + channel * channel_apart..];
                for (&tap, to) in job.taps.iter().zip(to.chunks_exact_mut(height)) {
                    for (r, to) in to.iter_mut().enumerate() {
                        *to = from[tap + r * row_apart];
                    }
                }
            };
            // In the order in which the weight lies in memory.
            match direction {
                Gather::Forward | Gather::Weight => {
                    for (row, height) in blocks(rows_here.len(), plan.kernels.rows) {
                        (0..channels).for_each(|channel| put(row, height, channel));
                    }
                }
                Gather::Transposed => {
                    for channel in 0..channels {
                        for (row, height) in blocks(rows_here.len(), plan.kernels.rows) {
                            put(row, height, channel);
                        }
                    }
                }
            }
        }
    });
}

/// Writes the sums of a tile to the positions of `job`'s phase in the plane that begins at `plane`.
///
/// # Safety
/// Nobody else may use the elements between the first and the last that it writes in a row.
unsafe fn put(plan: &Plan, job: &Job, tile: &Tile, sums: &[f32], write: Shared, plane: usize) {
    let size = plan.write_size;
    let index = |d: usize, j: usize| {
        (plan.origin[d] + (tile.start[d] + j) as isize) * job.step[d] as isize + job.shift[d]
    };
    let step = job.step[2];
    // Positions of a row that lie inside: skipped..skipped + inside.
    let first = index(2, 0);
    let skipped = if first < 0 { (-first as usize).div_ceil(step) } else { 0 };
    let offset = (first + (skipped * step) as isize) as usize;
    let inside = match size[2].checked_sub(offset) {
        Some(room) if skipped < tile.len[2] => room.div_ceil(step).min(tile.len[2] - skipped),
        _ => 0,
    };
    if inside == 0 {
        return;
    }
    for z in 0..tile.len[0] {
        let to_z = index(0, z);
        if !(0..size[0] as isize).contains(&to_z) {
            continue;
        }
        for y in 0..tile.len[1] {
            let to_y = index(1, y);
            if !(0..size[1] as isize).contains(&to_y) {
                continue;
            }
            let from = &sums[tile.row(plan.kernels.lanes, z, y) + skipped..][..inside];
            let at = plane + (to_z as usize * size[1] + to_y as usize) * size[2] + offset;
            // SAFETY: passed on to the caller.
            let to = unsafe { write.slice(at..at + (inside - 1) * step + 1) };
            if step == 1 {
                copy_row(from, to);
            } else {
                for (to, from) in to.iter_mut().step_by(step).zip(from) {
                    *to = *from;
                }
            }
        }
    }
}

/// The floats' memory as integers of the same size.
pub(super) fn as_u32(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: size and alignment are the same, every bit pattern is valid.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}
