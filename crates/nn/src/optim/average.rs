//! Exponential moving average of a network's weights (the teacher of Mean Teacher).

use burn::module::Module;

use crate::params::{Flat, is_buffer, map};

/// What happens to buffers (running statistics of norms) in an average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// The newest ones.
    Copy,
    /// Averaged like parameters.
    Average,
}

/// `average = decay average + (1 - decay) live`; `decay` 0 copies.
pub fn average<M: Module>(averaged: M, live: &Flat, decay: f64, buffers: Buffers) -> M {
    map(averaged, &mut |path, old| {
        let Some(new) = live.get(path).cloned() else { return old };
        if decay == 0.0 || (buffers == Buffers::Copy && is_buffer(path)) {
            return new;
        }
        old * decay + new * (1.0 - decay)
    })
}
