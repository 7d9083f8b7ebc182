"""Small HDF5 and Zarr files for crates/data/tests/volume_chunked.rs, written by the programs that others use.

    pip install numpy==2.4.6 h5py==3.16.0 hdf5plugin==7.1.0 zarr==3.1.6 numcodecs==0.16.6
    python goldens/volume_chunked.py
    pip install numpy==2.4.6 zarr==2.18.7 numcodecs==0.15.2      # in another environment
    python goldens/volume_chunked.py                # only the arrays of zarr-python 2

The volume is 5 x 6 x 7, with two channels where it has channels: `base[c, z, y, x] = (64 c + 31 z + 7 y + x) % 100`;
signed types subtract 50, floats divide by 8, booleans are `base % 3 == 0`. The test computes the same.

expected.json: for each file its arrays, with number type, channels, spacing and, where not everything was written, the
first slice that is left at the fill value. The folders of Zarr are kept in one archive for each version of the program.
"""

import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import zarr

HERE = Path(__file__).parent.parent / "crates/data/tests/data/chunked"
HERE.mkdir(parents=True, exist_ok=True)
FOLDERS = tempfile.TemporaryDirectory()
EXPECTED = HERE / "expected.json"
known = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
SHAPE = (5, 6, 7)

c, z, y, x = np.mgrid[0:2, 0:5, 0:6, 0:7]
base = (64 * c + 31 * z + 7 * y + x) % 100


def volume(dtype, channels=0):
    kind = np.dtype(dtype)
    values = base if channels else base[0]
    if kind.kind == "b":
        return values % 3 == 0
    if kind.kind == "i":
        values = values - 50
    if kind.kind == "f":
        values = values / 8
    return values.astype(kind)


def expect(file, dataset, dtype, channels=1, spacing=(1, 1, 1), fill_from=None, fill=0):
    """`fill_from`: slices from here on were never written."""
    case = {"dataset": dataset, "kind": np.dtype(dtype).newbyteorder("=").str[1:], "channels": channels, "spacing": list(spacing)}
    if fill_from is not None:
        case |= {"fill_from": fill_from, "fill": fill}
    known.setdefault(file, [])
    known[file] = [old for old in known[file] if old["dataset"] != dataset] + [case]


def fresh(name):
    known.pop(name, None)
    return str(Path(FOLDERS.name) / name)


def pack(name):
    # With a fixed date, so that the archive is the same from run to run.
    with zipfile.ZipFile(HERE / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(Path(FOLDERS.name).rglob("*")):
            if path.is_file():
                inside = zipfile.ZipInfo(path.relative_to(FOLDERS.name).as_posix())
                archive.writestr(inside, path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)


TYPES = ["?", "u1", "i1", "<u2", ">u2", "<i2", "<u4", ">i4", "<u8", "<i8", "<f2", "<f4", ">f4", "<f8", ">f8"]


def hdf5():
    import h5py
    import hdf5plugin

    def file(name, **options):
        known.pop(name, None)
        return h5py.File(HERE / name, "w", track_order=False, **options)

    for name, options in [("earliest.h5", {"libver": "earliest"}), ("latest.h5", {"libver": "latest"})]:
        with file(name, **options) as f:
            for dtype in TYPES:
                title = f"types/{dtype.replace('<', 'le_').replace('>', 'be_').replace('?', 'bool')}"
                f.create_dataset(title, data=volume(dtype))
                expect(name, title, dtype)
            for title, settings in {
                "contiguous": {},
                "single_chunk": {"chunks": SHAPE},
                "single_chunk_gzip": {"chunks": SHAPE, "compression": "gzip"},
                "fixed": {"chunks": (2, 3, 4)},
                "fixed_gzip": {"chunks": (2, 3, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
                "one_unlimited": {"chunks": (2, 3, 4), "maxshape": (None, 6, 7), "compression": "gzip"},
                "two_unlimited": {"chunks": (2, 3, 4), "maxshape": (None, None, 7)},
                "lzf": {"chunks": (2, 3, 4), "compression": "lzf", "shuffle": True},
                "scaleoffset": {"chunks": (2, 3, 4), "scaleoffset": 0},
            }.items():
                f.create_dataset(f"layouts/{title}", data=volume("<u2"), **settings)
                expect(name, f"layouts/{title}", "<u2")
            # Many chunks, so that the index has more than one level.
            f.create_dataset("layouts/one_voxel_chunks", data=volume("u1"), chunks=(1, 1, 1), maxshape=(None, 6, 7))
            expect(name, "layouts/one_voxel_chunks", "u1")
            # Never written behind slice 2, of which the whole chunk was.
            sparse = f.create_dataset("layouts/sparse", SHAPE, "<f4", chunks=(3, 6, 7), fillvalue=-1.5)
            sparse[:3] = volume("<f4")[:3]
            expect(name, "layouts/sparse", "<f4", fill_from=3, fill=-1.5)
            channels = f.create_dataset("channels", data=volume("<u2", 2), chunks=(1, 2, 6, 7))
            channels.attrs["element_size_um"] = [0.5, 0.25, 0.125]
            expect(name, "channels", "<u2", 2, (0.0005, 0.00025, 0.000125))
            # As ilastik writes it: the channel last.
            ilastik = f.create_dataset("ilastik", data=np.moveaxis(volume("<f4", 2), 0, -1)[None], chunks=(1, 2, 3, 4, 2))
            ilastik.attrs["axistags"] = json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in "tzyxc"]})
            expect(name, "ilastik", "<f4", 2)
            many = f.create_group("many")
            for index in range(40):
                many[f"scalar{index}"] = index
            many["again"] = f["channels"]
            many["up"] = h5py.SoftLink("/layouts")
            f["flat"] = volume("u1")[0]
            f["text"] = "not a volume"
    with file("filters.h5") as f:
        for title, settings in {
            "blosc_lz4": hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE),
            "blosc_zstd_bits": hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
            "lz4": hdf5plugin.LZ4(nbytes=64),
            "zstd": hdf5plugin.Zstd(),
        }.items():
            f.create_dataset(title, data=volume("<u2"), chunks=(3, 6, 7), compression=settings)
            expect("filters.h5", title, "<u2")
        f.create_dataset("unsupported/bitshuffle", data=volume("<u2"), chunks=(3, 6, 7), compression=hdf5plugin.Bitshuffle())
        f.create_dataset("unsupported/compound", data=np.zeros(SHAPE, "u1,f4"))
        # Nothing of it is stored.
        f.create_dataset("unsupported/huge", (100_000, 100_000, 100_000), "u1", chunks=(64, 64, 64))
        f.create_dataset("unsupported/bfloat16", SHAPE, h5py.h5t.IEEE_F16LE)
    with h5py.File(HERE / "filters.h5", "a") as f:
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_precision(16)
        kind.set_size(2)
        kind.set_ebias(127)
        del f["unsupported/bfloat16"]
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(f["unsupported"].id, b"bfloat16", kind, space)
    with file("only.h5", userblock_size=1024) as f:
        f["flat"] = volume("u1")[0]
        f["deep/er/volume"] = volume("<i2")
        expect("only.h5", "deep/er/volume", "<i2")


def zarr_2(writer):
    """Arrays of format 2, by either version of the program."""
    from numcodecs import LZ4, Blosc, GZip, Shuffle, Zlib, Zstd

    def create(path, data, **settings):
        if zarr.__version__.startswith("3"):
            settings["zarr_format"] = 2
            compressor = settings.pop("compressor")
            separator = settings.pop("dimension_separator", ".")
            array = zarr.create_array(
                path,
                shape=data.shape,
                dtype=data.dtype,
                compressors=compressor,
                chunk_key_encoding={"name": "v2", "separator": separator},
                **settings,
            )
        else:
            array = zarr.open(path, mode="w", shape=data.shape, dtype=data.dtype, **settings)
        array[...] = data
        return array

    for title, dtype, settings in [
        ("plain", "<u2", {"compressor": None}),
        ("fortran", "<u2", {"compressor": None, "order": "F", "dimension_separator": "/"}),
        ("big_endian", ">f4", {"compressor": Zlib(1)}),
        ("bool", "?", {"compressor": GZip(1)}),
        ("half", "<f2", {"compressor": LZ4()}),
        ("zstd", "<i4", {"compressor": Zstd()}),
        ("filtered", "<i8", {"compressor": Zlib(1), "filters": [Shuffle(8)]}),
        ("blosc_lz4", "<u2", {"compressor": Blosc(cname="lz4", shuffle=1)}),
        ("blosc_lz4hc_bits", "<f4", {"compressor": Blosc(cname="lz4hc", shuffle=2)}),
        ("blosc_blosclz", "<u4", {"compressor": Blosc(cname="blosclz", clevel=9, shuffle=0)}),
        ("blosc_zlib", "<f8", {"compressor": Blosc(cname="zlib", shuffle=1)}),
        ("blosc_zstd", "u1", {"compressor": Blosc(cname="zstd", shuffle=2)}),
    ]:
        name = f"{writer}_{title}.zarr"
        create(fresh(name), volume(dtype), chunks=(2, 4, 7), **settings)
        expect(name, None, dtype)


def large():
    """Several Blosc blocks a chunk. 24 x 32 x 64, (64 z z + y x) % 251 // 16 as uint16, for which the test has the formula too."""
    from numcodecs import Blosc

    z, y, x = np.mgrid[0:24, 0:32, 0:64]
    data = ((64 * z * z + y * x) % 251 // 16).astype("<u2")
    for cname in ["blosclz", "lz4", "zstd"]:
        for shuffle in [1, 2]:
            path = fresh(f"large_{cname}_{shuffle}.zarr")
            array = zarr.create_array(
                path,
                shape=data.shape,
                dtype=data.dtype,
                chunks=data.shape,
                zarr_format=2,
                compressors=Blosc(cname=cname, clevel=9, shuffle=shuffle, blocksize=1 << 13),
            )
            array[...] = data


def zarr_3():
    from zarr import codecs

    def create(path, dtype, **settings):
        array = zarr.create_array(path, shape=SHAPE, dtype=dtype, zarr_format=3, **settings)
        array[...] = volume(dtype)
        return array

    for title, dtype, settings in [
        ("gzip", "<u2", {"compressors": codecs.GzipCodec()}),
        ("zstd_crc", "<f4", {"compressors": [codecs.ZstdCodec(), codecs.Crc32cCodec()]}),
        ("blosc", "<i2", {"compressors": codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")}),
        ("transposed", "<u4", {"filters": codecs.TransposeCodec(order=(2, 0, 1)), "compressors": None}),
        ("big_endian", "<f8", {"serializer": codecs.BytesCodec(endian="big"), "compressors": None}),
        ("dots", "u1", {"chunk_key_encoding": {"name": "default", "separator": "."}}),
        ("v2_names", "?", {"chunk_key_encoding": {"name": "v2", "separator": "."}}),
    ]:
        name = f"v3_{title}.zarr"
        create(fresh(name), dtype, chunks=(2, 4, 7), **settings)
        expect(name, None, dtype)
    name = "v3_shards.zarr"
    create(fresh(name), "<u2", chunks=(1, 3, 4), shards=(2, 6, 8))
    expect(name, None, "<u2")
    name = "v3_shards_start.zarr"
    inner = [codecs.TransposeCodec(order=(1, 2, 0)), codecs.BytesCodec(endian="little"), codecs.ZstdCodec()]
    index = [codecs.BytesCodec(endian="big")]
    sharding = codecs.ShardingCodec(chunk_shape=(1, 3, 4), codecs=inner, index_codecs=index, index_location="start")
    create(fresh(name), "<i2", chunks=(2, 6, 8), serializer=sharding, compressors=None)
    expect(name, None, "<i2")
    # Nothing written behind slice 2; one chunk of the first shard is missing too.
    for name, settings, fill in [
        ("v3_sparse.zarr", {"chunks": (3, 6, 7)}, float("nan")),
        ("v3_sparse_shards.zarr", {"chunks": (1, 6, 7), "shards": (4, 6, 7)}, -2.0),
    ]:
        array = zarr.create_array(fresh(name), shape=SHAPE, dtype="f4", fill_value=fill, **settings)
        array[:3] = volume("<f4")[:3]
        expect(name, None, "<f4", fill_from=3, fill="NaN" if fill != fill else fill)


def ome():
    """Two resolutions and labels, as OME-Zarr 0.4 (format 2) and 0.5 (format 3)."""
    for name, version in [("ome_04.zarr", 2), ("ome_05.zarr", 3)]:
        root = zarr.open_group(fresh(name), mode="w", zarr_format=version)
        axes = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}]
        axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]

        def scales(axes, channels):
            extra = [1.0] * (len(axes) - 3)
            return {
                "axes": axes,
                "datasets": [
                    {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": extra + [2.0, 0.5, 0.25]}]},
                    {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": extra + [2.0, 1.0, 0.5]}]},
                ],
                "coordinateTransformations": [{"type": "scale", "scale": extra + [0.5, 1.0, 1.0]}],
            }

        def put(group, metadata):
            group.attrs.update({"ome": {"version": "0.5", "multiscales": [metadata]}} if version == 3 else {"multiscales": [metadata]})

        put(root, scales(axes, 2))
        cells = root.create_group("labels/cells")
        put(cells, scales(axes[2:], 1))
        for group, data in [(root, volume("<u2", 2)[None]), (cells, volume("<i4"))]:
            for level, values in [("0", data), ("1", data[..., ::2, ::2])]:
                array = group.create_array(level, shape=values.shape, dtype=values.dtype, chunks=(1,) * (values.ndim - 2) + (6, 7), chunk_key_encoding={"name": "v2" if version == 2 else "default", "separator": "/"})
                array[...] = values
        expect(name, None, "<u2", 2, (0.001, 0.0005, 0.00025))
        expect(name, "labels/cells", "<i4", 1, (0.001, 0.0005, 0.00025))
        expect(name, "labels/cells/0", "<i4", 1, (0.001, 0.0005, 0.00025))
    name = "group.zarr"
    root = zarr.open_group(fresh(name), mode="w", zarr_format=2)
    raw = root.create_array("volumes/raw", shape=SHAPE, dtype="u1", chunks=(2, 6, 7))
    raw[...] = volume("u1")
    raw.attrs["element_size_um"] = [0.5, 0.25, 0.125]
    labels = root.create_array("volumes/labels", shape=SHAPE, dtype="<u2", chunks=(2, 6, 7))
    labels[...] = volume("<u2")
    root.create_array("flat", shape=SHAPE[:2], dtype="u1")
    expect(name, "volumes/raw", "u1", 1, (0.0005, 0.00025, 0.000125))
    expect(name, "volumes/labels", "<u2")
    name = "names.zarr"
    array = zarr.create_array(fresh(name), shape=(7, 6, 5, 2), dtype="<u2", chunks=(4, 4, 4, 1), dimension_names=["x", "y", "z", "c"])
    array[...] = volume("<u2", 2).transpose(3, 2, 1, 0)
    expect(name, None, "<u2", 2)


if zarr.__version__.startswith("3"):
    hdf5()
    zarr_2("v2_by_3")
    zarr_3()
    ome()
    large()
    pack("zarr_3.zip")
else:
    zarr_2("v2_by_2")
    pack("zarr_2.zip")
EXPECTED.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
