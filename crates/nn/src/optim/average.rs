//! Exponential moving average of a network's weights (the teacher of Mean Teacher).

use burn::module::Module;
use trimtab_kernels::tensor as kernels;

use crate::params::{Flat, copy, is_buffer, map};

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
    let (mut paths, mut pairs) = (Vec::new(), Vec::new());
    // What is averaged is taken out, so that it can be changed in place; the live value stands in meanwhile.
    let averaged = map(averaged, &mut |path, old| {
        let Some(new) = live.get(path) else { return old };
        if decay != 0.0 && !(buffers == Buffers::Copy && is_buffer(path)) {
            paths.push(path.to_owned());
            pairs.push((old, new.clone()));
        }
        new.clone()
    });
    copy(averaged, &paths.into_iter().zip(kernels::average(pairs, decay)).collect())
}
