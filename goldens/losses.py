"""Writes losses.json: value and gradient of each loss, from PyTorch in f64. Run: python goldens/losses.py"""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(0)
N = 24
z = (torch.randn(N, dtype=torch.float64) * 3).requires_grad_(True)
with torch.no_grad():
    z[0], z[1], z[2], z[3] = 0.0, 40.0, -40.0, 100.0
t = (torch.rand(N) > 0.6).double()
v = (torch.rand(N) > 0.25).double()
teacher = torch.rand(N, dtype=torch.float64)


def bce(w):
    return (F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=torch.tensor(w, dtype=torch.float64)) * v).sum() / v.sum()


def focal(alpha, gamma, w):
    p = torch.sigmoid(z)
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=torch.tensor(w, dtype=torch.float64))
    pt = p * t + (1 - p) * (1 - t)
    at = alpha * t + (1 - alpha) * (1 - t)
    return (at * (1 - pt) ** gamma * ce * v).sum() / v.sum()


def dice(smooth):
    p = torch.sigmoid(z) * v
    return 1 - (2 * (p * t).sum() + smooth) / (p.sum() + (t * v).sum() + smooth)


cases = {
    "bce/1": lambda: bce(1.0), "bce/2.33": lambda: bce(2.33),
    "focal/0.7/2/1": lambda: focal(0.7, 2.0, 1.0), "focal/0.25/0/1": lambda: focal(0.25, 0.0, 1.0),
    "focal/0.9/1.5/5": lambda: focal(0.9, 1.5, 5.0),
    "dice/1": lambda: dice(1.0), "dice/0.00001": lambda: dice(1e-5),
    "consistency": lambda: F.mse_loss(torch.sigmoid(z), teacher),
}
out = {"logits": z.detach().tolist(), "target": t.tolist(), "valid": v.tolist(), "teacher": teacher.tolist(), "cases": {}}
for name, f in cases.items():
    z.grad = None
    value = f()
    value.backward()
    out["cases"][name] = {"value": value.item(), "gradient": z.grad.tolist()}
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out, indent=1) + "\n")
