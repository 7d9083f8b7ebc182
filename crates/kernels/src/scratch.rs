//! Temporary memory of a thread, kept from call to call.

use std::cell::RefCell;

/// 64 bytes: a cache line and a vector of AVX-512.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; 16]);

/// Larger ones are not kept: 256 MiB, more than the weights of any layer that trains on a CPU.
const KEPT: usize = 4 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` floats of unspecified content, aligned to 64 bytes. Calls may nest.
pub(crate) fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = len.div_ceil(16);
    if lines.len() < needed {
        // Exactly as much; the old one goes first.
        drop(lines);
        lines = vec![Line([0.0; 16]); needed];
    }
    // SAFETY: `Line` is 16 floats without padding, and there are at least `len` of them.
    let floats = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) };
    let result = f(floats);
    if lines.len() <= KEPT {
        FREE.with_borrow_mut(|free| free.push(lines));
    }
    result
}
