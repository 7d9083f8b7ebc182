"""Writes unet3d.json: logits and gradients of small 3-D U-Nets, in f64. Needs torch only. Run: python goldens/unet3d.py"""
import json, pathlib
import torch
import torch.nn as nn
import torch.nn.functional as F
from resnet3d import fill, gradients, summary
from unet2d import Lcg


class Block(nn.Module):
    def __init__(self, cin, cout, stride, n, affine, bias, slope):
        super().__init__()
        self.conv = nn.ModuleList([nn.Conv3d(cin if i == 0 else cout, cout, 3, stride if i == 0 else 1, 1, bias=bias) for i in range(n)])
        self.norm = nn.ModuleList([nn.InstanceNorm3d(cout, affine=affine) for _ in range(n)])
        self.slope = slope

    def forward(self, x):
        for conv, norm in zip(self.conv, self.norm):
            x = F.leaky_relu(norm(conv(x)), self.slope)
        return x


class UNet3d(nn.Module):
    def __init__(self, cin, cout, base, strides, cap, n, affine, bias, slope, strided, deep):
        super().__init__()
        depth = len(strides)
        w = [min(base * 2**i, cap) for i in range(depth + 1)]
        block = lambda i, o, s=1: Block(i, o, s, n, affine, bias, slope)
        self.encoder = nn.ModuleList([block(cin, w[0])] + [block(w[i], w[i + 1], tuple(s) if strided else 1) for i, s in enumerate(strides)])
        self.up = nn.ModuleList([nn.ConvTranspose3d(w[i + 1], w[i], tuple(s), tuple(s)) for i, s in enumerate(strides)])
        self.decoder = nn.ModuleList([block(2 * w[i], w[i]) for i in range(depth)])
        self.head = nn.Conv3d(w[0], cout, 1)
        self.deep = nn.ModuleList([nn.Conv3d(w[i + 1], cout, 1) for i in range(deep)])
        self.strides, self.strided = [tuple(s) for s in strides], strided

    def forward(self, x):
        levels = [self.encoder[0](x)]
        for s, block in zip(self.strides, list(self.encoder)[1:]):
            x = levels[-1]
            levels.append(block(x if self.strided else F.max_pool3d(x, s)))
        y, out = levels.pop(), []
        for i in reversed(range(len(levels))):
            y = self.decoder[i](torch.cat([levels[i], self.up[i](y)], 1))
            if i == 0:
                out.append(self.head(y))
            elif i <= len(self.deep):
                out.append(self.deep[i - 1](y))
        return out[::-1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    two = [2, 2, 2]
    cases = []
    for case in [
        # the report's network, and that of the hippocampus benchmark
        dict(input=1, output=1, base=2, strides=[two] * 3, cap=10**9, convolutions=2, affine=False, bias=True, slope=0.01, strided=False, deep=0, size=[16, 24, 16]),
        dict(input=1, output=3, base=3, strides=[two] * 3, cap=10**9, convolutions=2, affine=True, bias=True, slope=0.01, strided=False, deep=0, size=[16, 16, 24]),
        # thin volumes, as nnU-Net
        dict(input=2, output=2, base=2, strides=[[1, 2, 2], two, [1, 2, 2]], cap=6, convolutions=2, affine=True, bias=False, slope=0.01, strided=True, deep=2, size=[6, 24, 16]),
        dict(input=1, output=2, base=3, strides=[[1, 2, 2], two], cap=5, convolutions=1, affine=False, bias=False, slope=0.2, strided=False, deep=1, size=[4, 12, 8]),
    ]:
        c = dict(case)
        size = c.pop("size")
        net = fill(UNet3d(c["input"], c["output"], c["base"], c["strides"], c["cap"], c["convolutions"], c["affine"], c["bias"], c["slope"], c["strided"], c["deep"]).double(), 1)
        logits = net(Lcg(2).tensor(2, c["input"], *size))
        rng = Lcg(3)
        sum((z * rng.tensor(*z.shape)).sum() for z in logits).backward()
        cases.append(case | {"parameters": sum(p.numel() for p in net.parameters()), "logits": [summary(z) | {"shape": list(z.shape)} for z in logits], "gradients": gradients(net)})
    full = {str(d): sum(p.numel() for p in UNet3d(1, 1, 32, [two] * d, 10**9, 2, False, True, 0.01, False, 0).parameters()) for d in (4, 5)}
    text = json.dumps({"base_32": full, "cases": cases}).replace('{"input"', '\n{"input"')
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")
