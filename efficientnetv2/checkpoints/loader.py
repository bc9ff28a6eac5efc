"""Sets the weights of a model from stored ones, and reports what became of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from tensorflow import keras

from efficientnetv2.checkpoints.reader import StoredWeights
from hparams.errors import WeightsError

_CLASSIFIER = "predictions/"
_STEM = "stem_conv/kernel"


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """Which weights of a model were loaded, and from where.

    Attributes:
      path: of the file.
      kind: format of the file.
      loaded: number of the model's weights that were set.
      new: weights that keep their initial values, because a new classifier was requested.
      adapted: how the stem was adapted to other channels; '' if it fitted.
      extra: names in the file that the model does not use.
    """

    path: str
    kind: str
    loaded: int
    new: tuple[str, ...]
    adapted: str
    extra: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the report in one line."""
        notes = [f"{self.loaded} weights from '{self.path}' ({self.kind})"]
        if self.new:
            notes.append(f"new, with initial values: {', '.join(self.new)}")
        if self.adapted:
            notes.append(self.adapted)
        if self.extra:
            more = f" and {len(self.extra) - 3} more" if len(self.extra) > 3 else ""
            notes.append(f"not used: {', '.join(self.extra[:3])}{more}")
        return "; ".join(notes)


def load_weights(
    model: keras.Model, stored: StoredWeights, *, new_classifier: bool = False
) -> WeightsReport:
    """Sets every weight of a model, or none in case of an error.

    Args:
      model: of stock or training layers, under our names.
      stored: from ``read_weights``.
      new_classifier: let a classifier that the file lacks, or has for another number of classes,
        keep its initial values; otherwise that is an error.

    Raises:
      WeightsError: if the file lacks a weight, or has it in another shape; names the weight.
    """
    targets = {weight.path: weight for layer in model.layers for weight in layer.weights}
    values = {name: stored.values[name] for name in targets if name in stored.values}
    adapted = ""
    if _STEM in values:
        values[_STEM], adapted = _adapt_stem(values[_STEM], targets[_STEM].shape)
    new: tuple[str, ...] = ()
    classifier = [name for name in targets if name.startswith(_CLASSIFIER)]
    fits = all(n in values and values[n].shape == tuple(targets[n].shape) for n in classifier)
    if new_classifier and not fits:
        new = tuple(classifier)
        values = {name: value for name, value in values.items() if name not in new}
    _require_all(stored, targets, values, new=new, model_name=model.name)
    for name, value in values.items():
        targets[name].assign(value)
    return WeightsReport(str(stored.path), stored.kind, len(values), new, adapted, stored.extra)


def _require_all(
    stored: StoredWeights,
    targets: Mapping[str, keras.Variable],
    values: Mapping[str, np.ndarray],
    *,
    new: tuple[str, ...],
    model_name: str,
) -> None:
    where = f"'{stored.path}' ({stored.kind})"
    missing = [name for name in targets if name not in values and name not in new]
    if missing and all(name.startswith(_CLASSIFIER) for name in missing):
        reason = f" that this network can have: {stored.note}" if stored.note else ""
        raise WeightsError(f"{where} has no classifier{reason}; give num_classes to make a new one")
    if missing:
        raise WeightsError(
            f"{where} has no value for {len(missing)} of the {len(targets)} weights of "
            f"{model_name} (for example {missing[0]}); is it for another model?"
        )
    for name, value in values.items():
        shape = tuple(targets[name].shape)
        if value.shape == shape:
            continue
        if name.startswith(_CLASSIFIER):
            raise WeightsError(
                f"{where} has a classifier of {value.shape[-1]} classes, but the model has "
                f"{shape[-1]}; give num_classes={value.shape[-1]}"
            )
        hint = ", or for round_down_limit=0.1" if model_name == "efficientnet-b3" else ""
        raise WeightsError(
            f"{where}: {name} has shape {value.shape}, but {model_name} has {shape}; is it for "
            f"another model{hint}?"
        )


def _adapt_stem(kernel: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """Adapts a stem's kernel to another number of channels.

    One channel gets the sum over the colours: a grey image gives what its RGB version gave. More
    channels get those of red, green and blue in turn, scaled so that outputs keep their magnitude.
    A kernel for one channel is divided over those of the model.
    """
    channels = shape[2]
    if kernel.ndim != 4 or kernel.shape[2] == channels or kernel.shape[2] not in (1, 3):
        return kernel, ""
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True), "stem summed over the colours for 1 channel"
    stored = kernel.shape[2]
    repeated = kernel[:, :, np.arange(channels) % stored] * (stored / channels)
    verb = "repeated" if stored == 3 else "divided"
    return repeated, f"stem {verb} for {channels} channels"
