"""Small files of every format, written by the programs that others use, for crates/data/tests/formats_foreign.rs.

    pip install numpy==2.4.6 mrcfile==1.5.4 tifffile==2026.3.3 pillow==13.0.0
    python goldens/formats.py

The picture is 5 x 3: `base[y, x] = 7 x + 50 y` in 0..=128; signed types subtract 60, 16-bit types multiply by 257
(unsigned) or 100 (signed), floats divide by 8. The test computes the same.
"""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import mrcfile
import numpy as np
import tifffile
from PIL import Image

OUT = Path(__file__).parent.parent / "crates/data/tests/data/formats"
OUT.mkdir(parents=True, exist_ok=True)

y, x = np.mgrid[0:3, 0:5]
base = (7 * x + 50 * y).astype(np.int64)


def picture(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (base / 8).astype(dtype)
    if kind.kind == "b":
        return base % 2 == 1
    if kind.kind == "i":
        return ((base - 60) * (1 if kind.itemsize == 1 else 100)).astype(dtype)
    return (base * (1 if kind.itemsize == 1 else 257)).astype(dtype)


# PNG and JPEG, by Pillow
grey = picture("u1")
Image.fromarray(grey).save(OUT / "grey8.png")
Image.fromarray(picture("u2")).save(OUT / "grey16.png")
Image.fromarray(base % 2 == 1).save(OUT / "grey1.png")
indexed = Image.fromarray((base % 4).astype("u1"), mode="P")
indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
indexed.save(OUT / "palette2.png", bits=2)
indexed.save(OUT / "palette8.png", bits=8)
rgb = np.stack([grey, grey + 20, 2 * (grey // 2)], axis=-1).astype("u1")
Image.fromarray(rgb).save(OUT / "rgb8.png")
Image.fromarray(np.dstack([rgb, 255 - grey])).save(OUT / "rgba8.png")
Image.fromarray(np.dstack([grey, grey, grey])).save(OUT / "rgb_equal.png")
Image.fromarray(np.dstack([grey, 255 - grey])).save(OUT / "grey_alpha8.png")
flat = np.full((3, 5), 100, "u1")
Image.fromarray(flat).save(OUT / "flat.jpg", quality=95)
Image.fromarray(np.dstack([flat, flat, flat])).save(OUT / "flat_rgb_progressive.jpg", quality=95, progressive=True)

# TIFF, by tifffile and Pillow
for dtype in ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"]:
    tifffile.imwrite(OUT / f"{dtype}.tif", picture(dtype), metadata=None)
tifffile.imwrite(OUT / "u2_big_endian.tif", picture("u2"), metadata=None, byteorder=">")
tifffile.imwrite(OUT / "f4_bigtiff.tif", picture("f4"), metadata=None, bigtiff=True)
tifffile.imwrite(OUT / "u2_deflate.tif", picture("u2"), metadata=None, compression="zlib")
tifffile.imwrite(OUT / "u1_tiled.tif", picture("u1"), metadata=None, tile=(16, 16))
tifffile.imwrite(OUT / "u1_imagej.tif", picture("u1"), imagej=True)
tifffile.imwrite(OUT / "u1_white_is_zero.tif", 255 - picture("u1"), metadata=None, photometric="miniswhite")
tifffile.imwrite(OUT / "rgb8.tif", rgb, metadata=None, photometric="rgb")
tifffile.imwrite(OUT / "rgb8_planar.tif", rgb.transpose(2, 0, 1), metadata=None, photometric="rgb", planarconfig="separate")
tifffile.imwrite(OUT / "pages.tif", np.stack([picture("u1")] * 4), metadata=None, photometric="minisblack")
Image.fromarray(picture("u1")).save(OUT / "u1_lzw.tif", compression="tiff_lzw")
Image.fromarray(base % 2 == 1).save(OUT / "bit.tif")

# MRC, by mrcfile
for mode, dtype in [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")]:
    with mrcfile.new(OUT / f"mode{mode}.mrc", data=picture(dtype), overwrite=True) as mrc:
        assert mrc.header.mode == mode
        mrc.voxel_size = 1.25
with mrcfile.new(OUT / "mode2_big_endian.mrc", data=picture(">f4"), overwrite=True) as mrc:
    mrc.voxel_size = 1.25
    assert mrc.header.machst[0] == 0x11
with mrcfile.new(OUT / "extended.mrc", data=picture("i2"), overwrite=True) as mrc:
    mrc.set_extended_header(np.arange(40, dtype="u1").view("V40")[0])
with mrcfile.new(OUT / "stack.mrcs", data=np.stack([picture("f4"), picture("f4") + 1]), overwrite=True) as mrc:
    mrc.set_image_stack()
    mrc.voxel_size = 1.25
# IMOD's bytes are unsigned when its stamp is there without the flag `signed`.
unsigned = bytearray((OUT / "mode0.mrc").read_bytes()[:1024])
unsigned[152:160] = struct.pack("<ii", 1146047817, 0)
(OUT / "imod_unsigned.mrc").write_bytes(unsigned + picture("u1").tobytes())
packed = io.BytesIO()
with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as f:
    f.write((OUT / "mode6.mrc").read_bytes())
(OUT / "mode6.mrc.gz").write_bytes(packed.getvalue())
for path in OUT.glob("*.mrc*"):
    if path.suffix == ".gz":
        continue
    # mrcfile notes the time of writing in a label; keep the files the same from run to run.
    content = bytearray(path.read_bytes())
    content[224:304] = b"mrcfile".ljust(80)
    path.write_bytes(content)

# NPY and NPZ, by NumPy
for dtype in ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?"]:
    name = "bool" if dtype == "?" else dtype
    np.save(OUT / f"{name}.npy", picture(dtype))
np.save(OUT / "f4_fortran.npy", np.asfortranarray(picture("f4")))
np.save(OUT / "i2_big_endian.npy", picture(">i2"))
np.save(OUT / "stack.npy", np.stack([picture("u1"), picture("u1") + 1]))
np.save(OUT / "stack_fortran.npy", np.asfortranarray(np.stack([picture("u1"), picture("u1") + 1])))
with open(OUT / "version2.npy", "wb") as f:
    np.lib.format.write_array(f, picture("f4"), version=(2, 0))


def savez(name, compression, **arrays):
    # As numpy.savez, but with a fixed date.
    with zipfile.ZipFile(OUT / name, "w", compression) as archive:
        for key, value in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(value))
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), content.getvalue(), compress_type=compression)


images = np.stack([picture("f4"), picture("f4") + 1])
masks = np.stack([picture("?"), ~picture("?")])
savez("batch.npz", zipfile.ZIP_STORED, images=images, masks=masks)
savez("batch_compressed.npz", zipfile.ZIP_DEFLATED, images=images[:, None], masks=masks[:, None].astype("i8"))
savez("single.npz", zipfile.ZIP_DEFLATED, images=picture("u1"))
savez("other.npz", zipfile.ZIP_STORED, x=picture("u1"))
