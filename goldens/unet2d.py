"""The reference U-Net in PyTorch, with the parameter names of trimtab's checkpoints."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class DoubleConv(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout)
        self.conv2, self.norm2 = nn.Conv2d(cout, cout, 3, padding=1), nn.BatchNorm2d(cout)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class UNet2d(nn.Module):
    def __init__(self, cin=1, cout=1, base=64):
        super().__init__()
        width = [base * 2**i for i in range(5)]
        self.encoder = nn.ModuleList([DoubleConv(cin if i == 0 else width[i - 1], width[i]) for i in range(5)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(width[i + 1], width[i], 2, 2) for i in range(4)])
        self.decoder = nn.ModuleList([DoubleConv(width[i + 1], width[i]) for i in range(4)])
        self.head = nn.Conv2d(base, cout, 1)

    def forward(self, x):
        levels = [self.encoder[0](x)]
        for block in list(self.encoder)[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        y = levels.pop()
        for i in (3, 2, 1, 0):
            y = self.decoder[i](torch.cat([levels[i], self.up[i](y)], 1))
        return self.head(y)


class Lcg:
    """Uniform numbers in [-1, 1) that Rust makes alike: the upper 24 bits of a 64-bit LCG (Knuth's MMIX constants)."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 40) / 2**23 - 1.0

    def tensor(self, *shape):
        n = 1
        for s in shape:
            n *= s
        return torch.tensor([self.next() for _ in range(n)], dtype=torch.float64).reshape(shape)


def fill(net, seed):
    """Weights by name order: convolutions U(-1, 1)/sqrt(fan_in), norms' scale 1 + U/10, shifts U/10; buffers untouched."""
    rng = Lcg(seed)
    for name, p in sorted(net.named_parameters()):
        u = rng.tensor(*p.shape)
        if "norm" in name:
            value = u / 10 + (1.0 if name.endswith("weight") else 0.0)
        else:
            value = u / (p[0].numel() ** 0.5 if p.dim() > 1 else 10.0)
        p.data = value.to(p.dtype)


def task_loss(logits, target, valid, alpha=0.70, gamma=2.0, focal=0.7, dice=0.3, smooth=1.0):
    """0.7 focal + 0.3 Dice on valid pixels (system 000)."""
    p = torch.sigmoid(logits)
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    pt = p * target + (1 - p) * (1 - target)
    at = alpha * target + (1 - alpha) * (1 - target)
    n = valid.sum().clamp(min=1)
    fl = (at * (1 - pt) ** gamma * ce * valid).sum() / n
    dl = 1 - (2 * (p * target * valid).sum() + smooth) / ((p * valid).sum() + (target * valid).sum() + smooth)
    return focal * fl + dice * dl
