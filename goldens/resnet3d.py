"""Writes resnet3d.json: logits, gradients and running statistics of small 3-D residual networks, in f64.

The network is written after the description in the paper of MedicalNet (Chen et al. 2019) with its parameter names. Needs
torch only. Run: python goldens/resnet3d.py
"""
import json, pathlib
import torch
import torch.nn as nn
import torch.nn.functional as F
from unet2d import Lcg

BLOCKS = {10: ([1, 1, 1, 1], False), 18: ([2, 2, 2, 2], False), 34: ([3, 4, 6, 3], False), 50: ([3, 4, 6, 3], True), 101: ([3, 4, 23, 3], True)}


def conv(cin, cout, k, stride=1, dilation=1):
    return nn.Conv3d(cin, cout, k, stride, dilation * (k // 2), dilation, bias=False)


class Block(nn.Module):
    def __init__(self, cin, width, stride, dilation, bottleneck):
        super().__init__()
        self.out = width * 4 if bottleneck else width
        if bottleneck:
            self.conv1, self.conv2, self.conv3 = conv(cin, width, 1), conv(width, width, 3, stride, dilation), conv(width, self.out, 1)
            self.bn3 = nn.BatchNorm3d(self.out)
        else:
            self.conv1, self.conv2 = conv(cin, width, 3, stride, dilation), conv(width, width, 3, 1, dilation)
        self.bottleneck = bottleneck
        self.bn1, self.bn2 = nn.BatchNorm3d(width), nn.BatchNorm3d(width)
        if stride != 1 or cin != self.out:
            self.downsample = nn.Sequential(conv(cin, self.out, 1, stride), nn.BatchNorm3d(self.out))
        else:
            self.downsample = None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(F.relu(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Cosine(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cin, cout))

    def forward(self, x):
        return F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)


class ResNet3d(nn.Module):
    def __init__(self, depth, cin, classes, width=64, dilated=True, cosine=False, head=True):
        super().__init__()
        counts, bottleneck = BLOCKS[depth]
        self.conv1, self.bn1 = nn.Conv3d(cin, width, 7, 2, 3, bias=False), nn.BatchNorm3d(width)
        now = width
        for i, count in enumerate(counts):
            stride, dilation = (1, 1) if i == 0 else (1, (2, 4)[i - 2]) if dilated and i >= 2 else (2, 1)
            blocks = []
            for b in range(count):
                blocks.append(Block(now, width << i, stride if b == 0 else 1, dilation, bottleneck))
                now = blocks[-1].out
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        if head and cosine:
            self.cosine = Cosine(now, classes)
        elif head:
            self.fc = nn.Linear(now, classes)

    def features(self, x):
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3, 4))

    def forward(self, x):
        return (self.cosine if hasattr(self, "cosine") else self.fc)(self.features(x))


def fill(net, seed):
    """By name order: vectors U/10, around 1 for scales and running variances; weights U/sqrt(numbers of an output)."""
    rng = Lcg(seed)
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    for name, p in sorted(state.items()):
        u = rng.tensor(*p.shape)
        if p.dim() == 1:
            value = u / 10 + (1.0 if name.endswith(("weight", "running_var")) else 0.0)
        else:
            value = u / (p[0].numel() ** 0.5)
        p.copy_(value)
    return net


def summary(t):
    t = t.detach().double().flatten()
    return {"norm": t.norm().item(), "first": t[:3].tolist()}


def gradients(net):
    return {k: summary(p.grad) for k, p in net.named_parameters()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = []
    for depth, cin, classes, width, dilated, cosine, size in [
        (10, 1, 2, 2, False, False, [32, 32, 32]),
        (18, 2, 3, 2, True, True, [24, 32, 17]),
        (50, 1, 2, 2, True, True, [16, 24, 32]),
        (34, 4, 2, 2, False, False, [48, 40, 64]),
    ]:
        net = fill(ResNet3d(depth, cin, classes, width, dilated, cosine).double(), 1)
        x = Lcg(2).tensor(2, cin, *size)
        net.eval()
        with torch.no_grad():
            evaluated = net(x)
        net.train()
        trained = net(x)
        weights = Lcg(3).tensor(*trained.shape)
        (trained * weights).sum().backward()
        last = f"layer4.{BLOCKS[depth][0][3] - 1}.bn2"
        cases.append({
            "depth": depth, "input": cin, "classes": classes, "width": width, "dilated": dilated, "cosine": cosine, "size": size,
            "eval": evaluated.flatten().tolist(), "train": trained.flatten().tolist(), "gradients": gradients(net),
            "running": {k: v.flatten().tolist() for k, v in net.state_dict().items() if k.startswith(last + ".running") or k == "bn1.running_var"},
        })
    backbones = {str(d): sum(p.numel() for p in ResNet3d(d, 1, 2, head=False).parameters()) for d in BLOCKS}
    text = json.dumps({"backbones": backbones, "cases": cases}).replace('{"depth"', '\n{"depth"')
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")
