"""Finds TensorFlow checkpoints and reads their variables as NumPy arrays."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from efficientnetv2.checkpoints.budget import Budget
from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams.errors import WeightsError, tensorflow_message

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def find_checkpoint(path: pathlib.Path) -> str | None:
    """Returns the prefix of the checkpoint at a path; None: there is none.

    The path is a prefix, an index file, a folder with one checkpoint, a SavedModel, or a run
    directory. A run directory gives its best weights on minival, or else its newest checkpoint.
    """
    if path.name in ("saved_model.pb", "keras_metadata.pb"):
        path = path.parent
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            path = path / "variables" / "variables.index"
            return str(path.with_suffix("")) if path.is_file() else None
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
    try:
        newest = checkpoint_store.find_checkpoint(RunDirectory(run))
    except RunError:  # no checksums: it was copied without them, or written by another version
        newest = None
    return newest or tf.train.latest_checkpoint(str(run / "checkpoints"))


class CheckpointValues(Mapping[str, np.ndarray]):
    """The float variables of a checkpoint by name, each read when it is asked for.

    Keys of object-based checkpoints lose their suffix.

    Args:
      prefix: from ``find_checkpoint``.
      budget: of the network that is to be filled.

    Raises:
      WeightsError: if the checkpoint cannot be read; also when a value is asked for.
    """

    def __init__(self, prefix: str, *, budget: Budget) -> None:
        self._prefix = prefix
        self._budget = budget
        with self._as_weights_error():
            self._reader = tf.train.load_checkpoint(prefix)
            self._shapes = self._reader.get_variable_to_shape_map()
            types = self._reader.get_variable_to_dtype_map()
        self._keys = {
            name.removesuffix(_VALUE).replace(".S", "/"): name
            for name, dtype in types.items()
            if name != _OBJECT_GRAPH and dtype.is_floating
        }

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads one variable."""
        key = self._keys[name]
        self._budget.take(self._shapes[key], 4, name=name)
        with self._as_weights_error():
            return np.asarray(self._reader.get_tensor(key))

    def __contains__(self, name: object) -> bool:
        """Returns whether there is such a variable; reads nothing, so the budget stays."""
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names; reads nothing."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Returns the number of variables."""
        return len(self._keys)

    def keras_names(self) -> dict[str, str]:
        """Returns Keras 2's name of each variable -> our key; empty: Keras did not write it.

        A SavedModel and a checkpoint of ``save_weights`` keep it in their object graph:
        ``stem_conv/kernel``.
        """
        if not self._reader.has_tensor(_OBJECT_GRAPH):
            return {}
        graph = TrackableObjectGraph()
        with self._as_weights_error():
            graph.ParseFromString(self._reader.get_tensor(_OBJECT_GRAPH))
        return {
            attribute.full_name: key
            for node in graph.nodes
            for attribute in node.attributes
            if "/" in attribute.full_name
            and (key := attribute.checkpoint_key.removesuffix(_VALUE).replace(".S", "/")) in self
            and not key.startswith("optimizer/")
            and "OPTIMIZER_SLOT" not in key
        }

    @contextlib.contextmanager
    def _as_weights_error(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, IndexError, ValueError, DecodeError) as error:
            if isinstance(error, WeightsError):
                raise
            reason = tensorflow_message(str(error), limit=200)
            raise WeightsError(f"cannot read checkpoint '{self._prefix}': {reason}") from None
