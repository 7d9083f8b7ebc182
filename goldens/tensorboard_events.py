"""Writes the event files in goldens/tensorboard_events/ and what TensorBoard itself reads in them.

usage: tensorboard_events.py        needs `pip install tensorboard torch`

torch/: PyTorch's SummaryWriter, with the folders that add_scalars and add_hparams make.
keras/: version 2 of scalars in train/ and validation/, as Keras writes them, with one dtype of tensors a tag in dtypes/.
Read by the tests of crates/logs/src/formats/tensorboard.rs.
"""

import json
import math
import shutil
import sys
from pathlib import Path
from unittest import mock

# Run as a script, this file's folder comes first on the path, where tensorboard.py would be taken for the package.
sys.path.pop(0)

import numpy as np  # noqa: E402
from tensorboard.backend.event_processing import event_accumulator  # noqa: E402
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2  # noqa: E402
from tensorboard.plugins.hparams import plugin_data_pb2, summary_v2  # noqa: E402
from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: E402
from tensorboard.util import tensor_util  # noqa: E402
from torch.utils.tensorboard import SummaryWriter  # noqa: E402

FOLDER = Path(__file__).resolve().parent / "tensorboard_events"
START = 1_700_000_000.0


def torch_run(folder):
    writer = SummaryWriter(str(folder))
    writer.add_text("args", json.dumps({"lr": 1e-3, "batch_size": 8, "amp": False}, indent=2), walltime=START)
    writer.add_text("notes", "|param|value|\n|-|-|\n|seed|3|\n|model|u_net|", walltime=START)
    for step in range(20):
        when = START + 0.5 * step
        writer.add_scalar("Loss/train", 1 / (1 + step), step, walltime=when)
        writer.add_scalar("lr", 1e-3 * 0.9**step, step, walltime=when)
        writer.add_scalar("grad_norm", math.nan if step == 7 else math.inf if step == 8 else 2.5, step, walltime=when)
        writer.add_scalar("epoch", step // 5, step, walltime=when)
        if step % 5 == 4:
            writer.add_scalars("Dice/mean", {"train": 0.5 + step / 100, "val": 0.4 + step / 100, "b": 0.1}, step, when)
            writer.add_histogram("weights", np.arange(8.0), step, walltime=when)
            writer.add_scalar("new/style", step * 2, step, walltime=when, new_style=True)
    writer.add_hparams({"lr": 1e-3, "layers": 4, "optimizer": "adamw", "nesterov": True}, {"Loss/train": 0.05},
                       run_name="1700000100.25")
    writer.close()


def event(writer, step, value=None, **fields):
    summary = None if value is None else summary_pb2.Summary(value=[value])
    writer.write(event_pb2.Event(wall_time=START + step, step=step, summary=summary, **fields).SerializeToString())


def scalar(tag, tensor, first, plugin="scalars"):
    metadata = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin), data_class=summary_pb2.DATA_CLASS_SCALAR
    )
    # Only the first event of a tag has them.
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata if first else None)


def make(value, dtype):
    """With the number in `tensor_content`, as TensorFlow writes it."""
    array = np.asarray(value, dtype=dtype)
    tensor = tensor_util.make_tensor_proto(array)
    for field in ("float_val", "double_val", "int_val", "int64_val", "bool_val", "half_val"):
        tensor.ClearField(field)
    tensor.tensor_content = array.tobytes()
    return tensor


def open_file(folder):
    folder.mkdir(parents=True)
    return open(folder / "events.out.tfevents.1700000000.host.1.v2", "wb")


def keras_run(folder):
    with open_file(folder / "train") as file:
        writer = RecordWriter(file)
        event(writer, 0, file_version="brain.Event:2")
        hparams = summary_v2.hparams_pb({"lr": 0.01, "layers": 4, "dropout": 0.25, "optimizer": "sgd", "amp": True})
        for value in hparams.value:
            event(writer, 0, value)
        graph = summary_pb2.SummaryMetadata.PluginData(plugin_name="graph_keras_model", content=b"1")
        model = tensor_util.make_tensor_proto('{"name": "model"}')
        event(writer, 0, summary_pb2.Summary.Value(
            tag="keras", tensor=model, metadata=summary_pb2.SummaryMetadata(plugin_data=graph)))
        for step in range(6):
            event(writer, step, scalar("epoch_loss", make(1 / (step + 1), np.float32), step == 0))
            event(writer, step, scalar("epoch_learning_rate", make(0.1, np.float32), step == 0))
    with open_file(folder / "validation") as file:
        writer = RecordWriter(file)
        event(writer, 0, file_version="brain.Event:2")
        for step in range(6):
            event(writer, step, scalar("epoch_loss", make(2 / (step + 1), np.float32), step == 0))
            event(writer, 100 * (step + 1),
                  scalar("evaluation_loss_vs_iterations", make(2 / (step + 1), np.float32), step == 0))
    with open_file(folder / "dtypes") as file:
        writer = RecordWriter(file)
        event(writer, 0, file_version="brain.Event:2")
        for step, value in enumerate([0, 1, 3, 100]):
            for dtype in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "bool"):
                array = np.asarray(value if dtype[0] in "ub" else -value, dtype=dtype)
                listed = tensor_util.make_tensor_proto(array)
                event(writer, step, scalar(f"listed/{dtype}", listed, step == 0))
                event(writer, step, scalar(f"content/{dtype}", make(array, dtype), step == 0))
            half = tensor_pb2.TensorProto(dtype=types_pb2.DT_BFLOAT16, half_val=[0x3FC0])
            event(writer, step, scalar("listed/bfloat16", half, step == 0))
            one = tensor_util.make_tensor_proto(np.full((1, 1), step, dtype=np.float32))
            event(writer, step, scalar("one", one, step == 0))
            row = tensor_util.make_tensor_proto(np.arange(3, dtype=np.float32))
            event(writer, step, scalar("row", row, step == 0))
            event(writer, step, scalar("curve", row, step == 0, plugin="pr_curves"))


def number(value):
    value = float(value)
    return value if math.isfinite(value) else str(value)


def read(folder):
    accumulator = event_accumulator.EventAccumulator(
        str(folder), size_guidance={event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0})
    accumulator.Reload()
    scalars = {tag: [[e.step, number(e.value)] for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
    hparams = {}
    for tag in accumulator.Tags()["tensors"]:
        plugin = accumulator.SummaryMetadata(tag).plugin_data
        if plugin.plugin_name == "scalars":
            # TensorBoard's bfloat16 needs TensorFlow: 0x3FC0 is 1.5.
            arrays = [(e.step, np.float64(1.5) if e.tensor_proto.dtype == types_pb2.DT_BFLOAT16
                       else tensor_util.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]
            if all(array.size == 1 for _, array in arrays):
                scalars[tag] = [[step, number(array.item())] for step, array in arrays]
        elif plugin.plugin_name == "hparams":
            start = plugin_data_pb2.HParamsPluginData.FromString(plugin.content).session_start_info
            for name, value in start.hparams.items():
                hparams[name] = getattr(value, value.WhichOneof("kind"))
    return {"scalars": scalars, "hparams": hparams}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    with mock.patch("time.time", lambda: START):
        torch_run(FOLDER / "torch")
    keras_run(FOLDER / "keras")
    expected = {}
    for file in sorted(FOLDER.rglob("*tfevents*")):
        # Without this machine's name.
        file.rename(file.with_name("events.out.tfevents.1700000000.host"))
        name = file.parent.relative_to(FOLDER).as_posix()
        expected[name] = read(file.parent)
    text = json.dumps(expected, indent=1)
    (FOLDER.parent / "tensorboard_events.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
