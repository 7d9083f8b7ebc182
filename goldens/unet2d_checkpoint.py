"""Loads a checkpoint of trimtab into a PyTorch U-Net and compares outputs. Usage: unet2d_checkpoint.py FOLDER BASE

FOLDER holds model.safetensors, input.npy [b, 1, h, w] and output.npy (logits of the same shape). Prints the largest
difference; exits with 1 above 1e-4.
"""
import json, pathlib, struct, sys
import numpy as np
import torch
from unet2d import UNet2d

folder, base = pathlib.Path(sys.argv[1]), int(sys.argv[2])
raw = (folder / "model.safetensors").read_bytes()
(n,) = struct.unpack("<Q", raw[:8])
header = json.loads(raw[8 : 8 + n])
state = {}
for name, entry in header.items():
    if name != "__metadata__":
        a, b = entry["data_offsets"]
        state[name] = torch.tensor(np.frombuffer(raw[8 + n + a : 8 + n + b], "<f4").reshape(entry["shape"]))
net = UNet2d(1, 1, base)
for name in [k for k in net.state_dict() if k.endswith("num_batches_tracked")]:
    state[name] = torch.tensor(0)
net.load_state_dict(state, strict=True)
net.eval()
with torch.no_grad():
    out = net(torch.tensor(np.load(folder / "input.npy"))).numpy()
difference = float(np.abs(out - np.load(folder / "output.npy")).max())
print(f"largest difference {difference:.2e} over {out.size} logits of magnitude up to {np.abs(out).max():.2f}")
sys.exit(difference > 1e-4)
