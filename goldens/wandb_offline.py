"""Writes wandb_offline.wandb, an offline run of Weights & Biases, and wandb_offline.json, the values that were logged.

usage: wandb_offline.py        needs `pip install wandb`; no account, nothing is sent

Read by the tests of crates/logs/src/formats/wandb.rs.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

import wandb

FOLDER = Path(__file__).resolve().parent
CONFIG = {"lr": 1e-3, "batch_size": 8, "optimizer": {"name": "adamw", "betas": [0.9, 0.99]}, "note": "a b"}


def number(value):
    return float(value) if math.isfinite(value) else str(float(value))


def main():
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off", silent=True, host="host")
        run = wandb.init(mode="offline", project="golden", id="golden", dir=folder, config=CONFIG, settings=settings)

        def log(step, values):
            run.log(values, step=step)
            for name, value in values.items():
                if name == "nested":
                    name, value = "nested.a.b", value["a"]["b"]
                # None is no measurement; texts and media are none either.
                if isinstance(value, (bool, int, float)):
                    expected.setdefault(name, []).append([step, number(value)])

        for step in range(8):
            log(step, {
                "train/loss": 1 / (1 + step),
                "lr": 1e-3,
                "count": step,
                "flag": step % 2 == 0,
                "bad": math.nan if step == 3 else -math.inf if step == 4 else math.inf if step == 5 else 1.5,
                "nested": {"a": {"b": step / 2}},
                "none": None,
                "text": "x",
                "histogram": wandb.Histogram([1.0, 2.0, step]),
            })
            if step % 4 == 3:
                log(step, {"val/accuracy": 0.5 + step / 100})
        # Longer than a block of the file.
        log(20, {f"layer{at}/a name that is so long that there will be more than one block": at / 7 for at in range(75)})
        run.finish(exit_code=0)
        (file,) = Path(folder).rglob("*.wandb")
        shutil.copyfile(file, FOLDER / "wandb_offline.wandb")
    with open(FOLDER / "wandb_offline.json", "w") as file:
        json.dump({"config": CONFIG, "history": expected}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
