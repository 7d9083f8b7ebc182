"""Reference values for crates/metrics, from scikit-learn.  Writes metrics.json beside this file.

The inputs are not stored. Both sides draw them from the same 64-bit linear congruential generator
(Knuth's MMIX constants, top 24 bits as a float in [0, 1)) and shape them with +, *, / in double
precision only, which IEEE 754 rounds identically everywhere; a checksum of the bits guards it.

    for each sample:  u = draw(); v = draw()
                      label = 1 if u < prevalence else 0
                      probability = float32(shape(v, label))
"""

import json
import pathlib
import warnings

import numpy as np
import sklearn
from sklearn import metrics

SAMPLES = 20_000
MASK = (1 << 64) - 1


def generator(seed):
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        yield (state >> 40) / 16777216.0


def logit(v, label):
    """A sigmoid-like bend without transcendental functions."""
    x = (v + 0.25 * label) / 1.25
    a = x * x * x * x
    y = 1.0 - x
    b = y * y * y * y
    return a / (a + b)


SHAPES = {
    # name: probability from (v, label)
    "informative": logit,
    "weak": lambda v, label: (v + 0.05 * label) / 1.05,
    "chance": lambda v, label: v,
    "constant": lambda v, label: 0.25,
    "ties": lambda v, label: np.floor(logit(v, label) * 8.0) / 8.0,
    "perfect": lambda v, label: 0.5 + 0.5 * v if label else 0.499 * v,
    "inverted": lambda v, label: 1.0 - logit(v, label),
    # Everything within 1e-6 of 0, ranked as "informative".
    "near_zero": lambda v, label: logit(v, label) * 1e-6,
    # Everything within 1e-5 of 1: few distinct float32 are left, so there are real ties.
    "near_one": lambda v, label: 1.0 - logit(v, 1 - label) * 1e-5,
    # A network that answers the prevalence everywhere, with a little information in the digits.
    "narrow": lambda v, label: 0.33 + 0.002 * (v + 0.25 * label),
    # float32 saturation: most values are exactly 0 or 1.
    "saturated": lambda v, label: min(1.0, max(0.0, 3.0 * logit(v, label) - 1.0)),
}

CASES = [
    ("informative", 0.33),
    ("informative", 0.01),
    ("informative", 0.999),
    ("weak", 0.33),
    ("chance", 0.33),
    ("constant", 0.33),
    ("ties", 0.33),
    ("perfect", 0.33),
    ("inverted", 0.33),
    ("near_zero", 0.33),
    ("near_zero", 0.01),
    ("near_one", 0.33),
    ("near_one", 0.999),
    ("narrow", 0.33),
    ("saturated", 0.33),
    ("informative", 0.0),
    ("informative", 1.0),
]


def best_f1(labels, probabilities):
    precision, recall, _ = metrics.precision_recall_curve(labels, probabilities)
    total = precision + recall
    return float(np.max(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)))


def case(index, shape, prevalence):
    draw = generator(index + 1)
    labels = np.empty(SAMPLES, np.int8)
    probabilities = np.empty(SAMPLES, np.float32)
    for i in range(SAMPLES):
        u, v = next(draw), next(draw)
        labels[i] = u < prevalence
        probabilities[i] = np.float32(SHAPES[shape](v, int(labels[i])))
    predicted = (probabilities > 0.5).astype(np.int8)
    both = 0 < labels.sum() < SAMPLES
    positive = labels.sum() > 0
    checksum = 0
    for bits, label in zip(probabilities.view(np.uint32).tolist(), labels.tolist()):
        checksum = (checksum * 31 + 2 * bits + label) & MASK
    return {
        "shape": shape,
        "prevalence": prevalence,
        "seed": index + 1,
        "checksum": f"{checksum:016x}",
        # null where undefined; scikit-learn itself warns and returns NaN or 0 there.
        "auc": float(metrics.roc_auc_score(labels, probabilities)) if both else None,
        "average_precision": float(metrics.average_precision_score(labels, probabilities)) if positive else None,
        "best_f1": best_f1(labels, probabilities) if positive else 0.0,
        "f1": float(metrics.f1_score(labels, predicted, zero_division=0)),
        "precision": float(metrics.precision_score(labels, predicted, zero_division=0)),
        "recall": float(metrics.recall_score(labels, predicted, zero_division=0)),
        "iou": float(metrics.jaccard_score(labels, predicted, zero_division=0)),
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "mean_probability": float(np.mean(probabilities, dtype=np.float64)),
        "positive_rate": float(np.mean(predicted, dtype=np.float64)),
        "measured_prevalence": float(np.mean(labels, dtype=np.float64)),
    }


def main():
    warnings.simplefilter("error")
    result = {
        "made_by": f"goldens/metrics.py, scikit-learn {sklearn.__version__}, numpy {np.__version__}",
        "samples": SAMPLES,
        "cases": [case(i, shape, prevalence) for i, (shape, prevalence) in enumerate(CASES)],
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
