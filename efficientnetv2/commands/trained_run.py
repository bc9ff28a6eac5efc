"""Opens a saved training: its records, its network, and methods to evaluate, predict and export."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams.arguments import check_text
from hparams.config import Config
from hparams.label_kinds import LABEL_KINDS, TRAINING_METRICS

if TYPE_CHECKING:
    from tensorflow import keras


# Of an epoch, in a notebook.
_SHOWN = (
    *("epoch", "image_size", "loss", *TRAINING_METRICS),
    *(f"minival{a}_{kind.metric}" for kind in LABEL_KINDS.values() for a in ("", "_ema")),
    "seconds",
)


class Run:
    """A training in a run directory, finished or not.

    What it shows is read from the disk, so that it is up to date while another process trains.

    Args:
      path: the run directory.
      eval_name: metrics are read from ``eval_<eval_name>.json``; None: ``eval.json``.

    Raises:
      UserError: if the directory holds no training.
    """

    def __init__(self, path: str | os.PathLike[str], *, eval_name: str | None = None) -> None:
        self._directory = RunDirectory(pathlib.Path(check_text("path", path)).expanduser())
        self._eval_name = eval_name
        self._directory.config()  # says what is wrong now, not at the first use

    @property
    def path(self) -> pathlib.Path:
        """The run directory."""
        return self._directory.path

    @property
    def config(self) -> Config:
        """The complete config, for example ``run.config.train.epochs``; docs/hparams.md has all."""
        return self._directory.config()

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record for each epoch so far, with the names of metrics.jsonl (docs/training.md)."""
        return self._directory.metrics()

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of the last evaluation; empty before the first.

        ``{"raw": {"images": ..., "loss": ..., "top1": ..., "top5": ...}, "ema": {...}}``: of the
        weights as they were trained, and of their moving average if there is one. With ``validate``
        also "best": of those that were best on minival, which ``predict`` and ``export`` use.
        Top-1 and top-5 are 0..1.

        Raises:
          UserError: if eval.json is damaged.
        """
        path = self._directory.result_file(self._eval_name)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return {name: values[name] for name in ("raw", "ema", "best") if name in values}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"cannot read the metrics from '{path}': {error}") from None

    @property
    def class_names(self) -> list[str]:
        """The names of the K classes, in the order of the network's outputs."""
        return self._directory.class_names()

    @functools.cached_property
    def model(self) -> keras.Model:
        """The network with its best weights, made of stock Keras layers.

        Of a run with ``train.quantise`` it is the network that computes as its 8-bit file.
        It maps normalised images float32 ``[B, H, W, 3]`` to logits ``[B, K]``, as they are before
        calibration (docs/training.md). The weights are those that ``predict`` and ``export`` use:
        of the checkpoint that was best on minival, or else the newest one. To take the weights of
        a later checkpoint, open the run again.

        Raises:
          UserError: if there is no checkpoint, or it is damaged.
        """
        from efficientnetv2.runtime.tensorflow_import import import_tensorflow

        import_tensorflow()
        from efficientnetv2.evaluation.loaded_model import load_trained

        return load_trained(self.config, self._directory).model

    def evaluate(self, **options: Any) -> dict[str, dict[str, float]]:
        """Evaluates on the final split; see ``efficientnetv2.evaluate``, whose options it takes."""
        from efficientnetv2.commands.api import evaluate

        return evaluate(model_dir=self.path, **options)

    def predict(
        self, images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **options: Any
    ) -> list[Any]:
        """Predicts the classes of images; see ``efficientnetv2.predict``."""
        from efficientnetv2.commands.api import predict

        return predict(images, model_dir=self.path, **options)

    def export(
        self, format: str | Sequence[str] = ("saved_model", "tflite"), **options: Any
    ) -> pathlib.Path | dict[str, pathlib.Path]:
        """Writes files for servers, phones and browsers; see ``efficientnetv2.export``."""
        from efficientnetv2.commands.api import export

        return export(format, model_dir=self.path, **options)

    def __repr__(self) -> str:
        return f"Run('{self.path}')"

    def _repr_markdown_(self) -> str:
        """Returns what a notebook shows: the last epochs, and the metrics."""
        epochs = [{name: line[name] for name in _SHOWN if name in line} for line in self.history]
        return f"`{self!r}`\n\n{_markdown(epochs[-3:])}\n\n{_markdown(self.metrics)}"


def _markdown(rows: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table of numbers; of a mapping, its keys are the first column."""
    if isinstance(rows, Mapping):
        rows = [{"weights": name, **values} for name, values in rows.items()]
    if not rows:
        return ""
    names = [name for name, value in rows[0].items() if isinstance(value, (int, float, str))]
    lines = [names, ["---"] * len(names)]
    for row in rows:
        cells = (row.get(name, "") for name in names)
        lines.append([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load_run(path: str | os.PathLike[str]) -> Run:
    """Opens the training in a run directory.

    Args:
      path: the directory that ``train`` wrote.

    >>> run = env2.load_run("runs/efficientnetv2-b0-photos")
    >>> run.class_names
    ['china', 'flower']

    Raises:
      UserError: if it holds no training.
    """
    return Run(path)
