"""Writes optimizer.json: parameters after 1, 2 and 5 updates by torch.optim, in f64. Run: python goldens/optimizer.py"""
import json, pathlib
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
N, UPDATES = 37, 5
start = torch.randn(N)
gradients = torch.randn(UPDATES, N) * torch.logspace(-4, 3, N)
gradients[:, 0] = 0.0

cases = {
    "adamw/0.9/0.999/1e-8/0.01/1e-3": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01),
    "adamw/0.5/0.9/1e-3/0/0.1": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.0),
    "sgd/0/0/0/0/0.1": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd/0.9/0/0/1e-2/0.1": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "sgd/0.9/0.3/0/0/0.01": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.3),
    "sgd/0.8/0/1/1e-3/0.01": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8, nesterov=True, weight_decay=1e-3),
}
out = {"start": start.tolist(), "gradients": gradients.tolist(), "cases": {}}
for name, make in cases.items():
    parameter = torch.nn.Parameter(start.double())
    optimizer = make([parameter])
    after = out["cases"][name] = {}
    for update in range(UPDATES):
        parameter.grad = gradients[update].double()
        optimizer.step()
        if update + 1 in (1, 2, 5):
            after[str(update + 1)] = parameter.tolist()
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out).replace("}, {", "},\n{") + "\n")
