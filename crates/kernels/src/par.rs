//! Splitting work over rayon's threads.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Calls `f(0)..f(tasks - 1)`, on several threads where there are some.
pub(crate) fn for_each(tasks: usize, f: impl Fn(usize) + Sync + Send) {
    if tasks <= 1 || rayon::current_num_threads() == 1 {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// Calls `f` with the ranges of at most `block` that `0..len` is cut into.
pub(crate) fn for_blocks(len: usize, block: usize, f: impl Fn(Range<usize>) + Sync + Send) {
    for_each(len.div_ceil(block), |task| f(task * block..len.min((task + 1) * block)));
}

/// Calls `f` with `0..items`, as many in a task as make it worth `task` elements where an item has `len`.
pub(crate) fn spread(items: usize, len: usize, task: usize, f: impl Fn(usize) + Sync + Send) {
    for_blocks(items, task.div_ceil(len.max(1)), |range| range.for_each(&f));
}

/// Bounds of part `part` of `parts` of `len` things, near-equal.
pub(crate) fn part(len: usize, parts: usize, part: usize) -> Range<usize> {
    len * part / parts..len * (part + 1) / parts
}

/// A slice that several threads write, each its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: only the unsafe method hands out references, and its contract forbids overlap.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// # Safety
    /// No two parts in use at the same time may overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, clippy::allow_attributes)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
