"""A model in; a file of its weights, as Keras, timm or the official code name them, out."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.checkpoints.errors import WeightsError
from efficientnetv2.model.checkpoints.official import AVERAGE, tf1_names
from efficientnetv2.model.checkpoints.parts import Part
from efficientnetv2.model.checkpoints.safetensors_file import safetensors_bytes
from efficientnetv2.model.checkpoints.torch_names import timm_names, to_torch

Writer = Callable[[keras.Model, pathlib.Path, Sequence[Part]], None]


def _keras_weights(model: keras.Model, path: pathlib.Path, parts: Sequence[Part]) -> None:
    del parts
    model.save_weights(path)


def _keras_model(model: keras.Model, path: pathlib.Path, parts: Sequence[Part]) -> None:
    del parts
    model.save(path)


def _values(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.asarray(weight.numpy()) for weight in model.weights}


def _safetensors(model: keras.Model, path: pathlib.Path, parts: Sequence[Part]) -> None:
    values, names = _values(model), timm_names(parts)
    tensors = {
        names[f"{part.layer}/{variable}"]: to_torch(
            part, variable, values[f"{part.layer}/{variable}"]
        )
        for part in parts
        for variable in part.variables
    }
    path.write_bytes(safetensors_bytes(tensors))


def _official(model: keras.Model, path: pathlib.Path, parts: Sequence[Part]) -> None:
    """Raw and averaged names have the same values, as in the released V2 files."""
    values = _values(model)
    names = tf1_names(parts, model_name=model.name)
    tensors = {
        theirs + ending: values[ours] for ours, theirs in names.items() for ending in ("", AVERAGE)
    }
    names_there = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(path.with_suffix("")),
        tensor_names=names_there,
        shape_and_slices=[""] * len(names_there),
        tensors=[tensors[name] for name in names_there],
    )


# Ending -> how it is written. Of a TensorFlow checkpoint, the ending is that of its index.
WRITERS: dict[str, Writer] = {
    ".weights.h5": _keras_weights,
    ".keras": _keras_model,
    ".safetensors": _safetensors,
    ".index": _official,
}


def find_writer(path: pathlib.Path) -> Writer:
    """Returns how a file of this name is written.

    Raises:
      WeightsError: if no format has this ending.
    """
    for ending, writer in WRITERS.items():
        if path.name.endswith(ending):
            return writer
    raise WeightsError(f"'{path}' must end in {', '.join(WRITERS)}")
