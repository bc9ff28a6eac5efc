"""Saves and restores the train state, and loads weights from its checkpoints into a network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.atomic_write import cannot_write, replace_text
from efficientnetv2.runtime.best_weights import read_best_record
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from efficientnetv2.train.early_stop import best_result
from efficientnetv2.train.train_state import TrainState, named_weights
from hparams.errors import tensorflow_message

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # which TensorFlow appends to the name of a variable
_MAX_REASON_LENGTH = 300  # characters of TensorFlow's text in an error message


def build_checkpoint(train_state: TrainState) -> tf.train.Checkpoint:
    """Returns a checkpoint of the whole train state.

    ``weights/<layer>/<variable>`` is the network, ``ema/...`` its moving average and
    ``optimizer/...`` the slots.
    """
    # A path begins with the optimizer's name, to which Keras adds a number that is different for
    # each optimizer of a process.
    optimizer = {v.path.partition("/")[2]: v.value for v in train_state.optimizer.variables}
    contents: dict[str, Any] = {
        "step": train_state.context.step,
        "weights": named_weights(train_state.model),
        "optimizer": optimizer,
        "metrics": train_state.metrics,
    }
    if train_state.average is not None:
        contents["ema"] = train_state.average.averages
    return tf.train.Checkpoint(**contents)


def restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores a whole train state.

    Args:
      checkpoint: from ``build_checkpoint``, for the same config.
      path: path prefix from ``checkpoint_store.find_checkpoint``.

    Raises:
      RunError: if it cannot be read, or lacks a value.
    """
    with _as_run_error(path):
        _require_same_shapes(path, weights=checkpoint.weights)
        status = checkpoint.read(path)
        try:
            status.assert_existing_objects_matched()
        except AssertionError:
            status.expect_partial()  # or TensorFlow logs a line for each value that is left over
            raise


def has_average(checkpoint: str) -> bool:
    """Returns whether a checkpoint holds a moving average.

    Raises:
      RunError: if it cannot be read.
    """
    with _as_run_error(checkpoint):
        return any(name.startswith("ema/") for name, _ in tf.train.list_variables(checkpoint))


def load_weights(model: keras.Model, checkpoint: str, *, average: bool) -> None:
    """Loads the weights of a checkpoint into a network of the same config.

    Args:
      model: a network of stock or training layers.
      checkpoint: path prefix from ``checkpoint_store.latest_checkpoint``.
      average: whether to load the moving average instead of the raw weights.

    Raises:
      RunError: if a weight of the network is not in the checkpoint, or has another shape.
    """
    name = "ema" if average else "weights"
    weights = named_weights(model)
    reader = tf.train.Checkpoint(**{name: weights})
    with _as_run_error(checkpoint):
        _require_same_shapes(checkpoint, **{name: weights})
        reader.read(checkpoint).expect_partial().assert_existing_objects_matched()


def _require_same_shapes(path: str, **contents: Mapping[str, tf.Variable]) -> None:
    """Checks shapes before TensorFlow does, which after an error logs a line for each value.

    Args:
      path: path prefix of a checkpoint.
      **contents: weights by their names, for each name under which they are saved.

    Raises:
      ValueError: if a weight has another shape in the checkpoint.
    """
    shapes = {
        key.removesuffix(_VALUE).replace(".S", "/"): tuple(shape)
        for key, shape in tf.train.load_checkpoint(path).get_variable_to_shape_map().items()
    }
    for prefix, weights in contents.items():
        for name, weight in weights.items():
            stored, own = shapes.get(f"{prefix}/{name}"), tuple(weight.shape)
            if stored is not None and stored != own:
                raise ValueError(
                    f"{name} has shape {stored}, but the model's has {own}; use the settings of "
                    "its training"
                )


@contextlib.contextmanager
def _as_run_error(path: str) -> Iterator[None]:
    """Turns TensorFlow's errors for an unusable checkpoint into a ``RunError`` of one line."""
    try:
        yield
    except (AssertionError, ValueError) as error:
        reason = tensorflow_message(str(error), limit=_MAX_REASON_LENGTH)
        raise RunError(f"checkpoint '{path}' does not fit the model: {reason}") from None
    except (IndexError, tf.errors.OpError) as error:
        reason = tensorflow_message(str(error), limit=_MAX_REASON_LENGTH)
        raise RunError(f"checkpoint '{path}' is damaged: {reason}") from None


def repair(run: RunDirectory) -> None:
    """Completes or removes the checkpoints that a killed process left unfinished."""
    for folder in (run.checkpoints, run.best):
        checkpoint_store.repair(folder)


class CheckpointManager:
    """Saves and restores the checkpoints in a run directory.

    Args:
      train_state: the state to save and restore.
      run: the run directory.
      keep: number of checkpoints to keep, at least 1.
    """

    def __init__(self, train_state: TrainState, run: RunDirectory, *, keep: int) -> None:
        self._train_state = train_state
        self._run = run
        self._keep = keep
        self._checkpoint = build_checkpoint(train_state)

    def restore(self, other: RunDirectory | None = None) -> bool:
        """Restores the newest intact checkpoint; returns False if there is none yet.

        Checkpoints that a killed process left unfinished are completed or removed first.

        Args:
          other: run directory of another worker to restore from; it is not repaired, as that worker
            does so itself. None: the own run directory.

        Raises:
          RunError: if all checkpoints are damaged, or the newest intact one is of another network.
        """
        is_own = other is None or other is self._run
        if is_own:
            repair(self._run)
        latest = checkpoint_store.find_checkpoint(other or self._run)
        if latest is None:
            return False
        restore(self._checkpoint, latest)
        if is_own:
            self._prune()
        return True

    def save(self) -> None:
        """Saves the train state as it is now, and removes checkpoints beyond ``keep``.

        Raises:
          WriteError: if it cannot be written; the others stay.
        """
        step = self._train_state.step
        with _as_write_error(f"{self._run.checkpoints / f'ckpt-{step}'}"):
            checkpoint_store.write(self._run.checkpoints, step, self._checkpoint.write)
        self._prune()

    def _prune(self) -> None:
        step = self._train_state.step
        checkpoint_store.prune(self._run.checkpoints, newest=step, keep=self._keep)


@contextlib.contextmanager
def _as_write_error(path: str) -> Iterator[None]:
    """Turns TensorFlow's errors for a file that cannot be written into a ``WriteError``."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = tensorflow_message(str(error), limit=_MAX_REASON_LENGTH)
        raise cannot_write(path, reason) from None


class BestCheckpoint:
    """Keeps the weights that were best on minival, in ``best/``.

    ``best.json`` names the checkpoint and is replaced only after a new checkpoint has been written,
    so that the two belong together even after a kill.

    Args:
      train_state: the state whose weights are kept.
      run: the run directory.
      metric: by which weights are compared, a row of ``hparams.label_kinds.METRICS``.
    """

    def __init__(self, train_state: TrainState, run: RunDirectory, *, metric: str = "top1") -> None:
        self._train_state = train_state
        self._metric = metric
        self._run = run
        self._record = run.best / "best.json"
        contents: dict[str, Any] = {"weights": named_weights(train_state.model)}
        if train_state.average is not None:
            contents["ema"] = train_state.average.averages
        self._checkpoint = tf.train.Checkpoint(**contents)
        record = read_best_record(run)
        if record:  # a killed process may have left other checkpoints
            checkpoint_store.keep_only(run.best, record["step"])

    def offer(self, results: dict[str, float], *, image_size: int) -> None:
        """Saves the current weights unless those of a recorded epoch are better.

        Of equal ones the last are kept: where minival has few images, early weights soon get all of
        them right, and then the fall of the learning rate would be lost.

        Progressive learning evaluates at growing sizes, and epochs of other sizes do not count: so
        the best ones are those of the last size.

        Args:
          results: "raw" and "ema" -> the metric on minival; the higher one counts.
          image_size: pixels, of this evaluation.

        Raises:
          WriteError: if they cannot be written; the previous best weights stay.
        """
        step = self._train_state.step
        before = self._best_before(step, image_size)
        if before is not None and max(results.values()) < before:
            return
        with _as_write_error(f"{self._run.best / f'ckpt-{step}'}"):
            checkpoint_store.write(self._run.best, step, self._checkpoint.write)
        record = {
            "step": step,
            "metric": self._metric,
            self._metric: results,
            "checkpoint": f"ckpt-{step}",
        }
        replace_text(self._record, json.dumps(record) + "\n")
        checkpoint_store.keep_only(self._run.best, step)

    def _best_before(self, step: int, image_size: int) -> float | None:
        """Returns the best result before this step; epochs to be run again do not count."""
        lines = self._run.metrics()
        record = read_best_record(self._run)
        # best.json is used only if metrics.jsonl has no results, for it may have been removed.
        is_alone = best_result(lines, self._metric) is None
        if is_alone and record and record["step"] < step and record["metric"] == self._metric:
            return float(record["best"])
        return best_result(lines, self._metric, image_size=image_size)
