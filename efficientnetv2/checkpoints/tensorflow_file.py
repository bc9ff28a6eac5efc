"""Finds TensorFlow checkpoints and reads their variables as NumPy arrays."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import tensorflow as tf

from hparams.errors import WeightsError, tensorflow_message

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def find_checkpoint(path: pathlib.Path) -> str | None:
    """Returns the prefix of the checkpoint at a path; None: there is none.

    The path is a prefix, an index file, a folder with one checkpoint, or a run directory. A run
    directory gives its best weights on minival, or else its newest checkpoint.
    """
    if path.is_dir():
        if (path / "config.yaml").is_file():
            return _find_in_run(path)
        latest = tf.train.latest_checkpoint(str(path))
        only = [str(file.with_suffix("")) for file in path.glob("*.index")]
        return latest or (only[0] if len(only) == 1 else None)
    if path.suffix == ".index" and path.is_file():
        return str(path.with_suffix(""))
    return str(path) if pathlib.Path(f"{path}.index").is_file() else None


def _find_in_run(run: pathlib.Path) -> str | None:
    try:
        record = json.loads((run / "best" / "best.json").read_text(encoding="utf-8"))
        best = run / "best" / str(record["checkpoint"])
        if pathlib.Path(f"{best}.index").is_file():
            return str(best)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return tf.train.latest_checkpoint(str(run / "checkpoints"))


def read_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    """Reads all float variables; keys of object-based checkpoints lose their suffix.

    Raises:
      WeightsError: if the checkpoint cannot be read.
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
        reason = tensorflow_message(str(error), limit=200)
        raise WeightsError(f"cannot read checkpoint '{prefix}': {reason}") from None
