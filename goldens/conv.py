"""Writes conv.json: convolutions and transposed ones with gradients, from PyTorch in f64. Run: python goldens/conv.py"""
import json, pathlib
import torch
import torch.nn.functional as F

torch.manual_seed(0)


def three(v, dimensions, fill):
    v = [v] * dimensions if isinstance(v, int) else list(v)
    return [fill] * (3 - dimensions) + v


def case(kind, batch, channels, size, kernel, stride=1, padding=0, dilation=1, groups=1, output_padding=0):
    """One case, numbers multiples of 1/4. `input` and `size` are the larger side's: of a transposed one, what it writes."""
    n = len(size)
    quarters = lambda *shape: (torch.randint(-12, 13, shape) / 4).double().requires_grad_(True)
    x = quarters(batch, channels[0], *size)
    bias = quarters(channels[1])
    if kind == "conv":
        weight = quarters(channels[1], channels[0] // groups, *kernel)
        y = getattr(F, f"conv{n}d")(x, weight, bias, stride, padding, dilation, groups)
        (input, output), larger = channels, x
    else:
        weight = quarters(channels[0], channels[1] // groups, *kernel)
        y = getattr(F, f"conv_transpose{n}d")(x, weight, bias, stride, padding, output_padding, groups, dilation)
        (output, input), larger = channels, y
    dy = quarters(*y.shape)
    y.backward(dy)
    flat = lambda t: t.detach().flatten().tolist()
    geometry = {"batch": batch, "input": input, "output": output, "groups": groups, "size": three(larger.shape[2:], n, 1)}
    geometry |= {"kernel": three(kernel, n, 1), "stride": three(stride, n, 1), "padding": three(padding, n, 0)}
    geometry |= {"dilation": three(dilation, n, 1)}
    tensors = {"x": x, "weight": weight, "bias": bias, "y": y, "dy": dy}
    tensors |= {"dx": x.grad, "dweight": weight.grad, "dbias": bias.grad}
    return {"kind": kind, **geometry, **{name: flat(t) for name, t in tensors.items()}}


cases = [
    case("conv", 2, (3, 2), (11,), (3,), stride=2, padding=1),
    case("conv", 1, (4, 6), (13,), (4,), padding=3, dilation=3, groups=2),
    case("conv", 2, (2, 3), (5, 6), (3, 3), padding=1),
    case("conv", 1, (4, 2), (7, 8), (2, 3), stride=(3, 2), padding=(2, 0), dilation=(1, 2), groups=2),
    case("conv", 1, (3, 6), (6, 5), (5, 5), padding=2, groups=3),
    case("conv", 1, (2, 2), (4, 5, 6), (3, 2, 3), stride=(1, 2, 2), padding=(1, 0, 1)),
    case("conv", 1, (2, 4), (5, 4, 5), (2, 2, 2), padding=1, dilation=(2, 1, 3), groups=2),
    case("transposed", 2, (2, 3), (5,), (4,), stride=3, padding=1, output_padding=2),
    case("transposed", 1, (3, 2), (4, 3), (2, 2), stride=2),
    case("transposed", 1, (4, 6), (4, 3), (3, 3), stride=2, padding=1, output_padding=1, groups=2),
    case("transposed", 1, (2, 2), (3, 4), (2, 3), stride=(4, 1), padding=(0, 2), dilation=(1, 2), output_padding=(3, 0)),
    case("transposed", 1, (2, 2), (2, 3, 2), (3, 3, 3), stride=2, padding=1, output_padding=(1, 0, 1)),
    case("transposed", 1, (2, 2), (3, 2, 3), (2, 1, 2), stride=(1, 3, 2), dilation=(2, 1, 3), output_padding=(0, 2, 1)),
]
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(cases).replace("}, {", "},\n{") + "\n")
