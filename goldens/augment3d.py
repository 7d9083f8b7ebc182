"""Reference values for the changes of 3-D patches in crates/data, from SciPy and PyTorch.  Writes augment3d.json beside
this file.  Needs numpy, scipy, torch.

The inputs are not stored. Both sides draw them from the same 64-bit linear congruential generator (Knuth's MMIX
constants, top 24 bits as a float in [0, 1)); labels are the draw times 4, rounded down.
"""

import json
import pathlib

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.nn.functional import interpolate

MASK = (1 << 64) - 1


def draws(seed, count):
    state = seed
    out = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        out.append((state >> 40) / 16777216.0)
    return out


def volume(seed, shape):
    return np.array(draws(seed, int(np.prod(shape)))).reshape(shape)


def values(array):
    return [float(f"{v:.7g}") for v in np.asarray(array, dtype=np.float64).ravel()]


def blur(seed, shape, sigmas):
    out = ndimage.gaussian_filter(volume(seed, shape), sigmas, mode="mirror", truncate=4.0)
    return {"kind": "blur", "seed": seed, "shape": shape, "sigmas": sigmas, "values": values(out)}


def low_resolution(seed, shape, zoom):
    x = torch.tensor(volume(seed, shape), dtype=torch.float64)[None, None]
    small = [round(n * z) for n, z in zip(shape, zoom)]
    out = interpolate(interpolate(x, small, mode="nearest-exact"), shape, mode="trilinear")
    return {"kind": "low_resolution", "seed": seed, "shape": shape, "zoom": zoom, "values": values(out)}


def contrast(seed, shape, factor):
    x = volume(seed, shape)
    out = np.clip((x - x.mean()) * factor + x.mean(), x.min(), x.max())
    return {"kind": "contrast", "seed": seed, "shape": shape, "factor": factor, "values": values(out)}


def gamma(seed, shape, power, inverted):
    x = volume(seed, shape) * (-1 if inverted else 1)
    low, reach = x.min(), np.ptp(x)
    y = ((x - low) / reach) ** power * reach + low
    y = (y - y.mean()) * (x.std() / y.std()) + x.mean()
    out = -y if inverted else y
    kind = "inverted_gamma" if inverted else "gamma"
    return {"kind": kind, "seed": seed, "shape": shape, "power": power, "values": values(out)}


def affine(seed, shape, target, degrees, scale):
    """Scale, then rotate about the last, the middle and the first axis, all about the centre; zeros outside."""
    x = volume(seed, shape)
    matrix = Rotation.from_euler("XYZ", degrees, degrees=True).as_matrix() @ np.diag(scale)
    offset = (np.array(shape) - 1) / 2 - matrix @ ((np.array(target) - 1) / 2)
    move = lambda a, order, **k: ndimage.affine_transform(
        a, matrix, offset, output_shape=tuple(target), order=order, **k)
    image = move(x, 1, mode="grid-constant", cval=0.0)
    labels = move(np.floor(x * 4).astype(np.uint8), 0, mode="grid-constant", cval=255)
    return {"kind": "affine", "seed": seed, "shape": shape, "target": target, "degrees": degrees, "scale": scale,
            "values": values(image), "labels": [int(v) for v in labels.ravel()]}


cases = [
    blur(1, [5, 7, 9], [0.7, 0.5, 1.0]),
    blur(2, [1, 4, 3], [1.0, 1.0, 0.6]),
    blur(3, [2, 3, 12], [2.5, 0.05, 1.7]),
    low_resolution(4, [7, 9, 11], [0.6, 0.6, 0.6]),
    low_resolution(5, [5, 6, 3], [0.5, 0.5, 0.5]),
    low_resolution(6, [4, 10, 8], [1.0, 0.73, 0.73]),
    contrast(7, [3, 4, 5], 1.25),
    contrast(7, [3, 4, 5], 0.8),
    gamma(8, [3, 4, 5], 0.7, False),
    gamma(8, [3, 4, 5], 1.5, True),
    affine(9, [9, 11, 13], [7, 9, 7], [25.0, -13.0, 30.0], [1.0, 1.0, 1.0]),
    affine(10, [8, 6, 10], [8, 6, 10], [0.0, 0.0, -20.0], [0.7, 0.7, 0.7]),
    affine(11, [5, 12, 9], [3, 8, 7], [140.0, 0.0, 0.0], [1.0, 1.37, 1.37]),
]
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
