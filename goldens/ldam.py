"""Writes ldam.json: class margins and weights, and LDAM's value and gradient, from PyTorch in f64. Needs torch.
Run: python goldens/ldam.py"""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(1)
COUNTS = [[5000, 2000, 40, 700, 5], [1, 1, 1, 1, 1], [10**9, 3, 10**6, 50, 2]]
BATCH, CLASSES = 14, 5


def margins(counts, largest):
    m = torch.tensor(counts, dtype=torch.float64) ** -0.25
    return m / m.max() * largest


def balanced(counts, beta):
    n = torch.tensor(counts, dtype=torch.float64)
    w = (1 - beta) / (1 - beta**n)
    return w / w.sum() * len(counts)


def ldam(z, y, m, s, w):
    """Cross-entropy after the margin of the true class is taken from its logit; -100 marks what to ignore."""
    marked = z - F.one_hot(y.clamp(min=0), CLASSES) * (m[y.clamp(min=0)] * (y >= 0))[:, None]
    return F.cross_entropy(s * marked, y, weight=w, ignore_index=-100)


# Multiples of 1/1024 are the same in f32.
grid = lambda *shape: torch.round(torch.rand(*shape, dtype=torch.float64) * 2048 - 1024) / 1024
cosines = grid(BATCH, CLASSES)
cosines[0] = torch.tensor([1.0, -1, -1, -1, -1])
y = torch.randint(0, CLASSES, (BATCH,))
y[0], y[3], y[7] = 1, -100, -100
out = {"logits": cosines.flatten().tolist(), "target": y.tolist(), "cases": []}
for counts in COUNTS:
    for largest, scale, beta in [(0.2, 15.0, None), (0.5, 30.0, 0.9999), (0.5, 30.0, 0.9), (0.0, 1.0, 0.0)]:
        z = cosines.clone().requires_grad_(True)
        m = margins(counts, largest)
        w = None if beta is None else balanced(counts, beta)
        value = ldam(z, y, m, scale, w)
        value.backward()
        out["cases"].append({"counts": counts, "max_margin": largest, "scale": scale, "beta": beta, "margins": m.tolist(),
                             "weights": None if w is None else w.tolist(), "value": value.item(), "gradient": z.grad.flatten().tolist()})
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out).replace("}, {", "},\n{") + "\n")
