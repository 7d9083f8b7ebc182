"""Reference values for the classifier metrics of crates/metrics.  Writes classification_metrics.json beside this file.

Needs: numpy scikit-learn.

Probabilities are stored as the bits of their float32, in hexadecimal. The calibration error is not scikit-learn's: it
is computed here as Guo et al. 2017 define it.
"""

import json
import pathlib
import warnings

import numpy as np
import sklearn
from sklearn import metrics

warnings.simplefilter("ignore")


def calibration_error(labels, probabilities, bins=15):
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in zip(edges, edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def number(value):
    return None if np.isnan(value) else float(value)


def auc(truth, score):
    return metrics.roc_auc_score(truth, score) if 0 < truth.sum() < len(truth) else np.nan


def case(name, labels, logits, round_to=None):
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    if round_to:
        p = np.round(p * round_to) / round_to
        p[:, 0] = 1 - p[:, 1:].sum(1)
    p = np.clip(p, 0, 1).astype(np.float32)
    classes = p.shape[1]
    every = list(range(classes))
    predicted = p.argmax(1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    aucs = [auc(labels == k, p[:, k]) for k in every]
    defined = [v for v in aucs if not np.isnan(v)]
    if classes == 2:
        whole = aucs[1]
    elif len(defined) == classes:
        # float64 and normalised again: scikit-learn insists on rows of sum 1.
        whole = metrics.roc_auc_score(labels, p.astype(np.float64) / p.sum(1, keepdims=True, dtype=np.float64),
                                      multi_class="ovr", average="macro", labels=every)
        assert abs(whole - np.mean(aucs)) < 1e-3
        whole = np.mean(aucs)
    else:
        whole = np.mean(defined) if defined else np.nan
    return {
        "name": name,
        "classes": classes,
        "probabilities": p.astype(">f4").tobytes().hex(),
        "labels": labels.tolist(),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=every).tolist(),
        "accuracy": number(metrics.accuracy_score(labels, predicted)),
        "balanced_accuracy": number(metrics.balanced_accuracy_score(labels, predicted)),
        "precision": [number(v) for v in precision],
        "recall": [number(v) for v in recall],
        "per_class_f1": [number(v) for v in f1],
        "support": [int(v) for v in support],
        "aucs": [number(v) for v in aucs],
        "auc": number(whole),
        "f1": number(metrics.f1_score(labels, predicted, zero_division=0)) if classes == 2 else None,
        "macro_f1": number(metrics.f1_score(labels, predicted, labels=every, average="macro", zero_division=0)),
        "log_loss": number(metrics.log_loss(labels, p, labels=every)),
        "calibration_error": number(calibration_error(labels, p)),
    }


def cases():
    rng = np.random.default_rng(15)

    def drawn(n, shares, strength):
        labels = rng.choice(len(shares), n, p=shares)
        logits = rng.standard_normal((n, len(shares)))
        logits[np.arange(n), labels] += strength
        return labels, logits

    yield "two balanced", *drawn(60, (0.5, 0.5), 1.5)
    yield "two imbalanced", *drawn(80, (0.92, 0.08), 1.0)
    yield "two at chance", *drawn(60, (0.7, 0.3), 0.0)
    yield "two with ties", *drawn(60, (0.6, 0.4), 1.0), 8
    yield "two saturated", *(lambda l, z: (l, 60 * z))(*drawn(40, (0.5, 0.5), 1.0))
    yield "three", *drawn(60, (0.2, 0.3, 0.5), 1.0)
    yield "three with ties", *drawn(60, (0.2, 0.3, 0.5), 1.0), 4
    yield "five imbalanced", *drawn(100, (0.6, 0.2, 0.1, 0.06, 0.04), 1.2)
    labels, logits = drawn(40, (0.5, 0.5, 0.0), 1.0)
    yield "a class never labelled", labels, logits
    yield "one class alone", np.zeros(12, int), rng.standard_normal((12, 2))
    yield "one case", np.ones(1, int), rng.standard_normal((1, 2))
    yield "always the majority", rng.choice(2, 30, p=(0.8, 0.2)), np.tile([1.4, 0.0], (30, 1))


def main():
    made_by = f"goldens/classification_metrics.py, scikit-learn {sklearn.__version__}, numpy {np.__version__}"
    lines = ",\n  ".join(json.dumps(case(*c)) for c in cases())
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(f'{{\n "made_by": "{made_by}",\n "cases": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
