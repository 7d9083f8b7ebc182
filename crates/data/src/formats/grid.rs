//! What chunked containers (HDF5, Zarr) have in common: which array is the volume, which of its axes is which, how
//! its numbers become values.

use std::ops::Range;
use std::path::Path;

use super::raster::{Stored, checked_product};
use crate::error::{DataError, Result};
use crate::volume::{Geometry, VolumeInfo};

/// Bytes of decoded chunks that a reader keeps. Reading a volume slice by slice decodes each chunk once as long as
/// the chunks that one slice crosses fit.
pub(super) const CACHE_BYTES: usize = 256 << 20;
/// A decoded chunk is at most so large, in bytes.
pub(super) const LARGEST_CHUNK: usize = 1 << 30;
/// Arrays to look at before giving up on listing a file.
pub(super) const MOST_ARRAYS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Channel,
    Depth,
    Height,
    Width,
    /// Time, or any other axis of length 1.
    Single,
}

/// Which axis of a stored array is which axis of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axes {
    shape: Vec<usize>,
    roles: Vec<Role>,
}

impl Axes {
    /// `[d, h, w]` or `[c, d, h, w]`, behind any axes of length 1.
    pub(super) fn by_position(shape: &[usize]) -> Result<Self, String> {
        let order = [Role::Channel, Role::Depth, Role::Height, Role::Width];
        let extra = shape.len().saturating_sub(order.len());
        if shape.len() < 3 || shape[..extra].iter().any(|&length| length != 1) {
            return Err(format!(
                "an array of shape {shape:?}; accepted are [depth, height, width] and [channel, depth, height, width]"
            ));
        }
        let mut roles = vec![Role::Single; extra];
        roles.extend(&order[(order.len() + extra) - shape.len()..]);
        Self::new(shape, roles)
    }

    /// By the axes' names (`c`, `z`, `y`, `x`; any other only with length 1). `None` when the names are not of this
    /// kind, so that position decides.
    pub(super) fn by_names(shape: &[usize], names: &[String]) -> Option<Result<Self, String>> {
        if names.len() != shape.len() {
            return None;
        }
        let role = |name: &String| match name.to_ascii_lowercase().as_str() {
            "c" | "channel" => Role::Channel,
            "z" => Role::Depth,
            "y" => Role::Height,
            "x" => Role::Width,
            _ => Role::Single,
        };
        let roles: Vec<Role> = names.iter().map(role).collect();
        let times = |wanted: Role| roles.iter().filter(|&&role| role == wanted).count();
        if times(Role::Height) != 1
            || times(Role::Width) != 1
            || times(Role::Depth) > 1
            || times(Role::Channel) > 1
        {
            return None;
        }
        if times(Role::Depth) == 0 {
            return Some(Err(format!(
                "an array with the axes {names:?} of shape {shape:?}; a volume has the axes z, y and x"
            )));
        }
        if let Some(axis) = (0..shape.len()).find(|&axis| roles[axis] == Role::Single && shape[axis] != 1) {
            return Some(Err(format!(
                "the axis `{}` of length {} in shape {shape:?}; axes other than c, z, y and x must have length 1",
                names[axis], shape[axis]
            )));
        }
        Some(Self::new(shape, roles))
    }

    fn new(shape: &[usize], roles: Vec<Role>) -> Result<Self, String> {
        if checked_product(shape.iter().copied())
            .is_none_or(|count| count == 0 || count > isize::MAX as usize / 4)
        {
            return Err(format!(
                "an array of shape {shape:?}; all axes must have at least one voxel and fit the memory"
            ));
        }
        Ok(Self { shape: shape.to_vec(), roles })
    }

    /// Axis of the array that is the depth, the height and the width.
    pub(super) fn spatial(&self) -> [usize; 3] {
        [Role::Depth, Role::Height, Role::Width].map(|wanted| self.position(wanted).unwrap_or_default())
    }

    fn position(&self, wanted: Role) -> Option<usize> {
        self.roles.iter().position(|&role| role == wanted)
    }

    pub(super) fn info(&self, spacing: Option<[f64; 3]>) -> VolumeInfo {
        let usable = |spacing: &[f64; 3]| spacing.iter().all(|step| step.is_finite() && *step > 0.0);
        VolumeInfo {
            channels: self.position(Role::Channel).map_or(1, |axis| self.shape[axis]),
            shape: self.spatial().map(|axis| self.shape[axis]),
            geometry: Geometry::with_spacing(spacing.filter(usable).unwrap_or([1.0; 3])),
        }
    }

    /// The part of the array that holds a range of slices.
    pub(super) fn selection(&self, slices: &Range<usize>) -> Vec<Range<usize>> {
        let part =
            |(&length, &role): (&usize, &Role)| if role == Role::Depth { slices.clone() } else { 0..length };
        self.shape.iter().zip(&self.roles).map(part).collect()
    }

    /// For each axis of the array the distance of neighbours among values `[c, slices, h, w]`.
    pub(super) fn steps(&self, slices: usize) -> Vec<usize> {
        let [_, height, width] = self.spatial().map(|axis| self.shape[axis]);
        let step = |role: &Role| match role {
            Role::Channel => slices * height * width,
            Role::Depth => height * width,
            Role::Height => width,
            Role::Width => 1,
            Role::Single => 0,
        };
        self.roles.iter().map(step).collect()
    }
}

/// The number of values of a range of slices, once the range is inside the volume.
pub(super) fn count(path: &Path, info: &VolumeInfo, slices: &Range<usize>) -> Result<usize> {
    let [depth, height, width] = info.shape;
    if slices.start > slices.end || slices.end > depth {
        return Err(DataError::content(path, format!("slices {slices:?} of a volume with {depth} slices")));
    }
    checked_product([info.channels, slices.len(), height, width])
        .ok_or_else(|| DataError::content(path, format!("slices {slices:?} do not fit the memory")))
}

/// `count` times `value`, or an error where there is no memory for it.
pub(super) fn filled(path: &Path, count: usize, value: f32) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| {
        DataError::content(path, format!("no memory for {count} values; read fewer slices at a time"))
    })?;
    values.resize(count, value);
    Ok(values)
}

/// Whether an array of `voxels` can come from files of these lengths. Compression and chunks left out have no
/// exact limit, so only what no useful file reaches is refused: beyond 1 GiB more than 16 384 bytes from each byte.
///
/// # Errors
/// [`DataError::Format`] with both sizes.
pub(super) fn plausible(
    path: &Path,
    format: &'static str,
    info: &VolumeInfo,
    lengths: impl Iterator<Item = u64>,
) -> Result<()> {
    let claimed =
        checked_product([info.channels, 4].into_iter().chain(info.shape)).unwrap_or(usize::MAX) as u64;
    if claimed <= 1 << 30 {
        return Ok(());
    }
    let mut stored = 0u64;
    for length in lengths {
        stored = stored.saturating_add(length);
        if claimed / (1 << 14) <= stored {
            return Ok(());
        }
    }
    Err(DataError::format(
        path,
        format,
        format!(
            "{} channels of {:?} voxels are claimed, but only {stored} bytes stored",
            info.channels, info.shape
        ),
    ))
}

/// An array of a container, for choosing one.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// e.g. `u16`; or why it can't be read.
    pub(super) kind: String,
}

fn list<'a>(arrays: impl IntoIterator<Item = &'a Listed>) -> String {
    const SHOWN: usize = 20;
    let mut arrays = arrays.into_iter();
    let mut names: Vec<String> = arrays
        .by_ref()
        .take(SHOWN)
        .map(|array| format!("{} {:?} {}", array.name, array.shape, array.kind))
        .collect();
    match arrays.count() {
        0 => {}
        more => names.push(format!("and {more} more")),
    }
    names.join(", ")
}

/// The only array with three or more dimensions.
///
/// # Errors
/// [`DataError::Content`] with the arrays there are.
pub(super) fn only_volume<'a>(path: &Path, arrays: &'a [Listed]) -> Result<&'a Listed> {
    let volumes: Vec<&Listed> = arrays.iter().filter(|array| array.shape.len() >= 3).collect();
    match volumes[..] {
        [array] => Ok(array),
        [_, _, ..] => Err(DataError::content(
            path,
            format!("holds several volumes, name one as the dataset: {}", list(volumes)),
        )),
        _ if arrays.is_empty() => Err(DataError::content(path, "holds no array")),
        _ => Err(DataError::content(
            path,
            format!("holds no array with three or more dimensions, only: {}", list(arrays)),
        )),
    }
}

pub(super) fn no_such_array(path: &Path, name: &str, arrays: &[Listed]) -> DataError {
    let there =
        if arrays.is_empty() { "holds no array".to_owned() } else { format!("it holds: {}", list(arrays)) };
    DataError::content(path, format!("no array `{name}`; {there}"))
}

/// Name of a number type in messages.
pub(super) fn name(stored: Stored) -> &'static str {
    match stored {
        Stored::Bool => "bool",
        Stored::U8 => "u8",
        Stored::I8 => "i8",
        Stored::U16 => "u16",
        Stored::I16 => "i16",
        Stored::U32 => "u32",
        Stored::I32 => "i32",
        Stored::U64 => "u64",
        Stored::I64 => "i64",
        Stored::F16 => "f16",
        Stored::F32 => "f32",
        Stored::F64 => "f64",
    }
}

/// How values lie in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) stored: Stored,
    pub(super) big_endian: bool,
}

impl Numbers {
    /// Copies `count` values, every `from_step`-th of `bytes` to every `to_step`-th of `to`; stops where either ends.
    pub(super) fn copy(self, bytes: &[u8], from_step: usize, to: &mut [f32], to_step: usize, count: usize) {
        macro_rules! numbers {
            ($type:ty, $convert:expr) => {{
                let convert: fn($type) -> f32 = $convert;
                if self.big_endian {
                    copy(bytes, from_step, to, to_step, count, |b| convert(<$type>::from_be_bytes(b)))
                } else {
                    copy(bytes, from_step, to, to_step, count, |b| convert(<$type>::from_le_bytes(b)))
                }
            }};
        }
        match self.stored {
            Stored::Bool => numbers!(u8, |value| f32::from(u8::from(value != 0))),
            Stored::U8 => numbers!(u8, f32::from),
            Stored::I8 => numbers!(i8, f32::from),
            Stored::U16 => numbers!(u16, f32::from),
            Stored::I16 => numbers!(i16, f32::from),
            Stored::U32 => numbers!(u32, |value| value as f32),
            Stored::I32 => numbers!(i32, |value| value as f32),
            Stored::U64 => numbers!(u64, |value| value as f32),
            Stored::I64 => numbers!(i64, |value| value as f32),
            Stored::F16 => numbers!(u16, |value| half::f16::from_bits(value).to_f32()),
            Stored::F32 => numbers!(f32, |value| value),
            Stored::F64 => numbers!(f64, |value| value as f32),
        }
    }
}

fn copy<const N: usize>(
    bytes: &[u8],
    from_step: usize,
    to: &mut [f32],
    to_step: usize,
    count: usize,
    decode: impl Fn([u8; N]) -> f32,
) {
    let from = bytes.as_chunks::<N>().0;
    if from_step == 1 && to_step == 1 {
        to.iter_mut().zip(from).take(count).for_each(|(to, &from)| *to = decode(from));
    } else {
        let from = from.iter().step_by(from_step.max(1));
        to.iter_mut()
            .step_by(to_step.max(1))
            .zip(from)
            .take(count)
            .for_each(|(to, &from)| *to = decode(from));
    }
}

/// Copies a box of values from one row-major-like layout to another, row by row.
pub(super) struct BoxCopy<'a> {
    pub(super) numbers: Numbers,
    /// Extent of the box.
    pub(super) size: &'a [usize],
    /// Distance of neighbours in `bytes`, in values, for each axis.
    pub(super) from_steps: &'a [usize],
    /// Distance of neighbours in the output for each axis.
    pub(super) to_steps: &'a [usize],
}

impl BoxCopy<'_> {
    /// From the value `from` on to the place `to` on. `bytes` and `output` must hold the whole box.
    pub(super) fn run(&self, bytes: &[u8], from: usize, output: &mut [f32], to: usize) {
        let Some(last) = self.size.len().checked_sub(1) else { return };
        if self.size.contains(&0) {
            return;
        }
        let mut index = vec![0; last];
        loop {
            let offset =
                |steps: &[usize]| -> usize { index.iter().zip(steps).map(|(i, step)| i * step).sum() };
            let (from, to) = (from + offset(self.from_steps), to + offset(self.to_steps));
            if let (Some(bytes), Some(output)) =
                (bytes.get(from * self.numbers.stored.size()..), output.get_mut(to..))
            {
                self.numbers.copy(bytes, self.from_steps[last], output, self.to_steps[last], self.size[last]);
            }
            if !advance(&mut index, &self.size[..last]) {
                return;
            }
        }
    }
}

/// The next index of a box, the last axis running fastest; `false` after the last one.
pub(super) fn advance(index: &mut [usize], size: &[usize]) -> bool {
    for (axis, &length) in size.iter().enumerate().rev() {
        index[axis] += 1;
        if index[axis] < length {
            return true;
        }
        index[axis] = 0;
    }
    false
}

/// Distance of neighbours along each axis, the last running fastest.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        steps[axis - 1] = steps[axis] * shape[axis];
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_taken_by_position_or_by_name() {
        let info = |axes: Axes| (axes.info(None).channels, axes.info(None).shape);
        assert_eq!(info(Axes::by_position(&[2, 3, 4]).unwrap()), (1, [2, 3, 4]));
        assert_eq!(info(Axes::by_position(&[2, 3, 4, 5]).unwrap()), (2, [3, 4, 5]));
        assert_eq!(info(Axes::by_position(&[1, 2, 3, 4, 5]).unwrap()), (2, [3, 4, 5]));
        for bad in [&[3, 4][..], &[2, 2, 3, 4, 5], &[0, 3, 4], &[usize::MAX, 3, 4]] {
            assert!(Axes::by_position(bad).is_err(), "{bad:?}");
        }
        let named = |names: &str, shape: &[usize]| {
            Axes::by_names(shape, &names.chars().map(String::from).collect::<Vec<_>>())
        };
        let axes = named("tzyxc", &[1, 3, 4, 5, 2]).unwrap().unwrap();
        assert_eq!(axes.steps(3), [0, 20, 5, 1, 60]);
        assert_eq!(axes.selection(&(1..2)), [0..1, 1..2, 0..4, 0..5, 0..2]);
        assert_eq!(info(axes), (2, [3, 4, 5]));
        assert_eq!(named("abc", &[3, 4, 5]), None);
        assert!(named("tzyx", &[2, 3, 4, 5]).unwrap().unwrap_err().contains("`t` of length 2"));
        assert!(named("cyx", &[2, 3, 4]).unwrap().unwrap_err().contains("z, y and x"));
    }

    #[test]
    fn a_claim_beyond_any_compression_is_refused() {
        let info = Axes::by_position(&[1 << 12, 1 << 12, 1 << 12]).unwrap().info(None);
        let check = |lengths: &[u64]| plausible(Path::new("a"), "HDF5", &info, lengths.iter().copied());
        assert!(check(&[1000]).unwrap_err().to_string().contains("only 1000 bytes stored"));
        assert!(check(&[1 << 23, 1 << 23]).is_ok());
    }
}
