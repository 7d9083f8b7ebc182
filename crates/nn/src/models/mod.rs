//! Networks, one file each.

pub mod resnet3d;
pub mod unet2d;
pub mod unet3d;
