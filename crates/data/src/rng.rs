//! Counter-based randomness: every draw is a pure function of `(seed, stream, index)`, so a run can stop anywhere
//! and go on with the same numbers, whatever the number of threads.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream of random numbers is for; keeps two uses with the same index apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Choice of the labelled subset.
    LabelledSubset = 1,
    /// Order of the samples in an epoch.
    Order = 2,
    /// Augmentation of a sample.
    Augment = 3,
    /// Noise on the teacher's input.
    TeacherNoise = 4,
    /// Initial weights.
    Init = 5,
    /// Synthetic data.
    Synth = 6,
    /// Order of the groups in cross-validation folds.
    Folds = 7,
    /// Noise and sampled voxels of a volume while it is prepared.
    Prepare = 8,
    /// Places of patches in volumes.
    VolumePatch = 9,
    /// Features dropped in training.
    Dropout = 10,
}

/// The generator for `(seed, stream, index)`. Same arguments, same numbers, on every machine.
pub fn rng(seed: u64, stream: Stream, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(stream as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}
