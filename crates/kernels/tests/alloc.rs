//! The recycling allocator, which this program itself runs on.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use trimtab_kernels::alloc::{Held, Recycler, held, release};

#[global_allocator]
static ALLOCATOR: Recycler = Recycler;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What is live and cached is a matter of the whole program: only one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    release();
    guard
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// A block filled with a pattern of its seed, freed when dropped.
struct Block {
    start: *mut u8,
    layout: Layout,
    seed: u8,
}

// SAFETY: it owns its memory.
unsafe impl Send for Block {}

impl Block {
    fn new(layout: Layout, zeroed: bool, seed: u8) -> Self {
        // SAFETY: no size here is zero.
        let start = unsafe { if zeroed { ALLOCATOR.alloc_zeroed(layout) } else { ALLOCATOR.alloc(layout) } };
        assert!(!start.is_null());
        let mut block = Self { start, layout, seed };
        block.assert_aligned();
        if zeroed {
            assert!(all_equal(block.bytes(), 0), "{layout:?} is not zero");
        }
        block.fill();
        block
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: as long as the layout says; may be uninitialised, but only by the allocator's own writing.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }

    fn assert_aligned(&self) {
        let large = self.layout.size() >= 32 * KIB;
        let align = if large { self.layout.align().max(64) } else { self.layout.align() };
        assert_eq!(self.start.addr() % align, 0, "{:?}", self.layout);
    }

    fn fill(&mut self) {
        let seed = self.seed;
        for (i, page) in self.bytes().chunks_mut(PAGE).enumerate() {
            page.fill(pattern(seed, i));
        }
    }

    #[track_caller]
    fn check(&mut self, len: usize) {
        let seed = self.seed;
        let wrong = self.bytes()[..len]
            .chunks(PAGE)
            .enumerate()
            .position(|(i, page)| !all_equal(page, pattern(seed, i)));
        assert_eq!(wrong, None, "{:?} was overwritten", self.layout);
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: the block is this allocator's, of this layout.
        self.start = unsafe { ALLOCATOR.realloc(self.start, self.layout, size) };
        assert!(!self.start.is_null());
        let kept = self.layout.size().min(size);
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        self.assert_aligned();
        self.check(kept);
        self.fill();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check(self.layout.size());
        }
        // SAFETY: as above.
        unsafe { ALLOCATOR.dealloc(self.start, self.layout) };
    }
}

/// Bytes that share a value.
const PAGE: usize = 1000;

fn pattern(seed: u8, page: usize) -> u8 {
    (page as u8).wrapping_mul(31) ^ seed
}

/// By comparing a slice with itself one further, which is quick even without optimisation.
fn all_equal(bytes: &[u8], value: u8) -> bool {
    bytes.is_empty() || (bytes[0] == value && bytes[1..] == bytes[..bytes.len() - 1])
}

#[track_caller]
fn assert_within_bound() -> Held {
    let held = held();
    assert!(held.live <= held.peak, "{held:?}");
    assert!(held.live + held.cached <= held.peak + (held.peak / 4).max(64 * MIB), "{held:?}");
    held
}

struct Random(u64);
impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    /// Sizes about evenly on the logarithm, up to 8 MiB.
    fn layout(&mut self) -> Layout {
        let octave = 1usize << self.below(23);
        let size = octave + self.below(octave);
        Layout::from_size_align(size, 1 << self.below(9)).unwrap()
    }
}

#[test]
fn blocks_of_several_threads_never_overlap() {
    let _alone = alone();
    let before = held().live;
    // Blocks also wander: one thread frees what another has allocated.
    let shared: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let shared = &shared;
            scope.spawn(move || {
                let mut random = Random(thread + 1);
                let mut own: Vec<Block> = Vec::new();
                for round in 0..250 {
                    match random.below(8) {
                        0..=3 => {
                            own.push(Block::new(random.layout(), random.below(2) == 0, round as u8));
                        }
                        4 if !own.is_empty() => {
                            let i = random.below(own.len());
                            own[i].resize(random.layout().size());
                        }
                        5 if !own.is_empty() => {
                            let block = own.swap_remove(random.below(own.len()));
                            shared.lock().unwrap().push(block);
                        }
                        6 => drop(shared.lock().unwrap().pop()),
                        _ if own.len() > 4 => drop(own.swap_remove(random.below(own.len()))),
                        _ => {}
                    }
                    assert_within_bound();
                }
            });
        }
    });
    drop(shared);
    assert_eq!(held().live, before);
}

#[test]
fn releasing_while_others_allocate_is_safe() {
    let _alone = alone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3u64)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Random(100 + thread);
                    let mut kept: [Option<Block>; 4] = [const { None }; 4];
                    for round in 0..200 {
                        let size = 32 * KIB + random.below(2 * MIB);
                        kept[random.below(4)] = Some(Block::new(layout(size), round % 2 == 0, round as u8));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                release();
                assert_within_bound();
                std::thread::yield_now();
            }
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
}

#[test]
fn a_freed_block_is_used_again() {
    let _alone = alone();
    for size in [32 * KIB, 100_000, MIB, 3 * MIB + 5, 4 * MIB, 33 * MIB] {
        let first = Block::new(layout(size), false, 1);
        let start = first.start;
        let before = held();
        drop(first);
        let between = held();
        assert_eq!(between.live + between.cached, before.live + before.cached);
        assert!(between.cached >= before.cached + size);
        let second = Block::new(layout(size), false, 2);
        assert_eq!(second.start, start, "{size}");
        assert_eq!(held(), before);
    }
}

#[test]
fn a_used_block_comes_back_as_zeros_where_zeros_are_asked_for() {
    let _alone = alone();
    for size in [32 * KIB, 777_777, 5 * MIB] {
        let first = Block::new(layout(size), true, 0xAA);
        let start = first.start;
        drop(first);
        assert_eq!(Block::new(layout(size), true, 0x55).start, start);
    }
}

#[test]
fn growing_within_the_class_moves_nothing() {
    let _alone = alone();
    for (from, to) in
        [(33 * KIB, 40 * KIB), (40 * KIB, 33 * KIB), (MIB + 1, MIB + MIB / 8), (65 * MIB, 72 * MIB)]
    {
        let mut block = Block::new(layout(from), false, 3);
        let start = block.start;
        block.resize(to);
        assert_eq!(block.start, start, "{from} to {to}");
    }
}

#[test]
fn growing_and_shrinking_across_every_border_keeps_the_content() {
    let _alone = alone();
    let before = held().live;
    let mut block = Block::new(layout(10), false, 9);
    for size in [31 * KIB, 32 * KIB, 32 * KIB - 1, 200 * KIB, 6 * MIB, 9 * MIB, 5 * MIB, MIB, 100] {
        block.resize(size);
    }
    drop(block);
    assert_eq!(held().live, before);
}

#[test]
fn small_and_strictly_aligned_blocks_are_the_systems() {
    let _alone = alone();
    let before = held();
    let small = Block::new(layout(32 * KIB - 1), false, 1);
    let strict = Block::new(Layout::from_size_align(MIB, 4096).unwrap(), true, 1);
    assert_eq!(held().live, before.live);
    drop((small, strict));
    assert_eq!(held(), before);
}

/// Phases with blocks of quite different sizes: the earlier ones' must make room.
#[test]
fn what_is_kept_stays_within_the_bound() {
    let _alone = alone();
    let start = held().live;
    let mut highest = 0;
    for size in [MIB, 3 * MIB, 300 * KIB, 48 * MIB, 7 * MIB, 40 * KIB] {
        let blocks: Vec<_> = (0..96 * MIB / size).map(|_| reserve(layout(size))).collect();
        highest = highest.max(assert_within_bound().live);
        for block in blocks {
            // SAFETY: allocated just now with this layout.
            unsafe { ALLOCATOR.dealloc(block, layout(size)) };
            assert_within_bound();
        }
    }
    let after = held();
    assert_eq!((after.live, after.peak), (start, highest));
    assert!(after.cached > 96 * MIB, "{after:?}");
    release();
    assert_eq!(held(), Held { live: start, cached: 0, peak: start });
}

/// An untouched block.
fn reserve(layout: Layout) -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = unsafe { ALLOCATOR.alloc(layout) };
    assert!(!block.is_null());
    block
}

#[test]
fn a_refused_request_leaves_no_trace() {
    let _alone = alone();
    drop(Block::new(layout(MIB), false, 1));
    let before = held();
    for size in [1 << 60, 1 << 62] {
        // SAFETY: the size is not zero, and nothing is done with a block that can't be.
        assert!(unsafe { ALLOCATOR.alloc(layout(size)) }.is_null());
    }
    let after = held();
    assert_eq!((after.live, after.peak), (before.live, before.peak));
    assert_eq!(after.cached, 0, "what was kept was tried first");
}

#[cfg(target_os = "linux")]
#[test]
fn released_memory_returns_to_the_kernel() {
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 * KIB
    }
    let _alone = alone();
    let before = resident();
    drop((0..8).map(|i| Block::new(layout(16 * MIB), true, i)).collect::<Vec<_>>());
    assert!(resident() > before + 120 * MIB);
    release();
    assert!(resident() < before + 16 * MIB);
}

#[test]
fn collections_live_on_it() {
    let _alone = alone();
    let before = held().live;
    let mut numbers: Vec<u64> = Vec::new();
    numbers.extend(0..3_000_000);
    let zeros = vec![0u8; 10 * MIB];
    assert!(held().live >= before + 34 * MIB);
    assert!(all_equal(&zeros, 0));
    assert!(numbers.iter().enumerate().all(|(i, number)| *number == i as u64));
    numbers.truncate(10_000);
    numbers.shrink_to_fit();
    assert!(numbers.iter().enumerate().all(|(i, number)| *number == i as u64));
    drop((numbers, zeros));
    assert_eq!(held().live, before);
}

proptest! {
    #[test]
    fn rounding_up_to_a_class_wastes_less_than_a_quarter(octave in 15u32..40, offset in 0f64..1.0) {
        let _alone = alone();
        let size = (1usize << octave) + (offset * (1u64 << octave) as f64) as usize;
        let before = held().live;
        // SAFETY: the size is not zero.
        let block = unsafe { ALLOCATOR.alloc(layout(size)) };
        if !block.is_null() {
            let class = held().live - before;
            // SAFETY: allocated just now with this layout.
            unsafe { ALLOCATOR.dealloc(block, layout(size)) };
            prop_assert!(class >= size);
            prop_assert!(class - size < if size <= MIB { size / 4 } else { size / 8 }.max(1), "{} for {}", class, size);
        }
    }
}
