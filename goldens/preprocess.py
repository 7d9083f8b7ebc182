"""Reference values for crates/data/src/volumes, from numpy and scipy.  Writes preprocess.json beside this file.

Needs numpy, scipy.

The volumes are not stored. Both sides draw them from the same 64-bit linear congruential generator (Knuth's MMIX
constants, top 24 bits as a float in [0, 1)), shaped with +, -, * only, and rounded to float32.
"""

import json
import math
import pathlib

import numpy as np
import scipy
from scipy import ndimage

MASK = (1 << 64) - 1


def draw(seed, count):
    state, values = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        values.append((state >> 40) / 16777216.0)
    return np.array(values)


def volume(seed, shape):
    """Skewed, with negative values."""
    u = draw(seed, math.prod(shape))
    return (u * u * u * 1000.0 - 50.0).astype(np.float32).reshape(shape)


def brain(seed, shape):
    """Zeros around a box, and a tenth of zeros within."""
    u = draw(seed, math.prod(shape)).reshape(shape)
    v = np.where(u < 0.1, 0.0, u * 100.0).astype(np.float32)
    out = np.zeros(shape, np.float32)
    out[1:-1, 2:-1, 1:-2] = v[1:-1, 2:-1, 1:-2]
    return out


def numbers(array):
    return [float(f"{v:.9g}") for v in np.asarray(array, np.float64).ravel()]


def percentile(v, lo, hi):
    a, b = np.percentile(v.astype(np.float64), [lo, hi])
    return {"lo": lo, "hi": hi, "from": a, "to": b, "values": numbers(np.clip((v.astype(np.float64) - a) / (b - a), 0, 1))}


def medicalnet(v):
    at = np.argwhere(v != 0)
    low, high = at.min(0), at.max(0) + 1
    cut = v[low[0]:high[0], low[1]:high[1], low[2]:high[2]].astype(np.float64)
    positive = cut[cut > 0]
    out = (cut - positive.mean()) / positive.std()
    # Noise goes where it was 0: told as null.
    flat = [None if c == 0 else float(f"{o:.9g}") for c, o in zip(cut.ravel(), out.ravel())]
    return {"crop": [[int(a), int(b)] for a, b in zip(low, high)], "values": flat}


def starts(n, patch, step_size):
    """The rule of nnU-Net's compute_steps_for_sliding_window, for n >= patch."""
    target = patch * step_size
    count = int(np.ceil((n - patch) / target)) + 1
    step = (n - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(step * i)) for i in range(count)]


def importance(patch, sigma):
    centre = np.zeros(patch)
    centre[tuple(i // 2 for i in patch)] = 1
    out = ndimage.gaussian_filter(centre, [i * sigma for i in patch], 0, mode="constant", cval=0)
    return out / out.max()


SHAPE = (5, 6, 7)
v = volume(11, SHAPE)
labels = (draw(13, math.prod(SHAPE)) * 5.0).astype(np.int32).reshape(SHAPE)


def zoomed(a, to, order, grid_mode):
    factors = [t / f for t, f in zip(to, a.shape)]
    return ndimage.zoom(a, factors, order=order, mode="nearest" if grid_mode else "constant", grid_mode=grid_mode)


result = {
    "made_with": {"numpy": np.__version__, "scipy": scipy.__version__},
    "shape": SHAPE,
    "zscore": {"mean": float(v.astype(np.float64).mean()), "std": float(v.astype(np.float64).std()),
               "values": numbers((v.astype(np.float64) - v.astype(np.float64).mean()) / v.astype(np.float64).std())},
    "percentiles": [percentile(v, lo, hi) for lo, hi in [(0.5, 99.5), (1, 99), (12.3, 77.7), (0, 100)]],
    "medicalnet": medicalnet(brain(12, (7, 8, 9))),
    "resized": [
        {"to": to, "faces": faces, "values": numbers(zoomed(v.astype(np.float64), to, 1, faces)),
         "labels": zoomed(labels, to, 0, faces).ravel().tolist()}
        for to in [(8, 6, 4), (3, 11, 7), (1, 2, 16)] for faces in [False, True]
    ],
    "windows": [
        {"n": n, "patch": p, "overlap": 1 - s, "starts": starts(n, p, s)}
        for n, p, s in [(100, 40, 0.5), (41, 40, 0.5), (40, 40, 0.5), (257, 128, 0.5), (333, 96, 0.5),
                        (90, 32, 0.25), (77, 31, 0.75), (60, 7, 0.5)]
    ],
    "gaussian": [{"patch": p, "sigma": s, "values": numbers(importance(p, s))}
                 for p, s in [((4, 6, 8), 0.125), ((1, 5, 7), 0.125), ((3, 3, 8), 0.25)]],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
print(path, path.stat().st_size, "bytes")
