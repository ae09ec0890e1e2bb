"""Linear probes of one layer: fit, held-out scores, and the direction in activation space."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from otoscope.errors import OptionError
from otoscope.files import atomic_write
from otoscope.machine import numpy_on_one_thread
from otoscope.text_values import object_of

Kind = Literal["categorical", "numeric"]

STRENGTH = 0.01
"""Inverse regularisation `C` of the logistic regression on standardised activations."""

_RIDGE = 0.01  # penalty of the ridge regression, an item

_LARGEST = 1e100  # its square is still a number

_LARGE = (
    2**24
)  # numbers from which on a product is worth more than one thread; on two cores 11 million were not

_TOLERANCE = 1e-6  # of the gradient, at which probabilities are those of the optimum to four digits


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe, in the units of the activations themselves.

    Attributes:
        weight: `(class, d)`; of two classes one row, towards the second; of a numeric label one row.
        bias: `(class,)`.
        classes: Class names in order; empty for a numeric label.
    """

    weight: np.ndarray
    bias: np.ndarray
    classes: tuple[str, ...] = ()

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Log-odds `(n, class)` (of two classes one column), or the predicted number, for activations `(n, d)`."""
        return x @ self.weight.T + self.bias

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class codes `(n,)`, or predicted numbers."""
        scores = self.scores(x)
        if not self.classes:
            return scores[:, 0]
        return (scores[:, 0] > 0).astype(int) if len(self.classes) == 2 else scores.argmax(axis=1)

    @property
    def direction(self) -> np.ndarray:
        """Unit vector(s) `(class, d)` along which the activations tell the classes apart: to steer with, or to watch."""
        norms = np.linalg.norm(self.weight, axis=1, keepdims=True)
        return self.weight / np.where(norms > 0, norms, 1.0)


def fit_probe(
    x: np.ndarray, y: np.ndarray, classes: Sequence[str] = (), strength: float = STRENGTH
) -> LinearProbe:
    """Fit a probe on standardised activations: logistic regression with classes weighted equally, or ridge regression.

    Args:
        x: Activations `(n, d)`.
        y: Class codes `(n,)`, or numbers where there are no classes.
        classes: Class names.
        strength: Inverse regularisation.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-8 * max(1.0, float(np.abs(mean).max(initial=0))), scale, np.inf)  # dead units
    z = (x - mean) / scale
    if classes:
        model: Any = LogisticRegression(C=strength, class_weight="balanced", tol=_TOLERANCE, max_iter=300)
    else:
        model = Ridge(alpha=_RIDGE * len(z))
    with warnings.catch_warnings(), numpy_on_one_thread() if z.size < _LARGE else nullcontext():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that stops early is still held out
        model.fit(z, y)
    weight = np.atleast_2d(model.coef_) / scale
    return LinearProbe(weight, np.atleast_1d(model.intercept_) - weight @ mean, tuple(classes))


def held_out(
    x: np.ndarray,
    y: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str] = (),
    strength: float = STRENGTH,
) -> np.ndarray:
    """Scores of rows by probes that never saw them.

    Args:
        x: Activations `(n, d)`.
        y: `(n,)`.
        folds: Pairs of row indices to train and to test on.
        classes: Class names; none for numbers.
        strength: Inverse regularisation.

    Returns:
        `(n, class)`; NaN for rows that no fold tests.
    """
    width = 1 if len(classes) <= 2 else len(classes)
    out = np.full((len(x), width), np.nan)
    for train, test in folds:
        out[test] = fit_probe(x[train], y[train], classes, strength).scores(x[test])
    return out


def save_probes(path: Path | str, probes: Mapping[int, LinearProbe], facts: Mapping[str, Any]) -> None:
    """Write the probes of several layers as one safetensors file.

    Args:
        path: The file.
        probes: Layer (0-based) to probe.
        facts: JSON values that say what they are of: model, label, stack, pool.

    Raises:
        OutputError: It cannot be written.
    """
    from safetensors.numpy import save

    tensors = {f"weight.{layer}": np.ascontiguousarray(p.weight, np.float32) for layer, p in probes.items()}
    tensors |= {f"bias.{layer}": np.ascontiguousarray(p.bias, np.float32) for layer, p in probes.items()}
    classes = next(iter(probes.values())).classes
    header = json.dumps({"classes": classes, **facts})  # ASCII: labels need not be Unicode
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, {"otoscope.probes": header}))


def load_probes(path: Path | str) -> tuple[dict[int, LinearProbe], dict[str, Any]]:
    """Probes by layer (0-based), and what they are of.

    Raises:
        OptionError: The file holds no probes.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            facts = object_of(file.metadata()["otoscope.probes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        layers = sorted(int(name.removeprefix("weight.")) for name in tensors if name.startswith("weight."))
        classes = tuple(map(str, facts.pop("classes")))
        probes = {i: LinearProbe(tensors[f"weight.{i}"], tensors[f"bias.{i}"], classes) for i in layers}
        rows = len(classes) if len(classes) > 2 else 1
        if any(p.weight.ndim != 2 or not len(p.weight) == p.bias.size == rows for p in probes.values()):
            raise ValueError("its tensors do not fit its classes")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(
            f"{path} holds no probes.", "Name a file that `otoscope probe --save` wrote."
        ) from error
    return probes, facts


def is_number(value: object) -> bool:
    """Whether a label is a number that can be computed with (True and False are classes)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
