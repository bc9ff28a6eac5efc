"""Checkpoints: everything that a training changes in, files out, and back into any network."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.learner import Learner, named_weights
from efficientnetv2.train.run_directory import RunDirectory, RunError


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


def latest_checkpoint(run: RunDirectory) -> str:
    """Returns the path prefix of the newest checkpoint of a run.

    Raises:
      RunError: if there is none.
    """
    latest = find_checkpoint(run)
    if latest is None:
        raise RunError(f"'{run.checkpoints}' holds no checkpoint; train first with --mode=train")
    return latest


def find_checkpoint(run: RunDirectory) -> str | None:
    """Returns the path prefix of the newest checkpoint of a run, or None.

    It goes by the files: TensorFlow's own note of the newest may be lost in copying a run, and a
    training that found none would begin anew.
    """
    steps = [
        int(path.stem.removeprefix("ckpt-"))
        for path in run.checkpoints.glob("ckpt-*.index")
        if path.stem.removeprefix("ckpt-").isdecimal()
    ]
    return str(run.checkpoints / f"ckpt-{max(steps)}") if steps else None


def restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Reads a whole training back.

    Args:
      checkpoint: from ``build_checkpoint``, of the same configuration.
      path: prefix from ``find_checkpoint``.

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
      checkpoint: path prefix from ``latest_checkpoint``.
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
        raise RunError(
            f"checkpoint '{path}' is damaged: {_short(error)}; without its files, the newest one "
            "before it is taken"
        ) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class BestCheckpoint:
    """Keeps the weights that were best on minival, in a directory of their own.

    Args:
      learner: what is trained.
      path: the directory; it holds ``ckpt.*`` and ``best.json``.
    """

    def __init__(self, learner: Learner, path: pathlib.Path) -> None:
        self._learner = learner
        self._path = path
        self._record = path / "best.json"
        parts: dict[str, Any] = {"weights": named_weights(learner.model)}
        if learner.average is not None:
            parts["ema"] = learner.average.averages
        self._checkpoint = tf.train.Checkpoint(**parts)

    def offer(self, top1: dict[str, float]) -> None:
        """Saves the weights of now if they beat the best so far, of an earlier start as well.

        Args:
          top1: "raw" and "ema" -> accuracy on minival; the higher one counts.
        """
        best = 0.0
        if self._record.exists():
            best = max(json.loads(self._record.read_text(encoding="utf-8"))["top1"].values())
        if max(top1.values()) <= best:
            return
        self._path.mkdir(exist_ok=True)
        self._checkpoint.write(str(self._path / "ckpt"))
        record = {"step": self._learner.step, "top1": top1}
        self._record.write_text(json.dumps(record) + "\n", encoding="utf-8")
