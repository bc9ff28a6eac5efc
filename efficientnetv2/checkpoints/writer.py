"""Writes the weights of a model to a file, as Keras, timm or the official code name them.

Importing this module does not import TensorFlow, so that a wrong file name is reported at once.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from efficientnetv2.checkpoints.weight_files import KERAS_SETTINGS, KERAS_WEIGHTS
from efficientnetv2.runtime.atomic_write import cannot_write, draft_folder_of
from hparams.errors import WeightsError, tensorflow_message

if TYPE_CHECKING:
    from tensorflow import keras

    from efficientnetv2.checkpoints.layer_map import WeightLayer

    Writer = Callable[[keras.Model, pathlib.Path, Sequence[WeightLayer], Mapping[str, str]], None]


def _keras_weights(
    model: keras.Model,
    path: pathlib.Path,
    layers: Sequence[WeightLayer],
    metadata: Mapping[str, str],
) -> None:
    """Writes the file that ``save_weights`` would write.

    It is taken out of a .keras file, which Keras makes in memory: HDF5 itself, when the disk is
    full, ends the process.
    """
    whole = path.with_name("whole.keras")
    _keras_model(model, whole, layers, metadata)
    with (
        zipfile.ZipFile(whole) as archive,
        archive.open(KERAS_WEIGHTS) as source,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(source, file)
    whole.unlink()


def _keras_model(
    model: keras.Model,
    path: pathlib.Path,
    layers: Sequence[WeightLayer],
    metadata: Mapping[str, str],
) -> None:
    del layers
    model.save(path)
    if metadata:  # beside Keras's own members, which are all that Keras reads
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(KERAS_SETTINGS, json.dumps(dict(metadata)))


def _values(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.asarray(weight.numpy()) for weight in model.weights}


def _safetensors(
    model: keras.Model,
    path: pathlib.Path,
    layers: Sequence[WeightLayer],
    metadata: Mapping[str, str],
) -> None:
    from efficientnetv2.checkpoints.safetensors_file import safetensors_bytes
    from efficientnetv2.checkpoints.torch_names import timm_names, to_torch

    values, names = _values(model), timm_names(layers)
    tensors = {
        names[f"{layer.name}/{variable}"]: to_torch(
            layer, variable, values[f"{layer.name}/{variable}"]
        )
        for layer in layers
        for variable in layer.variables
    }
    path.write_bytes(safetensors_bytes(tensors, metadata))


def _official(
    model: keras.Model,
    path: pathlib.Path,
    layers: Sequence[WeightLayer],
    metadata: Mapping[str, str],
) -> None:
    """Writes each value under its raw and its averaged name, as in the released V2 files."""
    del metadata
    import tensorflow as tf

    from efficientnetv2.checkpoints.official_names import AVERAGE, tf1_names

    values = _values(model)
    names = tf1_names(layers, model_name=model.name)
    tensors = {
        theirs + ending: values[ours] for ours, theirs in names.items() for ending in ("", AVERAGE)
    }
    tensor_names = sorted(tensors)
    try:
        tf.raw_ops.SaveV2(
            prefix=str(path.with_suffix("")),
            tensor_names=tensor_names,
            shape_and_slices=[""] * len(tensor_names),
            tensors=[tensors[name] for name in tensor_names],
        )
    except tf.errors.OpError as error:  # a full disk, for example
        raise cannot_write(path.name, tensorflow_message(str(error), limit=100)) from None


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


def write_weights(
    model: keras.Model,
    path: pathlib.Path,
    layers: Sequence[WeightLayer],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file, reads it again and compares it, and only then replaces an existing one.

    Args:
      model: whose weights to write.
      path: of the file; its ending selects the format.
      layers: from ``layer_map_of`` the model's config.
      metadata: what a .safetensors or .keras file says of the network besides, from
        ``file_settings.metadata_of``; None: nothing.

    Raises:
      WeightsError: if the ending is unknown, or what was written is not what the model holds.
      WriteError: if the file cannot be written; an existing one stays as it was.
    """
    from efficientnetv2.checkpoints.reader import read_weights

    write = find_writer(path)
    with draft_folder_of(path) as folder:
        write(model, folder / path.name, layers, metadata or {})
        stored = read_weights(folder / path.name, layers, model_name=model.name)
        for name, value in _values(model).items():
            written = stored.values.get(name)
            if written is None or not np.array_equal(written, value):
                raise WeightsError(f"'{path}': {name} is not what was written; check the disk")
