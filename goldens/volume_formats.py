"""Small volumes written by the programs that others use, for crates/data/tests/volume_formats.rs.

    pip install numpy==2.4.6 nibabel==5.4.2 tifffile==2026.3.3 pillow==13.0.0
    python goldens/volume_formats.py

Writes crates/data/tests/data/volumes/ and volume_formats.json beside this file. For every file the latter holds
what the reader must give: channels, shape [d, h, w], spacing, affine, stored (NIfTI: by nibabel's
as_closest_canonical) and all values.
"""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import tifffile
from nibabel.orientations import io_orientation
from PIL import Image

HERE = Path(__file__).parent
OUT = HERE.parent / "crates/data/tests/data/volumes"
shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
rng = np.random.default_rng(20)
cases = []


def expect(name, values, spacing=(1, 1, 1), affine=None, stored=None, **more):
    """values [c, d, h, w] or [d, h, w]."""
    values = np.asarray(values)
    values = values[None] if values.ndim == 3 else values
    if affine is None:
        d, h, w = spacing
        affine = [[w, 0, 0, 0], [0, h, 0, 0], [0, 0, d, 0]]
    cases.append(
        {
            "file": name,
            "channels": values.shape[0],
            "shape": list(values.shape[1:]),
            "spacing": [float(s) for s in spacing],
            "affine": np.asarray(affine, float)[:3].tolist(),
            "stored": stored or [[0, False], [1, False], [2, False]],
            "values": values.astype(np.float32).ravel().tolist(),
            **more,
        }
    )


def nifti(name, image):
    """What nibabel makes of the file as it lies on the disk."""
    path = OUT / name
    nib.save(image, path)
    expect_nifti(name)


def expect_nifti(name):
    read = nib.load(OUT / name)
    canonical = nib.as_closest_canonical(read)
    orientation = io_orientation(read.affine)
    data = canonical.get_fdata(dtype=np.float64)
    data = data[..., None] if data.ndim == 3 else data
    data = data.reshape(*data.shape[:3], -1)
    expect(
        name,
        data.transpose(3, 2, 1, 0),
        spacing=nib.affines.voxel_sizes(canonical.affine)[::-1],
        affine=canonical.affine,
        stored=[[int(axis), bool(sign < 0)] for axis, sign in orientation],
        # What a writer must restore.
        original={"shape": list(read.shape[:3]), "affine": read.affine[:3].tolist()},
    )


def data(dtype, shape=(5, 4, 3)):
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.integers(-1000, 1000, shape) / 8).astype(dtype)
    low = 0 if kind.kind == "u" else -100
    return rng.integers(low, 120, shape).astype(dtype)


def rotation():
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def affine(shear=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation() @ (np.eye(3) + shear * np.triu(rng.normal(size=(3, 3)), 1))
    matrix[:3, :3] *= rng.uniform(0.3, 4, 3)
    matrix[:3, 3] = rng.uniform(-100, 100, 3)
    return matrix


def signed_permutation(order, signs):
    matrix = np.zeros((4, 4))
    for column, (row, sign) in enumerate(zip(order, signs)):
        matrix[row, column] = sign * (column + 1.25)
    matrix[:, 3] = [-7, 5.5, 3, 1]
    return matrix


# Every number type, both byte orders, both versions, plain and compressed.
types = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
for index, dtype in enumerate(types):
    order = "<>"[index % 2] if dtype[1] != "1" else "|"
    version = nib.Nifti1Image if index % 3 else nib.Nifti2Image
    endian = ">" if index % 2 else "<"
    header = (nib.Nifti1Header if index % 3 else nib.Nifti2Header)(endianness=endian)
    header.set_data_dtype(np.dtype(order + dtype))
    image = version(data(dtype), affine(), header, dtype=np.dtype(dtype))
    nifti(f"{dtype}_{'big' if endian == '>' else 'little'}.nii{'.gz' if index % 4 == 1 else ''}", image)

# Every order and direction of the axes that a rotation can leave, and random sheared ones.
orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
for index, order in enumerate(orders):
    for turn in range(2):
        signs = rng.choice([-1, 1], 3)
        name = f"axes_{''.join(map(str, order))}_{turn}.nii" + (".gz" if turn else "")
        nifti(name, nib.Nifti1Image(data("i2"), signed_permutation(order, signs)))
for index in range(8):
    nifti(f"sheared_{index}.nii", nib.Nifti1Image(data("u1"), affine(0.6)))

# Compressed, the last axis turned round.
nifti("reversed.nii.gz", nib.Nifti1Image(data("f4"), np.diag([1, 1, -2, 1])))

# Channels.
nifti("channels.nii", nib.Nifti1Image(data("i2", (5, 4, 3, 2)), affine()))
nifti("channels.nii.gz", nib.Nifti1Image(data("i2", (5, 4, 3, 2)), signed_permutation((0, 1, 2), (-1, 1, 1))))
nifti("vectors.nii", nib.Nifti1Image(data("f4", (5, 4, 3, 1, 3)), affine()))

# Only the quaternion (left- and right-handed, a half turn), neither form.
for name, matrix in [
    ("quaternion", affine()),
    ("quaternion_left", affine() @ np.diag([1, 1, -1, 1])),
    ("half_turn", np.diag([-1.0, -2.0, 3.0, 1.0])),
]:
    image = nib.Nifti1Image(data("f4"), None)
    image.set_qform(matrix, code=1)
    image.set_sform(None, code=0)
    nifti(f"{name}.nii", image)
image = nib.Nifti1Image(data("f4"), None)
image.header.set_zooms((0.5, 1.5, 2.5))
image.set_qform(None, code=0)
image.set_sform(None, code=0)
nifti("no_form.nii", image)

# Scaling.
image = nib.Nifti1Image(data("i2"), np.eye(4))
image.header.set_slope_inter(0.25, -3)
nifti("scaled_by_nibabel.nii", image)
raw = bytearray((OUT / "axes_012_0.nii").read_bytes())
raw[112:120] = np.array([0.5, -10], "<f4").tobytes()
(OUT / "scaled.nii").write_bytes(raw)
expect_nifti("scaled.nii")

# An extension before the values.
image = nib.Nifti1Image(data("u2"), affine())
image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"forty-two bytes of comment, give or take.."))
nifti("extension.nii", image)

# Not accepted.
nib.save(nib.Nifti1Pair(data("u1"), np.eye(4)), OUT / "pair.img")
(OUT / "pair.img").unlink()
nib.save(nib.Nifti1Image((data("f4") + 1j).astype("c8"), np.eye(4)), OUT / "complex.nii")
nib.save(nib.Nifti1Image(data("u1", (5, 4, 3, 2, 2)), np.eye(4)), OUT / "five_axes.nii")
nib.save(nib.AnalyzeImage(data("i2"), np.eye(4)), OUT / "analyze.img")
(OUT / "analyze.img").unlink()

# NumPy
for name, dtype, order, shape in [
    ("dhw_u1", "|u1", "C", (3, 4, 5)),
    ("dhw_f8_big", ">f8", "C", (3, 4, 5)),
    ("dhw_i2_fortran", "<i2", "F", (3, 4, 5)),
    ("cdhw_f4", "<f4", "C", (2, 3, 4, 5)),
    ("cdhw_f4_fortran", "<f4", "F", (2, 3, 4, 5)),
]:
    values = np.asarray(data(dtype, shape), order=order)
    np.save(OUT / f"{name}.npy", values)
    expect(f"{name}.npy", values)
values = data("u1", (3, 4, 5))
np.save(OUT / "dhw1.npy", values[..., None])
expect("dhw1.npy", values)
np.save(OUT / "hw.npy", values[0])
expect("hw.npy", values[:1])
np.save(OUT / "five_axes.npy", values[None, None])

# TIFF
for dtype in ["u1", "i2", "u2", "f4"]:
    values = data(dtype, (3, 4, 5))
    tifffile.imwrite(OUT / f"stack_{dtype}.tif", values, photometric="minisblack")
    expect(f"stack_{dtype}.tif", values)
values = data("u1", (6, 4, 5))
tifffile.imwrite(OUT / "deflate.tif", values, photometric="minisblack", compression="zlib", bigtiff=True)
expect("deflate.tif", values)
values = data("f4", (3, 4, 5))
tifffile.imwrite(
    OUT / "imagej.tif", values, imagej=True, resolution=(4, 2), metadata={"spacing": 0.75, "unit": "um", "axes": "ZYX"}
)
expect("imagej.tif", values, spacing=(0.75e-3, 0.5e-3, 0.25e-3))
values = data("u2", (3, 2, 4, 5))
tifffile.imwrite(OUT / "imagej_channels.tif", values, imagej=True, metadata={"axes": "ZCYX"})
expect("imagej_channels.tif", values.transpose(1, 0, 2, 3))
values = data("u2", (2, 3, 4, 5))
tifffile.imwrite(OUT / "channels_depth.tif", values, photometric="minisblack")
expect("channels_depth.tif", values)
metadata = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.4, "PhysicalSizeZ": 900, "PhysicalSizeZUnit": "nm"}
for axes in ["CZYX", "ZCYX"]:
    values = data("u1", (2, 3, 4, 5) if axes[0] == "C" else (3, 2, 4, 5))
    tifffile.imwrite(OUT / f"ome_{axes}.ome.tif", values, photometric="minisblack", metadata={"axes": axes, **metadata})
    channel_first = values if axes[0] == "C" else values.transpose(1, 0, 2, 3)
    expect(f"ome_{axes}.ome.tif", channel_first, spacing=(9e-4, 4e-4, 2e-4))
tifffile.imwrite(OUT / "times.tif", data("u1", (2, 3, 4, 5)), imagej=True, metadata={"axes": "TZYX"})
with tifffile.TiffWriter(OUT / "sizes.tif") as writer:
    writer.write(data("u1", (4, 5)))
    writer.write(data("u1", (4, 6)))
palette = Image.fromarray(rng.integers(0, 3, (4, 5), dtype="u1"), "P")
palette.putpalette([10, 20, 30, 0, 255, 0, 255, 0, 255])

# A folder of slices, as labels (palette indices) and with a file that is none.
folder = OUT / "slices"
folder.mkdir()
indices = rng.integers(0, 3, (11, 4, 5), dtype="u1")
for index, slice_ in enumerate(indices):
    image = Image.fromarray(slice_)
    if index % 2:
        image = image.convert("P")
        image.putdata(slice_.ravel().tolist())
        image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2])
    image.save(folder / f"z{index}.png")
(folder / "notes.txt").write_text("not a slice\n")
expect("slices", indices)

# Colours of a palette are an image; its indices are labels.
folder = OUT / "palette"
folder.mkdir()
palette.save(folder / "a.png")

(HERE / "volume_formats.json").write_text(
    "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n"
)
print(len(cases), "files", sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes")
