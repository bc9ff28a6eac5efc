"""Writes the weights of a model to a file, as Keras, timm or the official code name them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.checkpoints.layer_map import WeightLayer
from efficientnetv2.checkpoints.official_names import AVERAGE, tf1_names
from efficientnetv2.checkpoints.safetensors_file import safetensors_bytes
from efficientnetv2.checkpoints.torch_names import timm_names, to_torch
from hparams.errors import WeightsError

Writer = Callable[[keras.Model, pathlib.Path, Sequence[WeightLayer]], None]


def _keras_weights(model: keras.Model, path: pathlib.Path, layers: Sequence[WeightLayer]) -> None:
    del layers
    model.save_weights(path)


def _keras_model(model: keras.Model, path: pathlib.Path, layers: Sequence[WeightLayer]) -> None:
    del layers
    model.save(path)


def _values(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.asarray(weight.numpy()) for weight in model.weights}


def _safetensors(model: keras.Model, path: pathlib.Path, layers: Sequence[WeightLayer]) -> None:
    values, names = _values(model), timm_names(layers)
    tensors = {
        names[f"{layer.name}/{variable}"]: to_torch(
            layer, variable, values[f"{layer.name}/{variable}"]
        )
        for layer in layers
        for variable in layer.variables
    }
    path.write_bytes(safetensors_bytes(tensors))


def _official(model: keras.Model, path: pathlib.Path, layers: Sequence[WeightLayer]) -> None:
    """Writes each value under its raw and its averaged name, as in the released V2 files."""
    values = _values(model)
    names = tf1_names(layers, model_name=model.name)
    tensors = {
        theirs + ending: values[ours] for ours, theirs in names.items() for ending in ("", AVERAGE)
    }
    tensor_names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(path.with_suffix("")),
        tensor_names=tensor_names,
        shape_and_slices=[""] * len(tensor_names),
        tensors=[tensors[name] for name in tensor_names],
    )


# Ending of the file -> its writer. A TensorFlow checkpoint is named by its index.
WRITERS: dict[str, Writer] = {
    ".weights.h5": _keras_weights,
    ".keras": _keras_model,
    ".safetensors": _safetensors,
    ".index": _official,
}


def find_writer(path: pathlib.Path) -> Writer:
    """Returns the writer for a file of this name.

    Raises:
      WeightsError: if no format has this ending.
    """
    for ending, writer in WRITERS.items():
        if path.name.endswith(ending):
            return writer
    raise WeightsError(f"'{path}' must end in {', '.join(WRITERS)}")
