"""Prints the scalars that TensorBoard itself finds in a folder of event files, as JSON.

usage: tensorboard.py FOLDER        needs `pip install tensorboard`, not TensorFlow

Called by crates/signals/tests/tensorboard.rs.
"""

import json
import math
import sys

# Run as a script, this file's folder comes first on the path and the file itself would be imported.
sys.path.pop(0)

from tensorboard.backend.event_processing import event_accumulator  # noqa: E402


def main():
    accumulator = event_accumulator.EventAccumulator(
        sys.argv[1],
        size_guidance={event_accumulator.SCALARS: 0},  # 0 keeps every value
    )
    accumulator.Reload()
    result = {
        tag: [
            {
                "step": event.step,
                "wall_time": event.wall_time,
                "value": event.value if math.isfinite(event.value) else str(event.value),
            }
            for event in accumulator.Scalars(tag)
        ]
        for tag in accumulator.Tags()["scalars"]
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
