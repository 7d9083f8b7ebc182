"""Writes pth.json and the checkpoints pth_zip.pth and pth_legacy.pth of one small ResNet-10, as torch.save writes them now and
as it did before 1.6, in the manner of MedicalNet's: below `state_dict`, names beginning with `module.`, no classifier.

All weights are multiples of 1/128, so that every type of the second file holds them exactly: f64, f16 and bf16 in turn.
Needs torch only. Run: python goldens/pth.py, or, for files of full size in FOLDER: python goldens/pth.py FOLDER
"""
import json, pathlib, sys
import torch
from resnet3d import ResNet3d, fill
from unet2d import Lcg


def save(folder, prefix, net, x, mixed):
    net.eval()
    with torch.no_grad():
        expected = net.features(x).flatten().tolist()
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    kinds = [torch.float64, torch.float16, torch.bfloat16] if mixed else [torch.float32]
    floats = [k for k, v in state.items() if v.is_floating_point()]
    old = dict(state) | {k: state[k].to(kinds[i % len(kinds)]) for i, k in enumerate(floats)}
    rest = {"epoch": 3, "best_acc": 0.5, "arch": "resnet10"}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save(rest | {"state_dict": state, "optimizer": optimizer}, folder / f"{prefix}_zip.pth")
    torch.save(rest | {"state_dict": old, "optimizer": optimizer}, folder / f"{prefix}_legacy.pth", _use_new_zipfile_serialization=False)
    (folder / f"{prefix}.json").write_text(json.dumps({"size": list(x.shape[2:]), "features": expected, "tensors": len(floats)}) + "\n")


torch.set_num_threads(1)
if len(sys.argv) > 1:
    torch.manual_seed(0)
    net = ResNet3d(50, 1, 2, head=False)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    save(pathlib.Path(sys.argv[1]), "resnet50", net, Lcg(2).tensor(1, 1, 24, 32, 16).float(), False)
else:
    net = fill(ResNet3d(10, 1, 2, 2, head=False), 5)
    for value in net.state_dict().values():
        if value.is_floating_point():
            # those of the norms lie around 1: one bit less
            step = 64 if value.dim() == 1 else 128
            value.copy_((value * step).round() / step)
    save(pathlib.Path(__file__).parent, "pth", net, Lcg(2).tensor(2, 1, 24, 32, 16).float(), True)
