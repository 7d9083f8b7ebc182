"""Writes pool.json: pooling and resizing with gradients, from PyTorch in f32. Run: python goldens/pool.py"""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(0)


def three(v, dimensions, fill):
    v = [v] * dimensions if isinstance(v, int) else list(v)
    return [fill] * (3 - dimensions) + v


def case(kind, size, f, **fields):
    """One case: input with ties (multiples of 1/4), output, gradient of a random weighting of it."""
    x = (torch.randint(-12, 12, (1, 2, *size)) / 4).requires_grad_(True)
    y = f(x)
    y, index = y if isinstance(y, tuple) else (y, None)
    dy = torch.randint(-8, 8, y.shape) / 4
    y.backward(dy)
    flat = lambda t: t.detach().flatten().tolist()
    out = {"kind": kind, "size": three(size, len(size), 1), "output": three(y.shape[2:], len(size), 1), **fields}
    out |= {"x": flat(x), "y": flat(y), "dy": flat(dy), "dx": flat(x.grad)}
    return out | ({"index": flat(index)} if index is not None else {})


def pool(kind, size, kernel, stride=None, padding=0, dilation=1, ceil_mode=False, count_include_pad=True):
    n = len(size)
    stride = kernel if stride is None else stride
    if kind == "max":
        f = lambda x: getattr(F, f"max_pool{n}d")(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    else:
        f = lambda x: getattr(F, f"avg_pool{n}d")(x, kernel, stride, padding, ceil_mode, count_include_pad)
    return case(kind, size, f, kernel=three(kernel, n, 1), stride=three(stride, n, 1), padding=three(padding, n, 0),
                dilation=three(dilation, n, 1), ceil_mode=ceil_mode, count_include_pad=count_include_pad)


def adaptive(size, output):
    return case("adaptive", size, lambda x: getattr(F, f"adaptive_avg_pool{len(size)}d")(x, output))


def resize(size, output, mode, align_corners=None):
    return case(mode, size, lambda x: F.interpolate(x, output, mode=mode, align_corners=align_corners),
                align_corners=bool(align_corners))


cases = [
    pool("max", (9,), 2), pool("max", (4, 6), 2), pool("max", (5, 7), 2), pool("max", (5, 7), 2, ceil_mode=True),
    pool("max", (7, 6), 3, 2, 1), pool("max", (6, 7), (3, 2), (1, 3), (1, 0), (1, 2)), pool("max", (4, 4, 6), 2),
    pool("max", (3, 5, 5), 2), pool("max", (3, 4, 5), (1, 2, 2)), pool("max", (4, 5, 4), 3, 2, 1, ceil_mode=True),
    pool("avg", (9,), 3, 2, 1), pool("avg", (4, 6), 2), pool("avg", (5, 7), 2),
    pool("avg", (6, 7), 3, 2, 1), pool("avg", (6, 7), 3, 2, 1, count_include_pad=False),
    pool("avg", (6, 7), 3, 2, 1, ceil_mode=True), pool("avg", (5, 8), (2, 3), ceil_mode=True), pool("avg", (3, 4, 5), 2),
    pool("avg", (3, 4, 4), 3, (2, 1, 2), 1, ceil_mode=True, count_include_pad=False),
    adaptive((7,), 3), adaptive((5, 7), (3, 2)), adaptive((3, 2), (5, 4)), adaptive((4, 5), 1), adaptive((3, 4, 5), (2, 3, 5)),
    adaptive((2, 3, 4), 1),
    resize((5,), 8, "nearest"), resize((3, 4), (6, 8), "nearest"), resize((5, 7), (3, 11), "nearest"),
    resize((2, 3, 2), (4, 6, 4), "nearest"), resize((2, 3, 5), (5, 2, 5), "nearest"),
    resize((5,), 8, "linear", False), resize((5,), 8, "linear", True),
    resize((3, 4), (6, 8), "bilinear", False), resize((3, 4), (6, 8), "bilinear", True),
    resize((5, 7), (3, 11), "bilinear", False), resize((5, 7), (1, 13), "bilinear", True),
    resize((2, 3, 2), (4, 6, 4), "trilinear", False), resize((2, 3, 4), (3, 2, 4), "trilinear", False),
    resize((2, 3, 4), (3, 5, 9), "trilinear", True), resize((1, 2, 1), (2, 4, 2), "trilinear", False),
]
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(cases, indent=None).replace("}, {", "},\n{") + "\n")
