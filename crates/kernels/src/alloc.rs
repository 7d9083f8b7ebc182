//! A global allocator that keeps large blocks for the next training step.
//!
//! Tensors come and go in the same sizes step after step. The system's allocator returns large blocks to the kernel when
//! they are freed and fetches them again a moment later, and each fetched page costs a page fault and is cleared before it
//! is overwritten: about 0.3 ms a MiB, which can be more than the computation. [`Recycler`] keeps them in lists instead.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The allocator. In a binary:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: trimtab_kernels::alloc::Recycler = trimtab_kernels::alloc::Recycler;
/// # fn main() {}
/// ```
///
/// - Blocks below 32 KiB, or aligned to more than 64 bytes, are the system's.
/// - Larger ones are rounded up to a size class, by less than 25 % (12.5 % above 1 MiB), aligned to 64 bytes and kept when
///   they are freed. On Linux those of 4 MiB and more are made of huge pages where the kernel has them to give.
/// - Live and kept blocks together never take more than 1.25 times the largest amount that was live so far, or 64 MiB above
///   that if this is more. What is beyond is given back, the largest blocks first.
/// - A request the system refuses is tried again after everything kept was given back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recycler;

/// Bytes in large blocks, of the whole program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// In use, including what the rounding to a size class adds.
    pub live: usize,
    /// Kept for reuse.
    pub cached: usize,
    /// The largest `live` since the start or the last [`release`].
    pub peak: usize,
}

impl Held {
    /// What live and cached bytes together may reach.
    pub fn bound(&self) -> usize {
        self.peak.saturating_add((self.peak / 4).max(64 << 20))
    }
}

/// What large blocks take at the moment.
pub fn held() -> Held {
    pool().held()
}

/// Gives all kept blocks back to the system and measures the peak anew: for the seam between two phases of a program that
/// need different sizes.
pub fn release() {
    let mut pool = pool();
    let all = pool.shrink(0);
    pool.peak = pool.live;
    drop(pool);
    all.give_back();
}

/// Blocks from here on are kept.
const SMALLEST: usize = 32 << 10;

/// Beyond this the next class might not be a layout.
const LARGEST: usize = 1 << (usize::BITS - 3);

/// Size classes are quarters of a power of two up to here, eighths above: there are fewer blocks, and each wastes more.
const FINE: usize = 1 << 20;

/// A cache line, and a vector of AVX-512.
const ALIGN: usize = 64;

/// Eighths of the powers of two from [`SMALLEST`] to [`LARGEST`].
const LISTS: usize = 8 * (LARGEST.ilog2() - SMALLEST.ilog2()) as usize + 1;

/// A size class.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Class(usize);

impl Class {
    /// The class of a layout that is kept. A function of the layout alone, so that a block can be freed.
    fn of(layout: Layout) -> Option<Self> {
        let size = layout.size();
        if !(SMALLEST..=LARGEST).contains(&size) || layout.align() > ALIGN {
            return None;
        }
        let last = size - 1;
        let step = last.ilog2() - if size <= FINE { 2 } else { 3 };
        Some(Self(((last >> step) + 1) << step))
    }

    fn list(self) -> usize {
        let octave = self.0.ilog2();
        8 * (octave - SMALLEST.ilog2()) as usize + (self.0 >> (octave - 3)) % 8
    }

    /// A block from the system, null where it has none.
    fn fetch(self, zeroed: bool) -> *mut u8 {
        if pages::SERVE.contains(&self.0) {
            return pages::map(self.0);
        }
        // SAFETY: the size is not zero.
        unsafe { if zeroed { System.alloc_zeroed(self.layout()) } else { System.alloc(self.layout()) } }
    }

    /// # Safety
    /// `block` came from [`Self::fetch`] of this class and is not used any more.
    unsafe fn give_back(self, block: *mut u8) {
        unsafe {
            if pages::SERVE.contains(&self.0) {
                pages::unmap(block, self.0);
            } else {
                System.dealloc(block, self.layout());
            }
        }
    }

    fn layout(self) -> Layout {
        // SAFETY: `ALIGN` is a power of two and a class is at most twice `LARGEST`, far from the end of memory.
        unsafe { Layout::from_size_align_unchecked(self.0, ALIGN) }
    }
}

/// What a kept block holds at its beginning.
struct Link {
    next: *mut Link,
    class: Class,
}

/// Kept blocks, linked through their own memory: nothing here allocates.
struct Chain(*mut Link);

impl Chain {
    /// # Safety
    /// `block` is a block of `class` that nothing else uses.
    unsafe fn push(&mut self, block: *mut u8, class: Class) {
        let link = block.cast::<Link>();
        unsafe { link.write(Link { next: self.0, class }) };
        self.0 = link;
    }

    fn pop(&mut self) -> Option<(*mut u8, Class)> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: what was pushed is a block with a link, and only this chain has it.
        let Link { next, class } = unsafe { self.0.read() };
        let block = std::mem::replace(&mut self.0, next);
        Some((block.cast(), class))
    }

    fn give_back(mut self) {
        while let Some((block, class)) = self.pop() {
            // SAFETY: as above.
            unsafe { class.give_back(block) };
        }
    }
}

struct Pool {
    live: usize,
    cached: usize,
    /// The largest `live` up to the last time it shrank: it is brought up to date then, so that a request that fails does
    /// not count.
    peak: usize,
    lists: [Chain; LISTS],
}

// SAFETY: the pool owns the memory its chains point to.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { live: 0, cached: 0, peak: 0, lists: [const { Chain(ptr::null_mut()) }; LISTS] });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn held(&self) -> Held {
        Held { live: self.live, cached: self.cached, peak: self.peak.max(self.live) }
    }

    /// Counts a block of `class` as live. Returns a kept one, or else those to give back before a new one is fetched.
    fn take(&mut self, class: Class) -> Result<*mut u8, Chain> {
        self.live += class.0;
        if let Some((block, _)) = self.lists[class.list()].pop() {
            self.cached -= class.0;
            return Ok(block);
        }
        Err(self.shrink(self.held().bound() - self.live))
    }

    /// Takes out the largest kept blocks until at most `cached` bytes are left.
    fn shrink(&mut self, cached: usize) -> Chain {
        let mut out = Chain(ptr::null_mut());
        let mut lists = self.lists.iter_mut().rev();
        let mut list = lists.next();
        while self.cached > cached {
            let Some(chain) = &mut list else { break };
            match chain.pop() {
                Some((block, class)) => {
                    self.cached -= class.0;
                    // SAFETY: just popped.
                    unsafe { out.push(block, class) };
                }
                None => list = lists.next(),
            }
        }
        out
    }

    /// Counts a block as no longer live.
    fn end(&mut self, class: Class) {
        self.peak = self.peak.max(self.live);
        self.live -= class.0;
    }
}

fn obtain(class: Class, zeroed: Option<usize>) -> *mut u8 {
    let taken = pool().take(class);
    match taken {
        Ok(block) => {
            if let Some(len) = zeroed {
                // SAFETY: the block is at least as long as what was asked for.
                unsafe { block.write_bytes(0, len) };
            }
            block
        }
        Err(surplus) => {
            surplus.give_back();
            let mut block = class.fetch(zeroed.is_some());
            if block.is_null() {
                let all = pool().shrink(0);
                all.give_back();
                block = class.fetch(zeroed.is_some());
            }
            if block.is_null() {
                pool().live -= class.0;
            }
            block
        }
    }
}

// SAFETY: a block is at least as large and as aligned as its layout asks, since its class is; it is on a list, and may be
// handed out again, only after it was freed; which of the two allocators has it follows from the layout.
unsafe impl GlobalAlloc for Recycler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout) {
            Some(class) => obtain(class, None),
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout) {
            Some(class) => obtain(class, Some(layout.size())),
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = Class::of(layout) else { return unsafe { System.dealloc(block, layout) } };
        let mut pool = pool();
        pool.end(class);
        pool.cached += class.0;
        // SAFETY: the caller gives up the block.
        unsafe { pool.lists[class.list()].push(block, class) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise for `size`.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Class::of(layout), Class::of(new)) {
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (old, class) if old == class => block,
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

/// The largest blocks come from the kernel itself, in huge pages: measured, the first touch of a MiB takes 0.05 ms in pages
/// of 2 MiB and 0.32 ms in pages of 4 KiB.
#[cfg(target_os = "linux")]
mod pages {
    use std::ops::RangeFrom;
    use std::ptr;

    /// Sizes of blocks that come from here.
    pub(super) const SERVE: RangeFrom<usize> = 4 << 20..;

    /// A huge page of x86-64, and of AArch64 with base pages of 4 KiB.
    const PAGE: usize = 2 << 20;

    /// Zeroed memory that begins at a huge page, null if there is none.
    pub(super) fn map(size: usize) -> *mut u8 {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new mappings, and what is unmapped is in them; the sizes of classes are multiples of every base page.
        unsafe {
            let start = libc::mmap(ptr::null_mut(), size + PAGE, access, flags, -1, 0);
            if start == libc::MAP_FAILED {
                return ptr::null_mut();
            }
            let before = start.addr().next_multiple_of(PAGE) - start.addr();
            let block = start.byte_add(before);
            if before > 0 {
                libc::munmap(start, before);
            }
            libc::munmap(block.byte_add(size), PAGE - before);
            // A wish: without huge pages it fails, and the block is as good.
            libc::madvise(block, size, libc::MADV_HUGEPAGE);
            block.cast()
        }
    }

    /// # Safety
    /// `block` came from [`map`] with this size and is not used any more.
    pub(super) unsafe fn unmap(block: *mut u8, size: usize) {
        unsafe { libc::munmap(block.cast(), size) };
    }
}
#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ops::Range;

    pub(super) const SERVE: Range<usize> = 0..0;

    pub(super) fn map(_: usize) -> *mut u8 {
        unreachable!("no size is served")
    }

    pub(super) unsafe fn unmap(_: *mut u8, _: usize) {
        unreachable!("no size is served")
    }
}
