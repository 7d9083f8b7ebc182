//! Prepared volumes, kept on disk from run to run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::atomic::write_atomic;
use crate::volume::{Geometry, Shape, Volume, VolumeInfo, voxels};
use crate::volumes::dataset::Prepared;
use crate::volumes::preprocess::{Align, Placement};
use crate::{DataError, Result};

/// A folder of prepared volumes. An entry that is damaged, or was made from other files or with other settings, is
/// as good as none. Entries are never deleted, but replaced when the files or settings of their case change.
#[derive(Debug, Clone)]
pub(crate) struct DiskCache {
    folder: PathBuf,
}

/// What is in an entry, before its numbers. Part of the format: a change here needs another [`MAGIC`].
#[derive(Serialize, Deserialize)]
struct Header {
    /// Of everything that decides the content.
    key: String,
    channels: usize,
    shape: Shape,
    geometry: StoredGeometry,
    original_channels: usize,
    original_geometry: StoredGeometry,
    original: Shape,
    crop: [(usize, usize); 3],
    corners: bool,
    class: Option<usize>,
    has_labels: bool,
    foreground: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct StoredGeometry {
    spacing: [f64; 3],
    affine: [[f64; 4]; 3],
    stored: [(usize, bool); 3],
}

impl From<&Geometry> for StoredGeometry {
    fn from(g: &Geometry) -> Self {
        Self { spacing: g.spacing, affine: g.affine, stored: g.stored }
    }
}

impl From<StoredGeometry> for Geometry {
    fn from(g: StoredGeometry) -> Self {
        Self { spacing: g.spacing, affine: g.affine, stored: g.stored }
    }
}

const MAGIC: &[u8; 8] = b"ttvol 1\n";
const HASH: usize = 32;

impl DiskCache {
    /// A cache in a folder, which is created if need be.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|e| DataError::io(folder, "cannot create the folder of prepared volumes", e))?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn path(&self, place: &str) -> PathBuf {
        let hash = blake3::hash(place.as_bytes()).to_hex();
        self.folder.join(format!("{}.ttvol", &hash[..32]))
    }

    /// The entry, or `make` if there is none. `place` names the case, `key` all that decides what it should be.
    pub(crate) fn get(
        &self,
        place: &str,
        key: &str,
        make: impl FnOnce() -> Result<Prepared>,
    ) -> Result<Prepared> {
        let path = self.path(place);
        if let Some(found) = std::fs::read(&path).ok().and_then(|bytes| decode(&bytes, key)) {
            return Ok(found);
        }
        let made = make()?;
        write_atomic(&path, |out| encode(&made, key, out))?;
        Ok(made)
    }
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Hashing<'_> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    fn put_words<T: Copy>(&mut self, words: &[T], bytes_of: impl Fn(T) -> [u8; 4]) -> std::io::Result<()> {
        let mut buffer = Vec::with_capacity(1 << 16);
        for part in words.chunks(1 << 14) {
            buffer.clear();
            buffer.extend(part.iter().flat_map(|&word| bytes_of(word)));
            self.put(&buffer)?;
        }
        Ok(())
    }
}

fn encode(volume: &Prepared, key: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let placement = &volume.placement;
    let header = Header {
        key: key.to_owned(),
        channels: volume.image.channels,
        shape: volume.image.shape,
        geometry: (&volume.image.geometry).into(),
        original_channels: volume.original.channels,
        original_geometry: (&volume.original.geometry).into(),
        original: placement.original,
        crop: placement.crop.clone().map(|range| (range.start, range.end)),
        corners: placement.align == Align::Corners,
        class: volume.class,
        has_labels: volume.labels.is_some(),
        foreground: volume.foreground.iter().map(Vec::len).collect(),
    };
    let header = serde_json::to_vec(&header)?;
    let mut out = Hashing { out, hasher: blake3::Hasher::new() };
    out.put(MAGIC)?;
    out.put(&(header.len() as u64).to_le_bytes())?;
    out.put(&header)?;
    out.put_words(&volume.image.values, f32::to_le_bytes)?;
    out.put(volume.labels.as_deref().unwrap_or_default())?;
    for places in &volume.foreground {
        out.put_words(places, u32::to_le_bytes)?;
    }
    let hash = out.hasher.finalize();
    out.out.write_all(hash.as_bytes())
}

/// `None` for anything that is not the wanted entry, whole.
fn decode(bytes: &[u8], key: &str) -> Option<Prepared> {
    let body = bytes.len().checked_sub(HASH)?;
    let (body, hash) = bytes.split_at(body);
    let rest = body.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (header, mut rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    if header.key != key || blake3::hash(body).as_bytes() != hash {
        return None;
    }
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let words = |bytes: &[u8]| bytes.chunks_exact(4).map(|w| [w[0], w[1], w[2], w[3]]).collect::<Vec<_>>();
    let size = header.shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s))?;
    let values = words(take(size.checked_mul(header.channels)?.checked_mul(4)?)?);
    let values: Vec<f32> = values.into_iter().map(f32::from_le_bytes).collect();
    let labels = if header.has_labels { Some(take(size)?.to_vec()) } else { None };
    let mut foreground = Vec::new();
    for count in header.foreground {
        let places = words(take(count.checked_mul(4)?)?);
        foreground.push(places.into_iter().map(u32::from_le_bytes).collect());
    }
    let image =
        Volume { channels: header.channels, shape: header.shape, values, geometry: header.geometry.into() };
    let original = VolumeInfo {
        channels: header.original_channels,
        shape: header.original,
        geometry: header.original_geometry.into(),
    };
    let placement = Placement {
        original: header.original,
        crop: header.crop.map(|(start, end)| start..end),
        shape: header.shape,
        align: if header.corners { Align::Corners } else { Align::Faces },
    };
    debug_assert_eq!(size, voxels(header.shape));
    Some(Prepared::new(image, labels, header.class, original, placement, foreground))
}

/// Path, size and time of last change of a file, or of every file in a folder.
pub(crate) fn identity(path: &Path) -> Result<String> {
    let failed = |e| DataError::io(path, "cannot read", e);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            entries.push(entry.map_err(failed)?.path());
        }
        entries.sort();
        let parts: Vec<String> = entries.iter().map(|entry| identity(entry)).collect::<Result<_>>()?;
        return Ok(parts.concat());
    }
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let absolute = path.canonicalize().map_err(failed)?;
    Ok(format!("{} {} {:?}\n", absolute.display(), metadata.len(), changed))
}
