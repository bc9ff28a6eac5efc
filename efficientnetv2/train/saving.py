"""Checkpoints: everything that a training changes in, files out, and back into any network."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train import checkpoint_files
from efficientnetv2.train.durable import cannot_write, replace_text
from efficientnetv2.train.learner import Learner, named_weights
from efficientnetv2.train.patience import best_top1
from efficientnetv2.train.run_directory import RunDirectory, RunError
from hparams.errors import tensorflows_words


def build_checkpoint(learner: Learner) -> tf.train.Checkpoint:
    """Returns the checkpoint of a training: every value under a name that says what it is.

    ``weights/<layer>/<variable>`` and ``ema/...`` hold the network, ``optimizer/...`` the slots.
    """
    # A path begins with the optimizer's name, which Keras counts up within a process.
    optimizer = {v.path.partition("/")[2]: v.value for v in learner.optimizer.variables}
    parts: dict[str, Any] = {
        "step": learner.state.step,
        "weights": named_weights(learner.model),
        "optimizer": optimizer,
        "metrics": learner.metrics,
    }
    if learner.average is not None:
        parts["ema"] = learner.average.averages
    return tf.train.Checkpoint(**parts)


def restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Reads a whole training back.

    Args:
      checkpoint: from ``build_checkpoint``, of the same configuration.
      path: prefix from ``checkpoint_files.find_checkpoint``.

    Raises:
      RunError: if it cannot be read, or does not hold everything.
    """
    with _one_line(path):
        checkpoint.read(path).assert_existing_objects_matched()


def has_average(checkpoint: str) -> bool:
    """Returns whether a checkpoint holds a moving average.

    Raises:
      RunError: if it cannot be read.
    """
    with _one_line(checkpoint):
        return any(name.startswith("ema/") for name, _ in tf.train.list_variables(checkpoint))


def load_weights(model: keras.Model, checkpoint: str, *, average: bool) -> None:
    """Loads a training's weights into a network of the same configuration.

    Args:
      model: of stock or training layers.
      checkpoint: path prefix from ``checkpoint_files.latest_checkpoint``.
      average: take the moving average instead of the raw weights.

    Raises:
      RunError: if a weight of the network is not in the checkpoint, or has another shape.
    """
    part = "ema" if average else "weights"
    reader = tf.train.Checkpoint(**{part: named_weights(model)})
    with _one_line(checkpoint):
        reader.read(checkpoint).expect_partial().assert_existing_objects_matched()


@contextlib.contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Makes one line of what TensorFlow raises for a checkpoint that cannot be used."""
    try:
        yield
    except (AssertionError, ValueError) as error:
        raise RunError(f"checkpoint '{path}' does not fit the model: {_short(error)}") from None
    except (IndexError, tf.errors.OpError) as error:
        raise RunError(f"checkpoint '{path}' is damaged: {_short(error)}") from None


def _short(error: Exception) -> str:
    return tensorflows_words(str(error), limit=300)


def mend(run: RunDirectory) -> None:
    """Finishes or removes what a killed training began to write."""
    for folder in (run.checkpoints, run.best):
        checkpoint_files.mend(folder)


class Checkpoints:
    """The checkpoints of a training in its run directory.

    Args:
      learner: what is trained.
      run: the run directory.
      keep: how many stay, at least 1.
    """

    def __init__(self, learner: Learner, run: RunDirectory, *, keep: int) -> None:
        self._learner = learner
        self._run = run
        self._keep = keep
        self._checkpoint = build_checkpoint(learner)

    def restore(self, other: RunDirectory | None = None) -> bool:
        """Reads the newest whole one back, if there is one, and returns whether there is.

        What a killed training began to write is finished or removed.

        Args:
          other: holds it, and belongs to another worker, who sees to it; None: the own directory.

        Raises:
          RunError: if all are damaged, or the newest whole one is of another network.
        """
        is_own = other is None or other is self._run
        if is_own:
            mend(self._run)
        latest = checkpoint_files.find_checkpoint(other or self._run)
        if latest is None:
            return False
        restore(self._checkpoint, latest)
        if is_own:
            self._prune()
        return True

    def save(self) -> None:
        """Saves the training as it is now, and removes the oldest checkpoint.

        Raises:
          WriteError: if it cannot be written; the others stay.
        """
        step = self._learner.step
        with _written(f"{self._run.checkpoints / f'ckpt-{step}'}"):
            checkpoint_files.write(self._run.checkpoints, step, self._checkpoint.write)
        self._prune()

    def _prune(self) -> None:
        step = self._learner.step
        checkpoint_files.prune(self._run.checkpoints, newest=step, keep=self._keep)


@contextlib.contextmanager
def _written(path: str) -> Iterator[None]:
    """Makes one line of what TensorFlow raises for a file that cannot be written."""
    try:
        yield
    except tf.errors.OpError as error:
        raise cannot_write(path, _short(error)) from None


@dataclasses.dataclass(frozen=True)
class BestWeights:
    """What ``best/`` holds.

    Attributes:
      checkpoint: path prefix.
      is_average: whether its moving average was better on minival than its raw weights.
      top1: accuracy on minival of the better one.
    """

    checkpoint: str
    is_average: bool
    top1: float


def best_weights(run: RunDirectory) -> BestWeights | None:
    """Returns what was best on minival, or None if no training kept it.

    Raises:
      RunError: if the checkpoint that ``best.json`` names is damaged.
    """
    record = _recorded(run)
    if record is None:
        return None
    checkpoint = str(run.best / f"ckpt-{record['step']}")
    if not checkpoint_files.is_whole(checkpoint):
        raise RunError(f"checkpoint '{checkpoint}', the best of the run, is damaged or missing")
    is_average = record["top1"].get("ema") == record["best"]  # also where both are equal
    return BestWeights(checkpoint, is_average, record["best"])


def _recorded(run: RunDirectory) -> dict[str, Any] | None:
    """Step, top-1 values and the best of these of best.json; None if it cannot be read."""
    try:
        record = json.loads((run.best / "best.json").read_text(encoding="utf-8"))
        top1 = {name: float(value) for name, value in record["top1"].items()}
        return {"step": int(record["step"]), "top1": top1, "best": max(top1.values())}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


class BestCheckpoint:
    """Keeps the weights that were best on minival, in ``best/``.

    ``best.json`` names its checkpoint and takes the place of the one before when that is written,
    so that they belong together after a kill at any moment.

    Args:
      learner: what is trained.
      run: the run directory.
    """

    def __init__(self, learner: Learner, run: RunDirectory) -> None:
        self._learner = learner
        self._run = run
        self._record = run.best / "best.json"
        parts: dict[str, Any] = {"weights": named_weights(learner.model)}
        if learner.average is not None:
            parts["ema"] = learner.average.averages
        self._checkpoint = tf.train.Checkpoint(**parts)
        record = _recorded(run)
        if record:  # a process that was killed may have left others
            checkpoint_files.keep_only(run.best, record["step"])

    def offer(self, top1: dict[str, float]) -> None:
        """Saves the weights of now if they beat those of every epoch that is recorded.

        Args:
          top1: "raw" and "ema" -> accuracy on minival; the higher one counts.

        Raises:
          WriteError: if they cannot be written; the best so far stays.
        """
        step = self._learner.step
        if max(top1.values()) <= self._best(step):
            return
        with _written(f"{self._run.best / f'ckpt-{step}'}"):
            checkpoint_files.write(self._run.best, step, self._checkpoint.write)
        record = {"step": step, "top1": top1, "checkpoint": f"ckpt-{step}"}
        replace_text(self._record, json.dumps(record) + "\n")
        checkpoint_files.keep_only(self._run.best, step)

    def _best(self, step: int) -> float:
        """The best top-1 before this step; what was best in epochs that are run again is not."""
        best = best_top1(self._run.metrics())
        record = _recorded(self._run)
        # The records of metrics.jsonl may have been removed.
        if best == 0.0 and record and record["step"] < step:
            return float(record["best"])
        return best
