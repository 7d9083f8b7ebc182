"""Writes volume_losses.json: value and gradient of the losses for volumes and classes, from PyTorch in f64, written from the
papers' formulas. Needs torch. Run: python goldens/volume_losses.py"""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(2)
D64 = torch.float64


def distinct(*shape, span=6.0):
    """Values without ties (whose gradient would be a matter of taste), exact in f32."""
    n = torch.Size(shape).numel()
    return ((torch.randperm(n).to(D64) / n - 0.5) * span * 1024).round().div(1024).reshape(shape)


def random_mask(shape, share):
    return (torch.rand(shape) < share).to(D64)


# --- one foreground class: logits z, 0/1 target t, signed distance phi, valid v ---


def binary(shape):
    z = distinct(*shape)
    t = random_mask(shape, 0.4)
    # A blob, so that skeletons of the target have something to erode.
    t[0, 0, ..., 1:4, 1:5] = 1
    return z, t, distinct(*shape, span=14.0), random_mask(shape, 0.8)


def mean(x, w):
    return (x * w).sum() / w.sum()


def boundary_bce(z, t, phi, v, full, zero):
    w = torch.clamp((zero - phi.abs()) / (zero - full), 0, 1) * v
    return mean(F.binary_cross_entropy_with_logits(z, t, reduction="none"), w)


def kervadec(z, t, phi, v):
    return mean(torch.sigmoid(z) * phi, v)


def shifted(x, offset, fill):
    """x moved by one element an axis at most, `fill` from outside."""
    padded = F.pad(x, [1, 1] * len(offset), value=fill)
    for axis, o in enumerate(offset):
        padded = padded.narrow(axis + 2, 1 + o, x.shape[axis + 2])
    return padded


def offsets(rank):
    return torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * rank).tolist()


def erode(x, v):
    """Minimum over the element and its neighbours along each axis, of those that are valid and inside."""
    x = torch.where(v > 0, x, torch.inf)
    near = [o for o in offsets(x.dim() - 2) if sum(map(abs, o)) <= 1]
    return torch.stack([shifted(x, o, torch.inf) for o in near]).amin(0)


def dilate(x, v):
    """Maximum over the cube around the element, of those that are valid and inside."""
    x = torch.where(v > 0, x, -torch.inf)
    return torch.stack([shifted(x, o, -torch.inf) for o in offsets(x.dim() - 2)]).amax(0)


def skeleton(x, v, iterations):
    """Algorithm 1 of the clDice paper."""
    s = torch.zeros_like(x)
    for _ in range(iterations + 1):
        eroded = erode(x, v)
        # Where nothing valid is around, there is nothing at all.
        rest = torch.relu(torch.where(v > 0, x - dilate(torch.where(v > 0, eroded, 0), v), 0))
        s = s + (1 - s) * rest
        x = torch.where(v > 0, eroded, 0)
    return s


def cldice(z, t, phi, v, iterations, smooth):
    p = torch.sigmoid(z)
    sp, st = skeleton(p, v, iterations), skeleton(t, v, iterations)
    precision = ((sp * t * v).sum() + smooth) / ((sp * v).sum() + smooth)
    sensitivity = ((st * p * v).sum() + smooth) / ((st * v).sum() + smooth)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def connectivity(z, t, phi, v):
    return mean((dilate(torch.sigmoid(z), v) - dilate(t, v)).nan_to_num(0, 0, 0) ** 2, v)


def focal(z, t, phi, v, alpha, gamma):
    p = torch.sigmoid(z)
    pt = p * t + (1 - p) * (1 - t)
    at = alpha * t + (1 - alpha) * (1 - t)
    return mean(-at * (1 - pt) ** gamma * torch.log(pt), v)


BINARY = {
    "boundary_bce/3/5": lambda *a: boundary_bce(*a, 3.0, 5.0), "boundary_bce/1/2.5": lambda *a: boundary_bce(*a, 1.0, 2.5),
    "boundary": kervadec, "connectivity": connectivity,
    **{f"cldice/{i}/{s}": lambda *a, i=i, s=s: cldice(*a, i, s) for i, s in [(0, 1.0), (1, 1.0), (3, 1.0), (2, 0.01)]},
    "focal/0.25/2": lambda *a: focal(*a, 0.25, 2.0), "focal/0.7/0.5": lambda *a: focal(*a, 0.7, 0.5),
}


# --- classes: logits z [b, k, ...], target y [b, ...] (255: ignored), valid v ---


def cross_entropy(z, y, v, w):
    """Weighted by the targets' weights, divided by their sum, over what is valid and labelled."""
    y = torch.where(v > 0, y, 255)
    return F.cross_entropy(z, y, weight=None if w is None else torch.tensor(w, dtype=D64), ignore_index=255)


def dice(z, y, v, background, per_sample, smooth):
    k = z.shape[1]
    v = (v * (y < max(k, 2)))[:, None]
    y = torch.where(y < max(k, 2), y, 0)
    if k == 1:
        p, t = torch.sigmoid(z), y[:, None].to(D64)
    else:
        p, t = torch.softmax(z, 1), F.one_hot(y, k).movedim(-1, 1).to(D64)
        if not background:
            p, t = p[:, 1:], t[:, 1:]
    axes = [2] if per_sample else [0, 2]
    p, t = [(x * v).reshape(*x.shape[:2], -1) for x in (p, t)]
    overlap, sizes = (p * t).sum(axes), p.sum(axes) + t.sum(axes)
    return (1 - (2 * overlap + smooth) / (sizes + smooth)).mean()


def classes(shape):
    z = distinct(*shape)
    flat = (shape[0], *shape[2:])
    y = torch.randint(0, max(shape[1], 2), flat)
    y[torch.rand(flat) < 0.15] = 255
    return z, y, random_mask(flat, 0.8)


def of_classes(k):
    weights = [0.5 + 0.75 * i for i in range(k)]
    cases = {f"dice/{int(b)}/{int(s)}/{m}": lambda *a, b=b, s=s, m=m: dice(*a, b, s, m)
             for b in [False, True] for s in [False, True] for m in [1e-5, 1.0]}
    if k > 1:
        cases |= {"cross_entropy": lambda *a: cross_entropy(*a, None), "cross_entropy/weighted": lambda *a: cross_entropy(*a, weights)}
    return cases


def run(tensors, cases):
    z = tensors[0].requires_grad_(True)
    names = ["logits", "target", "valid"] if len(tensors) == 3 else ["logits", "target", "distance", "valid"]
    out = {"shape": list(z.shape), "cases": {}} | {n: t.flatten().tolist() for n, t in zip(names, tensors)}
    for name, f in cases.items():
        z.grad = None
        value = f(*tensors)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(z.grad).all(), name
        out["cases"][name] = {"value": value.item(), "gradient": [float(f"{g:.7g}") for g in z.grad.flatten().tolist()]}
    return out


out = {
    "binary": [run(binary(shape), BINARY) for shape in [(2, 1, 4, 6, 7), (2, 1, 7, 8), (1, 2, 1, 6, 7)]],
    "classes": [run(classes(shape), of_classes(shape[1])) for shape in [(2, 3, 3, 2, 4), (2, 4, 3, 5), (7, 5), (2, 1, 3, 4, 3)]],
}
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out).replace('"cases"', '\n"cases"').replace("}, ", "},\n") + "\n")
