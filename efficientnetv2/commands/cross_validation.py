"""Opens a saved cross-validation, and runs one from Python."""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, Union

from efficientnetv2.commands.python_call import call_mode
from efficientnetv2.commands.trained_run import Run
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams.folds import parse_fold
from hparams.overrides import Overrides

if TYPE_CHECKING:
    Path = Union[str, "os.PathLike[str]"]


class CrossValidation:
    """A finished cross-validation: a training for each fold, and what they say together.

    Args:
      path: the directory that ``cross_validate`` wrote.
      eval_name: as in ``Run``.

    Attributes:
      path: the directory.
      folds: the trainings, in the order of their folds.
      mean: mean of each metric over the folds, "raw" and "ema" -> metric -> number: of the weights
        as they were trained, and of their moving average if there is one.
      deviation: likewise, the standard deviation of a sample (n - 1).
      together: metrics of all out-of-fold predictions together.
      written: all that folds.json holds, the metrics of each fold and of test images among it.
      out_of_fold: the table with a row for each image: its labels, and what the network of the fold
        that held it out predicts.

    Raises:
      UserError: if the directory holds no finished cross-validation.
    """

    def __init__(self, path: str | os.PathLike[str], *, eval_name: str | None = None) -> None:
        from efficientnetv2.reporting.fold_report import RESULT_FILE, SCORES_FILE

        directory = RunDirectory(pathlib.Path(path).expanduser())
        config = directory.folds_config()
        result = directory.path / RESULT_FILE
        if config is None or config.data.fold is None or not result.exists():
            raise RunError(f"'{directory.path}' holds no finished cross-validation")
        try:
            values: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            self.mean: dict[str, dict[str, float]] = values["mean"]
            self.deviation: dict[str, dict[str, float]] = values["deviation"]
            self.together: dict[str, Any] = values["out_of_fold"]
            self.written: dict[str, Any] = values
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(f"cannot read '{result}': {error}") from None
        self.path = directory.path
        self.out_of_fold = self.path / SCORES_FILE
        count = parse_fold(config.data.fold).count
        runs = [fold_directory(self.path, number) for number in range(1, count + 1)]
        self.folds = [Run(run.path, eval_name=eval_name) for run in runs]

    def __repr__(self) -> str:
        return f"CrossValidation('{self.path}')"


def fold_directory(folder: pathlib.Path, number: int) -> RunDirectory:
    """Returns the run directory of a fold of the cross-validation in a folder."""
    return RunDirectory(folder / f"fold{number}")


def cross_validate(
    model: str | None = None,
    data: Path | None = None,
    *,
    folds: int = 5,
    dataset_cfg: str | None = None,
    preset: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    optimizer: str | None = None,
    augment: str | None = None,
    precision: str | None = None,
    teacher: Path | None = None,
    seed: int | None = None,
    validate: bool = False,
    weights: Path | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    eval_name: str | None = None,
    verbose: bool = False,
) -> CrossValidation:
    """Trains once for each fold of your own images, and evaluates on what the fold holds out.

    >>> result = env2.cross_validate(
    ...     "efficientnetv2-b0", "photos", folds=2, epochs=1, overrides="settings.yaml"
    ... )
    >>> [fold.path.name for fold in result.folds], sorted(result.mean)
    (['fold1', 'fold2'], ['ema', 'raw'])
    >>> result.out_of_fold.name
    'out_of_fold.csv'

    One that was stopped goes on where it was when the function is called again with the same
    arguments. Several processes may call it at once: each takes a fold that no other has
    (docs/data.md).

    Args:
      folds: number of folds, at least 2, and at most as many as the rarest class has images.
      model: this and the others: see ``train``; ``seed`` also chooses the folds.
      model_dir: the folder of the folds; None: ``runs/<model>-<data>-folds``.

    Returns:
      The trainings, the mean and deviation of their metrics, and the table of predictions.

    Raises:
      UserError: if an argument, the data or the folder cannot be used; it is a ValueError.
      KeyboardInterrupt: after an interrupt; the work is saved.
    """
    result: CrossValidation = call_mode("train", locals())
    return result
