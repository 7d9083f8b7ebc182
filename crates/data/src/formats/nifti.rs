//! NIfTI-1 and NIfTI-2 images, plain or gzip-compressed: <https://nifti.nimh.nih.gov/nifti-1> (Cox et al.
//! 2004) and <https://nifti.nimh.nih.gov/nifti-2>.
//!
//! Volumes are brought to the orientation nearest to x right, y front, z up, as NiBabel's
//! `as_closest_canonical` does. Lengths keep the file's numbers, whose unit is nearly always the millimetre;
//! other units are not converted, so that a prediction gets the affine of its input.
//!
//! The reader is our own: the `nifti` crate knows neither NIfTI-2 nor reading a part of a volume.

use std::path::Path;

use super::raster::Stored;
use super::volume_raw::{Gzip, Input, Layout, RawVolume, Source, read_failed};
use crate::error::{DataError, Result};
use crate::volume::{Geometry, VolumeInfo};

const FORMAT: &str = "NIfTI";
/// Bytes of the headers, which is also their first number.
const FIRST: usize = 348;
const SECOND: usize = 540;
/// After the header come four bytes that tell of extensions.
const EXTENSION_BYTES: usize = 4;

/// Whether a file starts like a NIfTI header (also that of a pair of files, or of its ancestor Analyze 7.5).
pub(super) fn is_nifti(start: &[u8]) -> bool {
    version(start).is_some()
}

/// Length of the header and whether it is big-endian.
fn version(start: &[u8]) -> Option<(usize, bool)> {
    let &first = start.first_chunk::<4>()?;
    [FIRST, SECOND].into_iter().find_map(|length| {
        if u32::from_le_bytes(first) as usize == length {
            Some((length, false))
        } else {
            (u32::from_be_bytes(first) as usize == length).then_some((length, true))
        }
    })
}

/// Opens a file of `length` bytes.
///
/// # Errors
/// [`DataError::Format`] when it is not a complete NIfTI file of real numbers; [`DataError::Content`] for a
/// pair of files and for more than one axis beyond the third; [`DataError::Io`].
pub(super) fn open(mut input: Box<dyn Input>, gzip: bool, length: u64, path: &Path) -> Result<RawVolume> {
    let failed = |error| read_failed(error, path, FORMAT, "the header");
    let (header, source) = if gzip {
        let mut stream = Gzip::new(input);
        let start = stream.read(0, 4).map_err(failed)?;
        let (rest, _) = version(&start).ok_or_else(|| not_nifti(path))?;
        let rest = stream.read(4, rest as u64 - 4).map_err(failed)?;
        ([start, rest].concat(), Source::Gzip(Box::new(stream)))
    } else {
        let mut header = vec![0; 4];
        input.read_exact(&mut header).map_err(failed)?;
        let (rest, _) = version(&header).ok_or_else(|| not_nifti(path))?;
        header.resize(rest, 0);
        input.read_exact(&mut header[4..]).map_err(failed)?;
        (header, Source::Plain(input))
    };
    let (info, layout) = parse(&header, path)?;
    RawVolume::new(path, FORMAT, info, layout, source, length)
}

fn not_nifti(path: &Path) -> DataError {
    DataError::format(path, FORMAT, "it does not start with a header of 348 or 540 bytes")
}

/// Numbers at their places in the header, which differ between the two versions.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        fn $name(&self, at: usize) -> $type {
            let bytes = self.bytes[at..].first_chunk().copied().unwrap_or_default();
            if self.big_endian { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) }
        }
    };
}

impl Fields<'_> {
    number!(i16, i16);
    number!(i32, i32);
    number!(i64, i64);
    number!(f32, f32);
    number!(f64, f64);
}

/// `header` has the length that its first number says.
fn parse(header: &[u8], path: &Path) -> Result<(VolumeInfo, Layout)> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let (length, big_endian) = version(header).ok_or_else(|| not_nifti(path))?;
    let fields = Fields { bytes: header, big_endian };
    let first = length == FIRST;
    let magic = if first { &header[344..348] } else { &header[4..12] };
    match magic {
        b"n+1\0" if first => {}
        b"n+2\0\r\n\x1a\n" if !first => {}
        [b'n', b'i', b'1' | b'2', ..] => {
            return Err(DataError::content(
                path,
                "the header of a pair of files (.hdr and .img); single files are accepted: \
                 convert it to .nii or .nii.gz",
            ));
        }
        [0, 0, ..] if first => {
            return Err(DataError::content(
                path,
                "an Analyze 7.5 header; NIfTI is accepted: convert it to .nii or .nii.gz",
            ));
        }
        other => return Err(wrong(format!("its magic number is `{}`", other.escape_ascii()))),
    }

    // Either version's number as the wider type.
    let float = |at_first: usize, at_second: usize| {
        if first { f64::from(fields.f32(at_first)) } else { fields.f64(at_second) }
    };
    let dimension = |index: usize| {
        if first { i64::from(fields.i16(40 + 2 * index)) } else { fields.i64(16 + 8 * index) }
    };

    let axes = dimension(0);
    let mut lengths = [1usize; 7];
    let Some(used) = usize::try_from(axes).ok().filter(|axes| (1..=7).contains(axes)) else {
        return Err(wrong(format!("an array of {axes} axes; 1 to 7 are possible")));
    };
    for (axis, length) in lengths.iter_mut().enumerate().take(used) {
        let found = dimension(axis + 1);
        *length = usize::try_from(found)
            .ok()
            .filter(|&length| length > 0)
            .ok_or_else(|| wrong(format!("axis {} has length {found}", axis + 1)))?;
    }
    let [nx, ny, nz, more @ ..] = lengths;
    let mut channels = more.into_iter().filter(|&length| length > 1);
    let channels = match (channels.next(), channels.next()) {
        (channels, None) => channels.unwrap_or(1),
        _ => {
            return Err(DataError::content(
                path,
                format!(
                    "an array of {} values; accepted are three axes, and a fourth that holds the channels",
                    lengths[..used].iter().map(|length| length.to_string()).collect::<Vec<_>>().join(" x ")
                ),
            ));
        }
    };

    let code = fields.i16(if first { 70 } else { 12 });
    let number = number(code).map_err(|name| {
        wrong(format!(
            "values of type {name} (code {code}); integers and floats of 8 to 64 bits are accepted"
        ))
    })?;
    let start = start(&fields, first).map_err(wrong)?;
    let (slope, intercept) = (float(112, 176), float(116, 184));
    // The standard: a slope of zero says that there is no scaling.
    let scale = (slope != 0.0 && slope.is_finite()).then_some((slope, intercept));
    if let Some((_, intercept)) = scale.filter(|(_, intercept)| !intercept.is_finite()) {
        return Err(wrong(format!("an intercept (scl_inter) of {intercept}")));
    }
    let scale = scale.filter(|&scale| scale != (1.0, 0.0));

    let code = |at_first: usize, at_second: usize| {
        if first { i32::from(fields.i16(at_first)) } else { fields.i32(at_second) }
    };
    let mut pixel = [1.0f64; 3];
    for (axis, pixel) in pixel.iter_mut().enumerate() {
        // NiBabel mends missing and negative sizes so.
        let found = float(80 + 4 * axis, 112 + 8 * axis).abs();
        if found > 0.0 && found.is_finite() {
            *pixel = found;
        }
    }
    let affine: [[f64; 4]; 3] = if code(254, 348) != 0 {
        [0, 1, 2].map(|row| {
            [0, 1, 2, 3].map(|column| float(280 + 16 * row + 4 * column, 400 + 32 * row + 8 * column))
        })
    } else if code(252, 344) != 0 {
        let quaternion = [0, 1, 2].map(|part| float(256 + 4 * part, 352 + 8 * part));
        let offset = [0, 1, 2].map(|part| float(268 + 4 * part, 376 + 8 * part));
        let handedness = if float(76, 104) == -1.0 { -1.0 } else { 1.0 };
        from_quaternion(quaternion, [pixel[0], pixel[1], pixel[2] * handedness], offset, first)
            .map_err(wrong)?
    } else {
        // Analyze's convention, which NiBabel follows: x to the left, the origin in the middle.
        let middle = |length: usize| (length as f64 - 1.0) / 2.0;
        [
            [-pixel[0], 0.0, 0.0, pixel[0] * middle(nx)],
            [0.0, pixel[1], 0.0, -pixel[1] * middle(ny)],
            [0.0, 0.0, pixel[2], -pixel[2] * middle(nz)],
        ]
    };
    if affine.iter().flatten().any(|value| !value.is_finite()) {
        return Err(wrong("the matrix from voxels to millimetres has numbers that are not finite".into()));
    }

    let stored = orientation(&affine);
    let lengths = [nx, ny, nz];
    let geometry = canonical(&affine, lengths, stored);
    let mut shape_whd = [1usize; 3];
    let mut steps_whd = [1usize; 3];
    let mut reversed_whd = [false; 3];
    let mut step = 1usize;
    for ((axis, reversed), length) in stored.into_iter().zip(lengths) {
        shape_whd[axis] = length;
        steps_whd[axis] = step;
        reversed_whd[axis] = reversed;
        // Too large a volume is refused when it is opened.
        step = step.saturating_mul(length);
    }
    let [w, h, d] = shape_whd;
    let info = VolumeInfo { channels, shape: [d, h, w], geometry };
    let layout = Layout {
        start,
        number,
        big_endian,
        steps: [step, steps_whd[2], steps_whd[1], steps_whd[0]],
        reversed: [reversed_whd[2], reversed_whd[1], reversed_whd[0]],
        scale,
    };
    Ok((info, layout))
}

/// The number type of a code, or its name where it is not supported.
fn number(code: i16) -> Result<Stored, &'static str> {
    Ok(match code {
        2 => Stored::U8,
        4 => Stored::I16,
        8 => Stored::I32,
        16 => Stored::F32,
        64 => Stored::F64,
        256 => Stored::I8,
        512 => Stored::U16,
        768 => Stored::U32,
        1024 => Stored::I64,
        1280 => Stored::U64,
        1 => return Err("single bits"),
        32 | 1792 | 2048 => return Err("complex numbers"),
        128 => return Err("RGB colours"),
        2304 => return Err("RGBA colours"),
        1536 => return Err("128-bit floats"),
        _ => return Err("unknown"),
    })
}

/// Byte of the first value.
fn start(fields: &Fields, first: bool) -> Result<u64, String> {
    let least = (if first { FIRST } else { SECOND } + EXTENSION_BYTES) as u64;
    let (shown, start) = if first {
        let offset = fields.f32(108);
        // As far as 32-bit floats count; `as` takes what is beyond to the nearest end.
        (offset.to_string(), (offset.fract() == 0.0 && offset >= 0.0).then_some(offset as u64))
    } else {
        let offset = fields.i64(168);
        (offset.to_string(), u64::try_from(offset).ok())
    };
    match start {
        // Not set.
        Some(0) => Ok(least),
        Some(start) if start >= least && start < 1 << 62 => Ok(start),
        _ => Err(format!("its values start at byte {shown} (vox_offset); at least {least} is possible")),
    }
}

/// The standard's method 2. `first` says that the numbers were stored as 32-bit floats.
fn from_quaternion(
    [b, c, d]: [f64; 3],
    pixel: [f64; 3],
    offset: [f64; 3],
    first: bool,
) -> Result<[[f64; 4]; 3], String> {
    let rest = 1.0 - (b * b + c * c + d * d);
    let rounding = 3.0 * if first { f64::from(f32::EPSILON) } else { f64::EPSILON };
    if rest.is_nan() || rest < -rounding {
        return Err(format!("its rotation (quatern_b, c, d) = ({b}, {c}, {d}) is longer than 1"));
    }
    // A half turn: what rounding has left is normalised away.
    let norm = if rest.abs() < rounding { (b * b + c * c + d * d).sqrt() } else { 1.0 };
    let a = if rest.abs() < rounding { 0.0 } else { rest.sqrt() };
    let [b, c, d] = [b / norm, c / norm, d / norm];
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    Ok([0, 1, 2].map(|row| {
        let [x, y, z] = rotation[row];
        [x * pixel[0], y * pixel[1], z * pixel[2], offset[row]]
    }))
}

type Matrix = [[f64; 3]; 3];

/// For each stored axis the world's axis that it is nearest to, and whether it runs against it: greedily by
/// the strongest component of the rotation nearest to the affine, as NiBabel's `io_orientation`.
fn orientation(affine: &[[f64; 4]; 3]) -> [(usize, bool); 3] {
    let mut matrix: Matrix = affine.map(|[x, y, z, _]| [x, y, z]);
    for column in 0..3 {
        // Scaled by the largest first: the squares of extreme numbers are not finite.
        let largest = matrix.iter().map(|row| row[column].abs()).fold(0.0, f64::max);
        if largest > 0.0 {
            matrix.iter_mut().for_each(|row| row[column] /= largest);
            let norm = matrix.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt();
            matrix.iter_mut().for_each(|row| row[column] /= norm);
        }
    }
    let mut rotation = nearest_rotation(matrix);
    let strength = |column: usize| rotation.iter().map(|row| row[column].abs()).fold(0.0, f64::max);
    let mut columns = [0, 1, 2];
    columns.sort_by(|&a, &b| strength(b).total_cmp(&strength(a)));
    let mut stored = [None; 3];
    let mut free = [true; 3];
    for column in columns {
        let mut strongest = 0;
        for row in 1..3 {
            if rotation[row][column].abs() > rotation[strongest][column].abs() {
                strongest = row;
            }
        }
        let value = rotation[strongest][column];
        if value.abs() > 1e-8 {
            stored[column] = Some((strongest, value < 0.0));
            free[strongest] = false;
            rotation[strongest] = [0.0; 3];
        }
    }
    // Axes of a matrix without a direction of their own take what is left, in order.
    stored.map(|axis| {
        axis.unwrap_or_else(|| {
            let left = free.iter().position(|&free| free).unwrap_or(0);
            free[left] = false;
            (left, false)
        })
    })
}

/// The orthogonal factor of the polar decomposition, by Newton's iteration (Higham 1986,
/// <https://doi.org/10.1137/0907079>); a singular matrix is returned as it is.
fn nearest_rotation(matrix: Matrix) -> Matrix {
    let mut current = matrix;
    // From a condition of 1e12 the iteration halves 40 times before it turns quadratic.
    for _ in 0..60 {
        let Some(inverse) = inverse_transposed(&current) else { return matrix };
        let mut change = 0.0f64;
        for row in 0..3 {
            for column in 0..3 {
                let next = (current[row][column] + inverse[row][column]) / 2.0;
                change = change.max((next - current[row][column]).abs());
                current[row][column] = next;
            }
        }
        if change < 1e-15 {
            break;
        }
    }
    current
}

fn inverse_transposed(m: &Matrix) -> Option<Matrix> {
    let cofactor = |row: usize, column: usize| {
        let ([r, s], [c, d]) = ([(row + 1) % 3, (row + 2) % 3], [(column + 1) % 3, (column + 2) % 3]);
        m[r][c] * m[s][d] - m[r][d] * m[s][c]
    };
    let cofactors = [0, 1, 2].map(|row| [0, 1, 2].map(|column| cofactor(row, column)));
    let determinant: f64 = (0..3).map(|column| m[0][column] * cofactors[0][column]).sum();
    (determinant.abs() > 1e-12).then(|| cofactors.map(|row| row.map(|value| value / determinant)))
}

/// The geometry of the turned volume from the affine of the stored one, `lengths` being those of the stored
/// axes.
fn canonical(affine: &[[f64; 4]; 3], lengths: [usize; 3], stored: [(usize, bool); 3]) -> Geometry {
    let mut turned = [[0.0; 4]; 3];
    let mut spacing_whd = [1.0; 3];
    for (from, to) in affine.iter().zip(&mut turned) {
        to[3] = from[3];
        for (column, (axis, reversed)) in stored.into_iter().enumerate() {
            to[axis] = if reversed { -from[column] } else { from[column] };
            if reversed {
                to[3] += from[column] * (lengths[column] as f64 - 1.0);
            }
        }
    }
    for (axis, spacing) in spacing_whd.iter_mut().enumerate() {
        let length = turned.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt();
        if length > 0.0 && length.is_finite() {
            *spacing = length;
        }
    }
    let [w, h, d] = spacing_whd;
    Geometry { spacing: [d, h, w], affine: turned, stored }
}

/// The header of a single-channel file whose values follow it, little-endian, in stored order: NIfTI-1 unless
/// an axis is too long for it.
pub(super) fn header(info: &VolumeInfo, number: Stored) -> Vec<u8> {
    let [d, h, w] = info.shape;
    let stored = info.geometry.stored;
    let lengths = stored.map(|(axis, _)| [w, h, d][axis]);
    let mut affine = [[0.0f64; 4]; 3];
    for (from, to) in info.geometry.affine.iter().zip(&mut affine) {
        to[3] = from[3];
        for (column, (axis, reversed)) in stored.into_iter().enumerate() {
            to[column] = if reversed { -from[axis] } else { from[axis] };
            if reversed {
                to[3] += from[axis] * (lengths[column] as f64 - 1.0);
            }
        }
    }
    let spacing = [2, 1, 0].map(|axis| info.geometry.spacing[axis]);
    let spacing = stored.map(|(axis, _)| spacing[axis]);
    let code: i16 = match number {
        Stored::U8 | Stored::Bool => 2,
        Stored::I16 => 4,
        Stored::I32 => 8,
        Stored::F32 | Stored::F16 => 16,
        Stored::F64 => 64,
        Stored::I8 => 256,
        Stored::U16 => 512,
        Stored::U32 => 768,
        Stored::I64 => 1024,
        Stored::U64 => 1280,
    };
    let bits = 8 * number.size() as i16;
    // The matrix (sform) has code 2, "aligned", the least that it says; lengths are in millimetres (code 2).
    if lengths.iter().all(|&length| i16::try_from(length).is_ok()) {
        let mut bytes = vec![0; FIRST + EXTENSION_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &(FIRST as i32).to_le_bytes());
        let dimensions = [3, lengths[0] as i16, lengths[1] as i16, lengths[2] as i16, 1, 1, 1, 1];
        for (index, dimension) in dimensions.into_iter().enumerate() {
            put(40 + 2 * index, &dimension.to_le_bytes());
        }
        put(70, &code.to_le_bytes());
        put(72, &bits.to_le_bytes());
        put(76, &1f32.to_le_bytes());
        for (index, spacing) in spacing.into_iter().enumerate() {
            put(80 + 4 * index, &(spacing as f32).to_le_bytes());
        }
        put(108, &((FIRST + EXTENSION_BYTES) as f32).to_le_bytes());
        put(112, &1f32.to_le_bytes());
        put(123, &[2]);
        put(254, &2i16.to_le_bytes());
        for (index, value) in affine.into_iter().flatten().enumerate() {
            put(280 + 4 * index, &(value as f32).to_le_bytes());
        }
        put(344, b"n+1\0");
        return bytes;
    }
    let mut bytes = vec![0; SECOND + EXTENSION_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(SECOND as i32).to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &code.to_le_bytes());
    put(14, &bits.to_le_bytes());
    let dimensions = [3, lengths[0] as i64, lengths[1] as i64, lengths[2] as i64, 1, 1, 1, 1];
    for (index, dimension) in dimensions.into_iter().enumerate() {
        put(16 + 8 * index, &dimension.to_le_bytes());
    }
    put(104, &1f64.to_le_bytes());
    for (index, spacing) in spacing.into_iter().enumerate() {
        put(112 + 8 * index, &spacing.to_le_bytes());
    }
    put(168, &((SECOND + EXTENSION_BYTES) as i64).to_le_bytes());
    put(176, &1f64.to_le_bytes());
    put(348, &2i32.to_le_bytes());
    for (index, value) in affine.into_iter().flatten().enumerate() {
        put(400 + 8 * index, &value.to_le_bytes());
    }
    put(500, &2i32.to_le_bytes());
    bytes
}
