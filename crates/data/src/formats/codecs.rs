//! Decompression of the pieces of chunked arrays (HDF5, Zarr).
//!
//! Every decoder is told how many bytes may come out and writes no more; errors are fragments of a sentence.

use std::io::Read;

/// Bytes that one compressed byte may plausibly become; Zstandard makes about 32 000 zeros of one.
const EXPANSION: usize = 1 << 16;
/// Small enough to be allocated whatever the input.
const ALWAYS_FINE: usize = 64 << 20;

/// Decompresses to at most so many bytes.
pub(super) type Decode = fn(&[u8], usize) -> Result<Vec<u8>, String>;

/// Whether `input` compressed bytes can become `output` bytes.
pub(super) fn plausible(input: usize, output: usize) -> bool {
    output <= ALWAYS_FINE || output <= input.saturating_mul(EXPANSION)
}

fn read_bounded(reader: impl Read, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader
        .take((most as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot decompress: {error}"))?;
    if bytes.len() > most {
        return Err(format!("decompresses to more than {most} bytes"));
    }
    Ok(bytes)
}

pub(super) fn gzip(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    read_bounded(flate2::read::MultiGzDecoder::new(input), most)
}

pub(super) fn zlib(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    read_bounded(flate2::read::ZlibDecoder::new(input), most)
}

pub(super) fn zstd(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(input)
        .map_err(|error| format!("cannot decompress (Zstandard): {error}"))?;
    read_bounded(decoder, most)
}

/// A block of LZ4 after its decompressed length (little-endian, 32 bits), as numcodecs writes it.
pub(super) fn lz4_with_length(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let (length, block) = input.split_first_chunk::<4>().ok_or("cut short in the LZ4 header")?;
    let length = u32::from_le_bytes(*length) as usize;
    let mut output = output_buffer(input.len(), length, most)?;
    lz4(block, &mut output)?;
    Ok(output)
}

/// HDF5's filter 32004: total length and block length (big-endian), then blocks after their compressed lengths.
/// <https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md>
pub(super) fn lz4_blocks(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let short = || "cut short in LZ4 data".to_owned();
    let (total, rest) = input.split_first_chunk::<8>().ok_or_else(short)?;
    let (block, mut rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let total = usize::try_from(u64::from_be_bytes(*total)).map_err(|_| short())?;
    let block = (u32::from_be_bytes(*block) as usize).max(1);
    let mut output = output_buffer(input.len(), total, most)?;
    for piece in output.chunks_mut(block) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (compressed, after) =
            after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
        rest = after;
        if compressed.len() == piece.len() {
            piece.copy_from_slice(compressed);
        } else {
            lz4(compressed, piece)?;
        }
    }
    Ok(output)
}

fn lz4(input: &[u8], output: &mut [u8]) -> Result<(), String> {
    match lz4_flex::block::decompress_into(input, output) {
        Ok(length) if length == output.len() => Ok(()),
        Ok(length) => Err(format!("an LZ4 block of {length} bytes where {} are expected", output.len())),
        Err(error) => Err(format!("cannot decompress (LZ4): {error}")),
    }
}

/// Zeros of the length that compressed data claims for itself.
fn output_buffer(input: usize, claimed: usize, most: usize) -> Result<Vec<u8>, String> {
    if claimed > most || !plausible(input, claimed) {
        return Err(format!("{input} bytes claim to decompress to {claimed}; at most {most} are expected"));
    }
    Ok(vec![0; claimed])
}

/// LZF (Marc Lehmann's liblzf), h5py's filter 32000. A chunk that did not shrink is stored as it is, so the
/// caller has to know that from the filter mask.
pub(super) fn lzf(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let short = || "cut short in LZF data".to_owned();
    let mut output = Vec::new();
    let mut rest = input.iter().copied();
    let mut next = || rest.next().ok_or_else(short);
    while let Ok(control) = next() {
        if control < 32 {
            for _ in 0..=control {
                output.push(next()?);
            }
        } else {
            let mut length = usize::from(control >> 5) + 2;
            if length == 9 {
                length += usize::from(next()?);
            }
            let distance = (usize::from(control & 31) << 8 | usize::from(next()?)) + 1;
            repeat(&mut output, distance, length)?;
        }
        if output.len() > most {
            return Err(format!("decompresses to more than {most} bytes"));
        }
    }
    Ok(output)
}

/// Appends `length` bytes that start `distance` before the end; the two may overlap.
fn repeat(output: &mut Vec<u8>, distance: usize, length: usize) -> Result<(), String> {
    let from = output.len().checked_sub(distance).ok_or("refers to a place before its start")?;
    for index in from..from + length {
        output.push(output[index]);
    }
    Ok(())
}

/// Bytes of like significance were stored together; brings the bytes of each value together again.
pub(super) fn unshuffle(input: &[u8], size: usize) -> Vec<u8> {
    let count = input.len() / size.max(1);
    let mut output = vec![0; input.len()];
    for (byte, plane) in input.chunks_exact(count.max(1)).take(size).enumerate() {
        for (value, &bits) in plane.iter().enumerate() {
            output[value * size + byte] = bits;
        }
    }
    // Bytes that fill no whole value are stored at the end.
    output[count * size..].copy_from_slice(&input[count * size..]);
    output
}

/// As [`unshuffle`] for single bits: plane `8 b + k` holds bit `k` of byte `b` of every value.
fn unshuffle_bits(input: &[u8], size: usize, whole_or_not_at_all: bool) -> Vec<u8> {
    let count = input.len() / size;
    let mut output = input.to_vec();
    let shuffled = count - count % 8;
    if shuffled == 0 || (whole_or_not_at_all && shuffled != count) {
        return output;
    }
    output[..shuffled * size].fill(0);
    for (plane, bytes) in input[..shuffled * size].chunks_exact(shuffled / 8).enumerate() {
        let (byte, bit) = (plane / 8, plane % 8);
        for (group, &bits) in bytes.iter().enumerate() {
            for lane in 0..8 {
                output[(group * 8 + lane) * size + byte] |= (bits >> lane & 1) << bit;
            }
        }
    }
    output
}

/// Blosc 1: <https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst>.
pub(super) fn blosc(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    /// Blocks of values up to this size are cut into one stream a byte …
    const MOST_STREAMS: usize = 16;
    /// … of at least so many bytes.
    const SHORTEST_STREAM: usize = 128;

    let short = || "cut short in Blosc data".to_owned();
    let (header, _) = input.split_first_chunk::<16>().ok_or_else(short)?;
    let [version, _, flags, size, ..] = *header;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (length, block) = (field(4) as usize, field(8) as usize);
    let size = usize::from(size).max(1);
    if !(1..=2).contains(&version) {
        return Err(format!(
            "Blosc data of format version {version}; accepted is Blosc 1 (versions 1 and 2)"
        ));
    }
    let mut output = output_buffer(input.len(), length, most)?;
    if flags & 2 != 0 {
        let stored = input.get(16..16 + length).ok_or_else(short)?;
        output.copy_from_slice(stored);
        return Ok(output);
    }
    if length == 0 {
        return Ok(output);
    }
    if block == 0 || block > length.max(1 << 16) {
        return Err(format!("Blosc blocks of {block} bytes in {length}"));
    }
    let codec = flags >> 5;
    let starts = input[16..].as_chunks::<4>().0;
    for (index, piece) in output.chunks_mut(block).enumerate() {
        let start = starts.get(index).map(|start| u32::from_le_bytes(*start) as usize);
        let mut rest = start.and_then(|start| input.get(start..)).ok_or_else(short)?;
        let streams = if flags & 16 == 0
            && size <= MOST_STREAMS
            && block / size >= SHORTEST_STREAM
            && piece.len() == block
        {
            size
        } else {
            1
        };
        if piece.len() % streams != 0 {
            return Err(format!("a Blosc block of {} bytes in {streams} streams", piece.len()));
        }
        let stream_length = piece.len() / streams;
        for stream in piece.chunks_exact_mut(stream_length) {
            let (compressed, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let (bytes, after) =
                after.split_at_checked(u32::from_le_bytes(*compressed) as usize).ok_or_else(short)?;
            rest = after;
            if bytes.len() == stream_length {
                stream.copy_from_slice(bytes);
                continue;
            }
            let decoded = match codec {
                0 => blosclz(bytes, stream_length)?,
                1 => {
                    lz4(bytes, stream)?;
                    continue;
                }
                3 => zlib(bytes, stream_length)?,
                4 => zstd(bytes, stream_length)?,
                other => {
                    let name = if other == 2 { "Snappy".to_owned() } else { format!("compressor {other}") };
                    return Err(format!(
                        "Blosc with {name} is not supported; accepted are BloscLZ, LZ4, LZ4HC, Zlib and Zstandard"
                    ));
                }
            };
            if decoded.len() != stream_length {
                return Err(format!(
                    "a Blosc stream of {} bytes where {stream_length} are expected",
                    decoded.len()
                ));
            }
            stream.copy_from_slice(&decoded);
        }
        if flags & 1 != 0 && size > 1 {
            piece.copy_from_slice(&unshuffle(piece, size));
        } else if flags & 4 != 0 {
            piece.copy_from_slice(&unshuffle_bits(piece, size, version == 2));
        }
    }
    Ok(output)
}

/// Blosc's own compressor, a relative of FastLZ.
fn blosclz(input: &[u8], most: usize) -> Result<Vec<u8>, String> {
    /// Distances from here on take two more bytes.
    const FAR: usize = 8191;

    let short = || "cut short in BloscLZ data".to_owned();
    let mut output = Vec::with_capacity(most);
    let mut rest = input.iter().copied();
    let mut next = || rest.next().ok_or_else(short);
    // The first control byte always starts a literal run; its upper bits are the format's version.
    let mut control = next()? & 31;
    loop {
        if control < 32 {
            for _ in 0..=control {
                output.push(next()?);
            }
        } else {
            let mut length = usize::from(control >> 5) + 2;
            if control >> 5 == 7 {
                loop {
                    let more = next()?;
                    length += usize::from(more);
                    // A long run of 255 must not outgrow what is expected before it is noticed below.
                    if more != 255 || length > most {
                        break;
                    }
                }
            }
            let low = usize::from(next()?);
            let mut distance = usize::from(control & 31) << 8 | low;
            if distance == FAR {
                distance += usize::from(next()?) << 8 | usize::from(next()?);
            }
            if output.len() + length > most {
                return Err(format!("decompresses to more than {most} bytes"));
            }
            repeat(&mut output, distance + 1, length)?;
        }
        if output.len() > most {
            return Err(format!("decompresses to more than {most} bytes"));
        }
        match next() {
            Ok(byte) => control = byte,
            Err(_) => return Ok(output),
        }
    }
}

/// Strips a CRC-32C (little-endian) from the end and compares it.
pub(super) fn crc32c(input: &[u8]) -> Result<&[u8], String> {
    let (data, stored) = input.split_last_chunk::<4>().ok_or("cut short in a checksum")?;
    let (stored, found) = (u32::from_le_bytes(*stored), crc32c::crc32c(data));
    if stored != found {
        return Err(format!("the checksum is {found:08x} where {stored:08x} is expected"));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit(bytes: &[u8], at: usize) -> u8 {
        bytes[at / 8] >> (at % 8) & 1
    }

    #[test]
    fn an_lzf_run_may_overlap_its_own_output() {
        // Literal `a`, then 7 bytes from 1 back; liblzf writes `aaaaaaaa` so.
        assert_eq!(lzf(&[0, b'a', 5 << 5, 0], 100).unwrap(), b"aaaaaaaa");
        assert!(lzf(&[5 << 5, 0], 100).unwrap_err().contains("before its start"));
        assert!(lzf(&[0, b'a', 7 << 5, 255, 0], 100).unwrap_err().contains("more than 100"));
        assert!(lzf(&[3, b'a'], 100).unwrap_err().contains("cut short"));
    }

    proptest! {
        #[test]
        fn unshuffle_undoes_shuffle(values in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..20) {
            let count = values.len() / size;
            let mut shuffled = values.clone();
            for (at, &byte) in values[..count * size].iter().enumerate() {
                shuffled[at % size * count + at / size] = byte;
            }
            prop_assert_eq!(unshuffle(&shuffled, size), values);
        }

        #[test]
        fn bit_planes_come_back_as_values(values in prop::collection::vec(any::<u8>(), 1..300), size in 1usize..9) {
            let count = values.len() / size / 8 * 8;
            let mut shuffled = values.clone();
            shuffled[..count * size].fill(0);
            for value in 0..count {
                for position in 0..size * 8 {
                    let to = position * count + value;
                    shuffled[to / 8] |= bit(&values, value * size * 8 + position) << (to % 8);
                }
            }
            prop_assert_eq!(unshuffle_bits(&shuffled, size, false), values);
        }

        #[test]
        fn no_bytes_panic_or_outgrow_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in any::<u8>()) {
            let mut headed = vec![2, 1, flags, 4, 200, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0];
            headed.extend(&bytes);
            for decode in [gzip, zlib, zstd, lz4_with_length, lz4_blocks, lzf, blosc, blosclz] {
                for input in [&bytes, &headed] {
                    prop_assert!(decode(input, 300).is_ok_and(|output| output.len() <= 300) || decode(input, 300).is_err());
                }
            }
        }
    }
}
