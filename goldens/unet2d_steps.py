"""Writes unet2d_steps.json: 20 steps of AdamW with clipping on a U-Net of base 4, from PyTorch.

Weights, images and labels come from the LCG of unet2d.py, which the Rust test repeats. Run: python goldens/unet2d_steps.py
"""
import json, pathlib
import torch
from unet2d import Lcg, UNet2d, fill, task_loss

torch.set_num_threads(1)
out = {}
for dtype in (torch.float32, torch.float64):
    net = UNet2d(1, 1, 4)
    fill(net, 1)
    net.to(dtype)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    rng = Lcg(2)
    losses, norms = [], []
    for _ in range(20):
        x = rng.tensor(2, 1, 32, 32).to(dtype)
        # -1 ignored, 0 and 1: a smooth function of the image, so that there is something to learn
        s = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
        y = (s > 0.05).to(dtype)
        valid = (s.abs() > 0.01).to(dtype)
        loss = task_loss(net(x), y * valid, valid)
        opt.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05).item())
        opt.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        z = net(Lcg(3).tensor(1, 1, 32, 48).to(dtype)).flatten()
    out[str(dtype).split(".")[1]] = {"loss": losses, "gradient_norm": norms, "eval_mean": z.mean().item(), "eval_first": z[:8].tolist()}
    out["parameters"] = sum(p.numel() for p in net.parameters())
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out, indent=1) + "\n")
