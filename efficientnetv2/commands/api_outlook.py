"""Python functions for the modes that are used before a training; see ``api``."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from efficientnetv2.commands.api import Path
from efficientnetv2.commands.python_call import call_mode, show
from hparams.overrides import Overrides

if TYPE_CHECKING:
    from efficientnetv2.reporting.check_report import DataCheck
    from efficientnetv2.train.range_test import RangeTest


def preview(
    model: str | None = None,
    data: Path | None = None,
    *,
    dataset_cfg: str | None = None,
    preset: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    optimizer: str | None = None,
    resize: str | None = None,
    augment: str | None = None,
    precision: str | None = None,
    quantise: str | None = None,
    teacher: Path | None = None,
    seed: int | None = None,
    weights: Path | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    verbose: bool = False,
) -> list[pathlib.Path]:
    """Draws what the network would see in each stage of a training, and the schedule.

    >>> paths = env2.preview("efficientnetv2-b0", "photos", epochs=2, overrides="settings.yaml")
    >>> [path.name for path in paths]
    ['preview.png', 'schedule.png']

    Args: see ``train``.

    Returns:
      The paths of the pictures: ``preview.png``, and ``schedule.png`` unless the sizes are random.

    Raises:
      UserError: if an argument, the data or the run directory cannot be used.
    """
    pictures: list[pathlib.Path] = call_mode("preview", locals())
    show(*pictures)
    return pictures


def check(
    data: Path,
    *,
    model: str | None = None,
    weights: Path | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    verbose: bool = False,
) -> DataCheck:
    """Looks for what is wrong with your own images: copies, leaks, broken files, wrong labels.

    >>> check = env2.check("photos")
    >>> check.counts, check.has_problems, check.report.name
    ({}, False, 'report.html')

    Args:
      data: folder of images, or table of labels (docs/data.md).
      model: name of the network of ``weights``; None: ``efficientnetv2-s``.
      weights: of a network that has not been trained on these labels; wrong labels are looked for
        with what it sees. None: they are not looked for, and TensorFlow is not used.
      overrides: columns of a table, as in ``train``.
      model_dir: folder for ``check.csv`` and ``report.html``, and a run whose splits count; None:
        ``runs/check-<name of the data>``.
      verbose: print what the command line prints.

    Raises:
      UserError: if an argument or the data cannot be used.
    """
    found: DataCheck = call_mode("check", locals())
    return found


def find_lr(
    model: str | None = None,
    data: Path | None = None,
    *,
    steps: int = 100,
    dataset_cfg: str | None = None,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    optimizer: str | None = None,
    resize: str | None = None,
    augment: str | None = None,
    precision: str | None = None,
    seed: int | None = None,
    weights: Path | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    verbose: bool = False,
) -> RangeTest:
    """Suggests a learning rate for a training, by a range test (docs/training.md).

    >>> test = env2.find_lr("efficientnetv2-b0", "photos", overrides="settings.yaml")
    >>> test.rates.shape == test.losses.shape, test.picture.name
    (True, 'find_lr.png')

    A training in ``model_dir`` is not touched. Give ``test.suggestion`` to ``train`` as
    ``learning_rate``.

    Args:
      steps: from the lowest to the highest rate.
      model: this and the others: see ``train``; ``learning_rate`` is drawn for comparison.

    Returns:
      The rates, the losses, and the suggested peak.

    Raises:
      UserError: if an argument or the data cannot be used, or the loss falls at no rate.
    """
    test: RangeTest = call_mode("find_lr", locals())
    if test.picture is not None:
        show(test.picture)
    return test


def benchmark(
    models: str | Sequence[str] = ("efficientnetv2-s",),
    *,
    batch_size: int | None = None,
    image_scale: float = 1.0,
    steps: int = 20,
    precision: str | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    verbose: bool = False,
) -> list[dict[str, Any]]:
    """Measures what networks cost on this machine, in training and inference.

    >>> rows = env2.benchmark(["efficientnetv2-b0"], steps=2, overrides="settings.yaml")
    >>> rows[0]["model"], rows[0]["train_size"]
    ('efficientnetv2-b0', 32)

    Args:
      models: names of networks.
      batch_size: images a step; None: 16.
      image_scale: factor on each network's own image sizes.
      steps: timed steps.
      precision: ``float32``, ``bfloat16`` or ``float16``.
      overrides: other settings, as in ``train``.
      model_dir: folder of the results; None: ``runs/benchmark``.
      verbose: print what the command line prints.

    Returns:
      The rows of ``benchmark.csv``, one for each network that could be measured
      (docs/performance.md).

    Raises:
      UserError: if an argument cannot be used, or no network could be measured.
    """
    rows: list[dict[str, Any]] = call_mode("benchmark", locals())
    return rows
