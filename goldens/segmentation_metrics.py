"""Reference values for the volume metrics of crates/metrics.  Writes segmentation_metrics.json beside this file.

Needs: numpy scipy scikit-image connected-components-3d surface-distance gudhi.

Masks are stored as hexadecimal digits, voxel 0 in the highest bit of the first. Labellings are stored as a checksum
c = 31 c + label (mod 2^64) after numbering the components by their first voxel.
"""

import json
import pathlib
import warnings
from importlib.metadata import version

import cc3d
import gudhi
import numpy as np
from scipy import ndimage
from skimage.metrics import variation_of_information
from skimage.morphology import skeletonize

# surface-distance 0.1 uses names that numpy 2 and scipy 2 have dropped.
np.Inf, np.NaN = np.inf, np.nan
warnings.simplefilter("ignore")
import surface_distance as sd  # noqa: E402
import surface_distance.metrics as sd_metrics  # noqa: E402


class Namespace:
    filters = morphology = ndimage
    correlate = staticmethod(ndimage.correlate)


sd_metrics.ndimage = Namespace

MASK = (1 << 64) - 1
PACKAGES = ("numpy", "scipy", "scikit-image", "connected-components-3d", "surface-distance", "gudhi")


def packed(mask):
    bits = np.packbits(mask.ravel())
    return bits.tobytes().hex()


def number(value):
    value = float(value)
    return None if np.isnan(value) else "inf" if np.isinf(value) else value


# ---- volumes


def grid(shape):
    return np.meshgrid(*[np.arange(n, dtype=float) for n in shape], indexing="ij")


def ball(shape, centre, radius):
    return sum((a - c) ** 2 for a, c in zip(grid(shape), centre)) <= radius**2


def sheet(shape, offset, thickness):
    z, y, x = grid(shape)
    return np.abs(z - (shape[0] / 2 + offset + 1.5 * np.sin(x / 3) + np.cos(y / 4))) <= thickness / 2


def tube(shape, points, radius):
    mask = np.zeros(shape, bool)
    for a, b in zip(points, points[1:]):
        for t in np.linspace(0, 1, 40):
            mask |= ball(shape, [u + t * (v - u) for u, v in zip(a, b)], radius)
    return mask


def torus(shape, centre, big, small, axis=0):
    offsets = [a - c for a, c in zip(grid(shape), centre)]
    along = offsets.pop(axis)
    return (np.hypot(*offsets) - big) ** 2 + along**2 <= small**2


def shell(shape, centre, outer, inner):
    return ball(shape, centre, outer) & ~ball(shape, centre, inner)


def volumes():
    rng = np.random.default_rng(20)
    ones = (1.0, 1.0, 1.0)
    oblong = (2.5, 1.0, 0.75)
    for fill in (0.05, 0.15, 0.3, 0.5, 0.7, 0.9):
        for shape, spacing in (((6, 7, 9), ones), ((5, 8, 6), oblong)):
            yield f"random {fill}", rng.random(shape) < fill, rng.random(shape) < fill, spacing
    shape = (6, 8, 9)
    for fill in (0.2, 0.5, 0.8):
        truth = rng.random(shape) < fill
        yield f"flipped {fill}", truth ^ (rng.random(shape) < 0.1), truth, oblong
    smooth = lambda shape: ndimage.gaussian_filter(rng.standard_normal(shape), 1.2) > 0.05
    for shape in ((7, 9, 10), (12, 16, 18), (16, 24, 24)):
        yield "smooth noise", smooth(shape), smooth(shape), oblong

    shape = (10, 20, 22)
    yield "sheets", sheet(shape, 0.6, 1.5), sheet(shape, 0, 1), ones
    holed = sheet(shape, 0, 1.5) & ~ball(shape, (5, 9, 9), 3)
    yield "sheet with a hole", holed, sheet(shape, 0, 2), oblong
    yield "two sheets merged", sheet(shape, -2, 2) | sheet(shape, 2, 2) | ball(shape, (5, 10, 10), 3), sheet(
        shape, -2, 1
    ) | sheet(shape, 2, 1), ones
    shape = (12, 18, 20)
    ring = [(6, 4, 4), (6, 4, 15), (6, 13, 15), (6, 13, 4), (6, 4, 4)]
    yield "tubes: ring and broken ring", tube(shape, ring[:-1], 1.5), tube(shape, ring, 1.2), ones
    yield "tubes: branching", tube(shape, ring[:3] + [(2, 2, 2)], 1.6), tube(
        shape, ring[:3], 1.1
    ) | tube(shape, [(6, 4, 9), (9, 15, 9)], 1.1), oblong
    yield "touching blobs", ball(shape, (6, 8, 5), 4) | ball(shape, (6, 8, 12), 3.5), ball(
        shape, (6, 8, 5), 3.2
    ) | ball(shape, (6, 9, 12), 3), ones
    yield "torus moved", torus(shape, (6, 9, 10), 5, 1.8), torus(shape, (6, 8, 9), 5, 1.8), ones
    yield "torus turned", torus(shape, (6, 9, 10), 4.5, 1.3, 1), torus(shape, (6, 9, 10), 5, 1.6), ones
    yield "shells", shell(shape, (6, 9, 10), 5, 3), shell(shape, (6, 9, 9), 5, 2.5), oblong
    yield "shell and ball", shell(shape, (6, 9, 10), 5, 3), ball(shape, (6, 9, 9), 5), ones
    lattice = (grid(shape)[0] % 4 < 1.5) & (grid(shape)[1] % 5 < 2) | (grid(shape)[2] % 6 < 2)
    yield "lattice", lattice & (rng.random(shape) < 0.97), lattice, ones
    shape = (22, 32, 30)
    thick = [(5, 6, 6), (14, 26, 8), (17, 14, 24), (5, 22, 25), (8, 6, 15), (17, 26, 24)]
    yield "thick tubes", tube(shape, thick, 4), tube(shape, thick, 2.6), oblong
    yield "large smooth noise", ndimage.gaussian_filter(rng.standard_normal(shape), 2) > 0, ndimage.gaussian_filter(
        rng.standard_normal(shape), 2
    ) > 0, ones

    shape = (4, 5, 6)
    none, all_, one = np.zeros(shape, bool), np.ones(shape, bool), np.zeros(shape, bool)
    one[1, 2, 3] = True
    other = np.roll(one, 2, 2)
    for name, a, b in (
        ("both empty", none, none),
        ("nothing predicted", none, one),
        ("nothing there", all_, none),
        ("both full", all_, all_),
        ("full against one voxel", all_, one),
        ("one voxel", one, one),
        ("one voxel moved", other, one),
        ("all but one voxel", ~one, all_),
    ):
        yield name, a, b, oblong
    for shape in ((1, 17, 19), (9, 1, 12), (8, 9, 1), (1, 1, 14), (1, 1, 1)):
        yield f"flat {shape}", rng.random(shape) < 0.55, rng.random(shape) < 0.55, oblong
    plane = lambda: ndimage.gaussian_filter(rng.standard_normal((1, 40, 44)), (0, 2, 2)) > 0
    yield "slice of blobs", plane(), plane(), ones


# ---- references


def edt(mask, spacing):
    """Distance to the mask; scipy leaves an empty one undefined."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(~mask, sampling=spacing)


def canonical(labels):
    flat = labels.ravel()
    values, first = np.unique(flat, return_index=True)
    order = np.argsort(first)
    table, count = {0: 0}, 0
    for value in values[order]:
        if value != 0:
            count += 1
            table[int(value)] = count
    return np.array([table[int(v)] for v in flat]).reshape(labels.shape)


def checksum(labels):
    total = 0
    for label in labels.ravel().tolist():
        total = (31 * total + label) & MASK
    return f"{total:016x}"


def components(mask):
    result = {}
    for connectivity, rank in ((6, 1), (18, 2), (26, 3)):
        labels = canonical(ndimage.label(mask, ndimage.generate_binary_structure(3, rank))[0])
        # cc3d and scipy agree.
        again = canonical(cc3d.connected_components(mask.astype(np.uint8), connectivity=connectivity))
        assert (labels == again).all()
        result[str(connectivity)] = {
            "sizes": np.bincount(labels.ravel())[1:].tolist(),
            "checksum": checksum(labels),
        }
    return result


def skeleton(mask):
    # A slice is thinned as a picture.
    if mask.shape[0] == 1:
        return skeletonize(mask[0], method="lee").astype(bool)[None]
    return skeletonize(mask, method="lee").astype(bool)


def surfaces(prediction, truth, spacing):
    distances = sd.compute_surface_distances(truth, prediction, spacing)
    forth, back = sd.compute_average_surface_distance(distances)
    areas = [distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()]
    means = [mean if area > 0 else 0.0 for mean, area in zip((forth, back), areas)]
    both = sum(m * a for m, a in zip(means, areas)) / sum(areas) if sum(areas) > 0 else np.nan
    return {
        "area_truth": number(areas[0]),
        "area_prediction": number(areas[1]),
        "dice": {str(t): number(sd.compute_surface_dice_at_tolerance(distances, t)) for t in (0.4, 1.0, 2.0)},
        "hausdorff": {str(p): number(sd.compute_robust_hausdorff(distances, p)) for p in (50, 95, 100)},
        "average_truth_to_prediction": number(forth),
        "average_prediction_to_truth": number(back),
        "average_symmetric": number(both),
    }


def cldice(prediction, truth):
    of_prediction, of_truth = skeleton(prediction), skeleton(truth)
    precision = (of_prediction & truth).sum() / of_prediction.sum() if of_prediction.any() else np.nan
    sensitivity = (of_truth & prediction).sum() / of_truth.sum() if of_truth.any() else np.nan
    if np.isnan(precision) and np.isnan(sensitivity):
        value = np.nan
    elif np.isnan(precision) or np.isnan(sensitivity) or precision + sensitivity == 0:
        value = 0.0
    else:
        value = 2 * precision * sensitivity / (precision + sensitivity)
    return {"precision": number(precision), "sensitivity": number(sensitivity), "cldice": number(value)}


def voi(prediction, truth):
    a, b = (ndimage.label(m, np.ones((3, 3, 3)))[0] for m in (prediction, truth))
    either = (a > 0) | (b > 0)
    # Checked by hand: the first is the entropy of the second argument given the first.
    whole = variation_of_information(b.ravel(), a.ravel())
    union = variation_of_information(b[either], a[either]) if either.any() else (0.0, 0.0)
    ignoring = variation_of_information(b.ravel(), a.ravel(), ignore_labels=[0]) if truth.any() else (0.0, 0.0)
    return {
        "whole": [number(v) for v in whole],
        "union": [number(v) for v in union],
        "ignoring_background": [number(v) for v in ignoring],
    }


def betti(mask):
    if not mask.any():
        return [0, 0, 0]
    cells = gudhi.CubicalComplex(top_dimensional_cells=np.where(mask, 0.0, 1.0))
    cells.compute_persistence(homology_coeff_field=2, min_persistence=-1)
    return (cells.persistent_betti_numbers(0.0, 0.5) + [0, 0, 0])[:3]


class Space:
    """Vectors over Z/2 as integers."""

    def __init__(self, vectors=()):
        self.basis = {}
        for vector in vectors:
            self.add(vector)

    def add(self, vector):
        while vector:
            top = vector.bit_length()
            if top not in self.basis:
                self.basis[top] = vector
                return True
            vector ^= self.basis[top]
        return False

    def with_(self, vectors):
        copy = Space()
        copy.basis = dict(self.basis)
        for vector in vectors:
            copy.add(vector)
        return copy

    def __len__(self):
        return len(self.basis)


def complex_(mask):
    """The cells of the closed voxels: by dimension, on the grid twice as fine."""
    cells = np.zeros([2 * n + 1 for n in mask.shape], bool)
    for dz in range(3):
        for dy in range(3):
            for dx in range(3):
                cells[tuple(slice(d, d + 2 * n - 1, 2) for d, n in zip((dz, dy, dx), mask.shape))] |= mask
    return [[tuple(c) for c in np.argwhere(cells) if sum(v % 2 for v in c) == k] for k in range(4)]


def boundary(cell):
    for axis in range(3):
        if cell[axis] % 2:
            for step in (-1, 1):
                yield cell[:axis] + (cell[axis] + step,) + cell[axis + 1 :]


def chains(cells, k, index):
    return [sum(1 << index[k - 1][face] for face in boundary(c)) if k else 0 for c in cells[k]]


def cycles(cells, k, index):
    """A basis of the k-cycles, in the coordinates of the union."""
    basis, result = {}, []
    for cell, vector in zip(cells[k], chains(cells, k, index)):
        combination = 1 << index[k][cell]
        while vector and vector.bit_length() in basis:
            other = basis[vector.bit_length()]
            vector, combination = vector ^ other[0], combination ^ other[1]
        if vector:
            basis[vector.bit_length()] = (vector, combination)
        else:
            result.append(combination)
    return result


def matching(prediction, truth):
    """[matched, predicted, labelled] by dimension, by plain linear algebra."""
    union = complex_(prediction | truth)
    index = [{cell: i for i, cell in enumerate(cells)} for cells in union]
    of_prediction, of_truth = complex_(prediction), complex_(truth)
    result = []
    for k in range(3):
        filled = Space(chains(union, k + 1, index))
        p, g = cycles(of_prediction, k, index), cycles(of_truth, k, index)
        rank = lambda vectors: len(filled.with_(vectors)) - len(filled)
        matched = rank(p) + rank(g) - rank(p + g)
        own = [len(c) - len(Space(chains(cells, k + 1, index))) for c, cells in ((p, of_prediction), (g, of_truth))]
        result.append([matched, *own])
    return result


def case(name, prediction, truth, spacing):
    print(name, prediction.shape, prediction.sum(), truth.sum())
    result = {
        "name": name,
        "shape": list(truth.shape),
        "spacing": list(spacing),
        "prediction": packed(prediction),
        "truth": packed(truth),
        "components": components(truth),
        "skeleton_prediction": packed(skeleton(prediction)),
        "skeleton_truth": packed(skeleton(truth)),
        "surface": surfaces(prediction, truth, spacing),
        "cldice": cldice(prediction, truth),
        "voi": voi(prediction, truth),
        "betti_prediction": betti(prediction),
        "betti_truth": betti(truth),
    }
    if truth.size <= 250:
        signed = edt(truth, spacing) - edt(~truth, spacing)
        result["distance"] = [number(round(v, 9)) for v in edt(truth, spacing).ravel()]
        result["signed_distance"] = [number(round(v, 9)) for v in signed.ravel()]
    if truth.size <= 5000:
        result["matching"] = matching(prediction, truth)
        assert [m[1] for m in result["matching"]] == result["betti_prediction"]
        assert [m[2] for m in result["matching"]] == result["betti_truth"]
    return result


def main():
    result = {
        "made_by": "goldens/segmentation_metrics.py, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "cases": [case(*volume) for volume in volumes()],
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = ",\n  ".join(json.dumps(c) for c in result["cases"])
    path.write_text(f'{{\n "made_by": "{result["made_by"]}",\n "cases": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
