//! Layers, models, losses, schedules and optimizers: tensors in, tensors out. This crate knows nothing of
//! signals, files or configuration.
//!
//! Tensors carry lower-case axis suffixes: `b` = batch, `c` = channel, `d`/`h`/`w` = depth/rows/columns.

pub mod layers;
pub mod losses;
pub mod models;
pub mod optim;
pub mod params;
pub mod plateau;
pub mod schedules;
pub mod weights;
