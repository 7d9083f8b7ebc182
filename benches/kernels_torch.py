"""PyTorch's side of the kernels' benchmark: one JSON line an item, and at last the peak of resident memory, in all and
beyond what importing PyTorch takes.

Usage: python benches/kernels_torch.py ITEMS [--cl] [--threads N] [--steps N]

ITEMS, separated by commas; for the memory of one, ask for it alone.
  a  3x3 convolution, 64 channels, [4, 64, 128, 128]        b  3x3x3 convolution, 32 channels, [1, 32, 48, 48, 48]
  f  depthwise 7x7, [4, 96, 64, 64]                         g  1x1 convolution, 256 channels, [4, 256, 64, 64]
  h  3x3 of dilation 4, 128 channels, [2, 128, 64, 64]      c  product of two 1024 x 1024 matrices
  d  training step, U-Net 2-D, base 16, [4, 1, 128, 128]    U  the same, base 64, [1, 1, 256, 256]
  e  training step, U-Net 3-D, base 8, [1, 1, 48, 48, 48]   E  the same, batch 2
  X  training step, three blocks of EdgeNeXt, [8, 96, 56, 56]
  R  training step, stem and four bottlenecks of a dilated ResNet, [4, 3, 224, 224]
  unet2d:BASE:BATCH:SIZE  training step, U-Net 2-D
--cl      channels_last memory format
--steps   timed repetitions, after three that are not (U: two); default 9 (U: 3)
"""
import argparse, json, re, statistics, time
import torch
import torch.nn as nn
import torch.nn.functional as F

CONVOLUTIONS = {
    "a": (lambda: nn.Conv2d(64, 64, 3, padding=1), (4, 64, 128, 128)),
    "b": (lambda: nn.Conv3d(32, 32, 3, padding=1), (1, 32, 48, 48, 48)),
    "f": (lambda: nn.Conv2d(96, 96, 7, padding=3, groups=96), (4, 96, 64, 64)),
    "g": (lambda: nn.Conv2d(256, 256, 1), (4, 256, 64, 64)),
    "h": (lambda: nn.Conv2d(128, 128, 3, padding=4, dilation=4), (2, 128, 64, 64)),
}


class UNet(nn.Module):
    """Two convolutions of 3 a level, each with norm and ReLU; batch norm in 2-D, instance norm (affine) in 3-D."""

    def __init__(self, dims, base, depth):
        super().__init__()
        conv, transposed = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        norm = nn.BatchNorm2d if dims == 2 else lambda c: nn.GroupNorm(c, c)
        self.pool = F.max_pool2d if dims == 2 else F.max_pool3d

        def double(cin, cout):
            parts = []
            for c in (cin, cout):
                parts += [conv(c, cout, 3, padding=1), norm(cout), nn.ReLU()]
            return nn.Sequential(*parts)

        width = [base * 2**i for i in range(depth + 1)]
        self.encoder = nn.ModuleList(double(i, o) for i, o in zip([1] + width, width))
        self.up = nn.ModuleList(transposed(2 * c, c, 2, stride=2) for c in width[:-1])
        self.decoder = nn.ModuleList(double(2 * c, c) for c in width[:-1])
        self.head = conv(base, 1, 1)

    def forward(self, x):
        levels = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            levels.append(block(self.pool(levels[-1], 2)))
        y = levels.pop()
        for skip, up, block in reversed(list(zip(levels, self.up, self.decoder))):
            y = block(torch.cat([skip, up(y)], 1))
        return self.head(y)


class EdgeNextBlock(nn.Module):
    """The convolutional encoder of EdgeNeXt, Maaz et al. 2022, https://arxiv.org/abs/2206.10589 (a ConvNeXt block)."""

    def __init__(self, channels, kernel):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x):
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.narrow(F.gelu(self.widen(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class Bottleneck(nn.Module):
    """He et al. 2015, https://arxiv.org/abs/1512.03385, the stride at the 3x3 convolution."""

    def __init__(self, cin, width, stride=1, dilation=1):
        super().__init__()
        cout = 4 * width
        self.main = nn.Sequential(
            nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, cout, 1, bias=False), nn.BatchNorm2d(cout),
        )
        self.shortcut = nn.Sequential()
        if cin != cout or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        return F.relu(self.main(x) + self.shortcut(x))


def dilated_resnet():
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Bottleneck(64, 64), Bottleneck(256, 128, stride=2), Bottleneck(512, 128, dilation=2), Bottleneck(512, 128, dilation=4),
    )


def waves(batch, size, dims):
    """Images of smooth waves under noise, and where the waves are positive."""
    axes = torch.meshgrid([torch.arange(size) / size] * dims, indexing="ij")
    clean = torch.ones(batch, 1, *[size] * dims)
    for n in range(batch):
        for i, axis in enumerate(axes):
            clean[n, 0] *= torch.sin(2 * torch.pi * (1.5 + 0.5 * i) * axis + 0.7 * n + 0.3 * i)
    return clean + torch.rand_like(clean) - 0.5, (clean > 0).float()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items")
    parser.add_argument("--cl", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    def peak():
        # Not ru_maxrss: that begins with what the parent had when it forked.
        status = open("/proc/self/status").read()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024

    imported = peak()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    def layout(thing):
        """To channels_last where that was asked for; of modules, the convolutions' weights."""
        if not args.cl:
            return thing
        if isinstance(thing, nn.Module):
            dims = 3 if any(isinstance(m, nn.Conv3d) for m in thing.modules()) else 2
        else:
            dims = thing.dim() - 2
        return thing.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)

    def measure(item, call, warm=3, steps=9):
        times = []
        for step in range(-warm, args.steps or steps):
            start = time.perf_counter()
            call()
            if step >= 0:
                times.append((time.perf_counter() - start) * 1e3)
        result = {
            "item": item, "median_ms": round(statistics.median(times), 3), "min_ms": round(min(times), 3),
            "max_ms": round(max(times), 3), "n": len(times), "layout": "channels_last" if args.cl else "contiguous",
        }
        print(json.dumps(result), flush=True)

    def convolution(item, make, shape):
        conv, x = layout(make()), layout(torch.randn(shape))
        g = layout(torch.randn_like(conv(x)))

        def forward():
            with torch.no_grad():
                conv(x)

        def both():
            conv.zero_grad(set_to_none=True)
            x.grad = None
            (conv(x) * g).sum().backward()

        measure(f"{item}_fwd", forward)
        x.requires_grad_(True)
        measure(f"{item}_fwdbwd", both)

    def training(item, net, x, loss_of, **repetitions):
        net, x = layout(net), layout(x)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(net(x))
            loss.backward()
            optimizer.step()
            return loss.item()

        measure(item, step, **repetitions)

    def unet(item, net, batch, size, dims, **repetitions):
        x, target = waves(batch, size, dims)
        training(item, net, x, lambda y: F.binary_cross_entropy_with_logits(y, target), **repetitions)

    def against_noise(item, net, x):
        with torch.no_grad():
            g = layout(torch.randn_like(net(x)))
        training(item, net, x, lambda y: (y * g).mean())

    for item in args.items.split(","):
        match item:
            case "a" | "b" | "f" | "g" | "h":
                convolution(item, *CONVOLUTIONS[item])
            case "c":
                left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
                measure(item, lambda: left @ right)
            case "d":
                unet(item, UNet(2, 16, 4), 4, 128, 2)
            case "U":
                unet(item, UNet(2, 64, 4), 1, 256, 2, warm=2, steps=3)
            case "e" | "E":
                unet(item, UNet(3, 8, 3), 1 if item == "e" else 2, 48, 3)
            case "X":
                against_noise(item, nn.Sequential(*[EdgeNextBlock(96, k) for k in (3, 7, 9)]), torch.randn(8, 96, 56, 56))
            case "R":
                against_noise(item, dilated_resnet(), torch.randn(4, 3, 224, 224))
            case _ if item.startswith("unet2d:"):
                base, batch, size = map(int, item.split(":")[1:])
                unet(item, UNet(2, base, 4), batch, size, 2, warm=2)
            case _:
                parser.error(f"no such item: {item}")
    print(json.dumps({"item": "peak_rss", "mb": round(peak()), "imported_mb": round(imported)}), flush=True)


main()
