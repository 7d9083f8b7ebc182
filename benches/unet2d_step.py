"""PyTorch's side of `xtask bench`: prints the median milliseconds of a whole training step. Usage: BASE BATCH SIZE STEPS"""
import pathlib, statistics, sys, time
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "goldens"))
import torch
import torch.nn.functional as F
from unet2d import UNet2d

base, batch, size, steps = map(int, sys.argv[1:5])
torch.manual_seed(0)
net = UNet2d(1, 1, base)
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
x = torch.rand(batch, 1, size, size) * 2 - 1
y = (x > 0).float()
times = []
for step in range(steps + 1):
    start = time.perf_counter()
    opt.zero_grad(set_to_none=True)
    loss = F.binary_cross_entropy_with_logits(net(x), y)
    loss.backward()
    opt.step()
    loss.item()
    if step:
        times.append((time.perf_counter() - start) * 1e3)
print(statistics.median(times))
