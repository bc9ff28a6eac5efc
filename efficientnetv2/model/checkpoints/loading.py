"""Stored weights and a model in; the model with these weights, and a report of all of them, out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from tensorflow import keras

from efficientnetv2.model.checkpoints.errors import WeightsError
from efficientnetv2.model.checkpoints.reading import StoredWeights

_CLASSIFIER = "predictions/"
_STEM = "stem_conv/kernel"


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the weights.

    Attributes:
      path: where they come from.
      kind: its format.
      loaded: number of the model's weights that were set.
      new: those that keep their initial values, because a new classifier was asked for.
      adapted: how the stem was made to fit other channels; '' where it fitted.
      extra: names in the file that the model has nothing for.
    """

    path: str
    kind: str
    loaded: int
    new: tuple[str, ...]
    adapted: str
    extra: tuple[str, ...]

    def __str__(self) -> str:
        """All of it in one line."""
        parts = [f"{self.loaded} weights from '{self.path}' ({self.kind})"]
        if self.new:
            parts.append(f"new, with initial values: {', '.join(self.new)}")
        if self.adapted:
            parts.append(self.adapted)
        if self.extra:
            more = f" and {len(self.extra) - 3} more" if len(self.extra) > 3 else ""
            parts.append(f"not used: {', '.join(self.extra[:3])}{more}")
        return "; ".join(parts)


def load_weights(
    model: keras.Model, stored: StoredWeights, *, new_classifier: bool = False
) -> Report:
    """Sets every weight of a model, or none.

    Args:
      model: stock or training layers, under our names.
      stored: from ``read_weights``.
      new_classifier: a classifier that the file lacks, or has for another number of classes, keeps
        its initial values; otherwise that is an error.

    Raises:
      WeightsError: names a weight that the file has no value for, or one of another shape.
    """
    targets = {weight.path: weight for layer in model.layers for weight in layer.weights}
    values = {name: stored.values[name] for name in targets if name in stored.values}
    adapted = ""
    if _STEM in values:
        values[_STEM], adapted = _fitted_stem(values[_STEM], targets[_STEM].shape)
    new: tuple[str, ...] = ()
    classifier = [name for name in targets if name.startswith(_CLASSIFIER)]
    fits = all(n in values and values[n].shape == tuple(targets[n].shape) for n in classifier)
    if new_classifier and not fits:
        new = tuple(classifier)
        values = {name: value for name, value in values.items() if name not in new}
    _require_all(stored, targets, values, new=new, model_name=model.name)
    for name, value in values.items():
        targets[name].assign(value)
    return Report(str(stored.path), stored.kind, len(values), new, adapted, stored.extra)


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
        raise WeightsError(f"{where} has no classifier; num_classes asks for a new one")
    if missing:
        raise WeightsError(
            f"{where} has no value for {len(missing)} of the {len(targets)} weights of "
            f"{model_name}, among them {missing[0]}; is it of another model?"
        )
    for name, value in values.items():
        shape = tuple(targets[name].shape)
        if value.shape == shape:
            continue
        if name.startswith(_CLASSIFIER):
            raise WeightsError(
                f"{where} has a classifier of {value.shape[-1]} classes, the model one of "
                f"{shape[-1]}; give num_classes={value.shape[-1]}"
            )
        hint = " (with round_down_limit=0.1?)" if model_name == "efficientnet-b3" else ""
        raise WeightsError(
            f"{where}: {name} has shape {value.shape}, that of {model_name} {shape}; is it of "
            f"another model{hint}?"
        )


def _fitted_stem(kernel: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """A kernel for colour images, for another number of channels.

    One channel takes the sum: a grey image gives what its colour version gave. More take those of
    red, green and blue in turn, scaled so that what comes out keeps its size.
    """
    channels = shape[2]
    if kernel.ndim != 4 or kernel.shape[2] in (channels, 1) or kernel.shape[2] != 3:
        return kernel, ""
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True), "stem summed over the colours for 1 channel"
    repeated = kernel[:, :, np.arange(channels) % 3] * (3 / channels)
    return repeated, f"stem repeated for {channels} channels"
