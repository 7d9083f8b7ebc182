"""Python's side of the benchmark of reading logs: one JSON line a file, {"item", "bytes", "records", "seconds"}, and the
seconds of processor time, "cpu", which a busy machine does not change.

usage: logs_python.py generate FOLDER [--megabytes 1,10,100,500,2000]
       logs_python.py tensorboard FILE...      tensorboard's EventAccumulator, as event files are read in Python
       logs_python.py csv FILE...              pandas.read_csv

`generate` writes events-<MB>m/events.out.tfevents.* (scalars of 40 tags, half of version 1, half of version 2) and
metrics.csv (50 columns of numbers, 200,000 rows). Needs `pip install tensorboard pandas`.
"""

import argparse
import json
import struct
import sys
import time
from pathlib import Path

TAGS = 40


def table():
    """Of CRC-32C, by byte."""
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        entries.append(byte)
    return entries


TABLE = table()


def masked(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(event):
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", masked(length)) + event + struct.pack("<I", masked(event))


def varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def event(step, tag, value, version):
    if version == 1:
        content = b"\x15" + struct.pack("<f", value)
    else:
        plugin = field(9, field(1, field(1, b"scalars")) + b"\x20\x01")
        content = plugin + field(8, b"\x08\x01" + field(2, b"") + field(4, struct.pack("<f", value)))
    summary = field(1, field(1, tag.encode()) + content)
    return b"\x09" + struct.pack("<d", 1.7e9 + step * 0.25) + b"\x10" + varint(step) + field(5, summary)


def write_events(path, megabytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    limit, step = megabytes << 20, 0
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(record(b"\x09" + struct.pack("<d", 1.7e9) + field(3, b"brain.Event:2")))
        while file.tell() < limit:
            for at in range(TAGS):
                version = 1 if at < TAGS // 2 else 2
                tag = f"train/layer{at}/grad_norm" if at else "train/loss"
                file.write(record(event(step, tag, 1 / (1 + step % 1000) + at, version)))
            step += 1


def write_csv(path):
    import numpy as np

    rows, columns = 200_000, 50
    values = np.random.default_rng(0).standard_normal((rows, columns))
    with open(path, "w") as file:
        file.write("step," + ",".join(f"metric{at}" for at in range(columns - 1)) + "\n")
        for step, row in enumerate(values):
            file.write(f"{step}," + ",".join(map(repr, row[1:].tolist())) + "\n")


def read_events(path):
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    def go():
        events = accumulator.EventAccumulator(
            str(path), size_guidance={accumulator.SCALARS: 0, accumulator.TENSORS: 0})
        events.Reload()
        tags = events.Tags()
        scalars = sum(len(events.Scalars(tag)) for tag in tags["scalars"])
        return scalars + sum(len(events.Tensors(tag)) for tag in tags["tensors"])

    return go


def read_csv(path):
    import pandas

    return lambda: pandas.read_csv(path).size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["generate", "tensorboard", "csv"])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--megabytes", default="1,10,100,500,2000")
    arguments = parser.parse_args()
    if arguments.what == "generate":
        folder = arguments.paths[0]
        for megabytes in map(int, arguments.megabytes.split(",")):
            write_events(folder / f"events-{megabytes}m" / "events.out.tfevents.1700000000.host", megabytes)
        write_csv(folder / "metrics.csv")
        return
    for path in arguments.paths:
        go = (read_events if arguments.what == "tensorboard" else read_csv)(path)
        start, cpu = time.perf_counter(), time.process_time()
        records = go()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps({
            "item": arguments.what, "bytes": path.stat().st_size, "records": records, "seconds": seconds, "cpu": cpu}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
