"""Writes norm.json: normalisations with an activation behind them, outputs and gradients, from PyTorch in f64. Run: python goldens/norm.py"""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(0)
B, C, N = 2, 4, 5  # [batch, channels, inner]
EPSILON, SLOPE = 1e-3, 0.1
rand = lambda *s: torch.randn(*s, dtype=torch.float64)
x, dy = rand(B, C, N) * 2 + 1, rand(B, C, N)
weight, bias = rand(N), rand(N)  # the first C of them where they belong to channels
mean, variance = rand(C), torch.rand(C, dtype=torch.float64) + 0.5


def channels_first(x, w, b):
    return F.layer_norm(x.transpose(1, 2), (C,), w, b, EPSILON).transpose(1, 2)


norms = {
    "batch_train": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=EPSILON),
    "batch_eval": lambda x, w, b: F.batch_norm(x, mean, variance, w, b, training=False, eps=EPSILON),
    "group/1": lambda x, w, b: F.group_norm(x, 1, w, b, EPSILON),
    "group/2": lambda x, w, b: F.group_norm(x, 2, w, b, EPSILON),
    "group/4": lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=EPSILON),
    "layer": lambda x, w, b: F.layer_norm(x, (N,), w, b, EPSILON),
    "layer_channels": channels_first,
}
activations = {"identity": lambda z: z, "relu": F.relu, "leaky_relu": lambda z: F.leaky_relu(z, SLOPE)}


def numbers(t):
    return [float(f"{v:.8g}") for v in t.flatten().tolist()]


out = {"batch": B, "channels": C, "inner": N, "epsilon": EPSILON, "slope": SLOPE,
       "x": x.flatten().tolist(), "dy": dy.flatten().tolist(), "weight": weight.tolist(), "bias": bias.tolist(),
       "mean": mean.tolist(), "variance": variance.tolist(), "cases": {}}
for name, norm in norms.items():
    for act, f in activations.items():
        n = N if name == "layer" else C
        leaves = [t.clone().requires_grad_(True) for t in (x, weight[:n], bias[:n])]
        y = f(norm(*leaves))
        y.backward(dy)
        out["cases"][f"{name} {act}"] = {"y": numbers(y), **{f"d{k}": numbers(t.grad) for k, t in zip(("x", "weight", "bias"), leaves)}}
lines = json.dumps(out).replace(', "', ',\n"').replace("}, ", "},\n")
pathlib.Path(__file__).with_suffix(".json").write_text(lines + "\n")
