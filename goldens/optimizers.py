"""Writes optimizers.json: 20 updates by torch.optim of a small convolution and bias, and ReduceLROnPlateau, in f64.

The gradients are of a fixed loss of the parameters, so that errors would grow. Needs torch only. Run: python goldens/optimizers.py
"""
import json, pathlib, math
import torch
from unet2d import Lcg

torch.set_num_threads(1)
cases = {
    "adam": (torch.optim.Adam, dict(lr=3e-2)),
    "adam decay": (torch.optim.Adam, dict(lr=3e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(lr=3e-2, weight_decay=0.1)),
    "sgd": (torch.optim.SGD, dict(lr=3e-2)),
    "sgd momentum": (torch.optim.SGD, dict(lr=3e-2, momentum=0.9, weight_decay=0.1)),
    "sgd dampening": (torch.optim.SGD, dict(lr=3e-2, momentum=0.9, dampening=0.4)),
    "sgd nesterov": (torch.optim.SGD, dict(lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)),
}
out = {"updates": {}, "plateau": []}
for name, (make, constants) in cases.items():
    rng = Lcg(1)
    bias, weight = (torch.nn.Parameter(rng.tensor(n)) for n in (3, 162))
    # the bias learns ten times faster
    optimizer = make([{"params": [weight]}, {"params": [bias], "lr": 10 * constants["lr"]}], **constants)
    after = []
    for _ in range(20):
        optimizer.zero_grad()
        # d/dp of this is what the test computes: sin(3 p) + p / 2
        sum((-torch.cos(3 * p) / 3 + p * p / 4).sum() for p in (weight, bias)).backward()
        optimizer.step()
        after.append([weight.detach().norm().item(), *bias.tolist()])
    out["updates"][name] = {"constants": constants, "after": after}

for mode, factor, patience, threshold, least in [("max", 0.5, 3, 1e-4, 0.0), ("max", 0.1, 0, 0.05, 1e-3), ("min", 0.5, 2, 1e-4, 1e-5)]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor, patience, threshold, min_lr=least)
    rng, metrics, rates = Lcg(4), [], []
    for i in range(60):
        metric = (1 - math.exp(-i / 6)) * 0.8 + 0.05 * rng.next()
        metric = metric if mode == "max" else 1 - metric
        plateau.step(metric)
        metrics.append(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    out["plateau"].append({"mode": mode, "factor": factor, "patience": patience, "threshold": threshold, "min": least, "metrics": metrics, "rates": rates})
text = json.dumps(out).replace('"constants"', '\n"constants"').replace('{"mode"', '\n{"mode"')
pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")
