"""A TensorFlow checkpoint in; its variables by name, as NumPy arrays, out."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import tensorflow as tf

from efficientnetv2.model.checkpoints.errors import WeightsError
from hparams.errors import tensorflows_words

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def find_checkpoint(path: pathlib.Path) -> str | None:
    """Returns the prefix of a checkpoint: of one of its files, of a folder, or of a run; or None.

    Of a run of this program, the best weights on minival, or else the newest.
    """
    if path.is_dir():
        if (path / "config.yaml").is_file():
            return _of_run(path)
        latest = tf.train.latest_checkpoint(str(path))
        only = [str(file.with_suffix("")) for file in path.glob("*.index")]
        return latest or (only[0] if len(only) == 1 else None)
    if path.suffix == ".index" and path.is_file():
        return str(path.with_suffix(""))
    return str(path) if pathlib.Path(f"{path}.index").is_file() else None


def _of_run(run: pathlib.Path) -> str | None:
    try:
        record = json.loads((run / "best" / "best.json").read_text(encoding="utf-8"))
        best = run / "best" / str(record["checkpoint"])
        if pathlib.Path(f"{best}.index").is_file():
            return str(best)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return tf.train.latest_checkpoint(str(run / "checkpoints"))


def read_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    """Reads all float variables; the keys of an object-based one without their ending.

    Raises:
      WeightsError: if it cannot be read.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        types = reader.get_variable_to_dtype_map()
        return {
            name.removesuffix(_VALUE).replace(".S", "/"): reader.get_tensor(name)
            for name, dtype in types.items()
            if name != _OBJECT_GRAPH and dtype.is_floating
        }
    except (tf.errors.OpError, IndexError, ValueError) as error:
        reason = tensorflows_words(str(error), limit=200)
        raise WeightsError(f"checkpoint '{prefix}' cannot be read: {reason}") from None
