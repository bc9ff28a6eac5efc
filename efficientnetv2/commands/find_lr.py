"""Suggests a learning rate for a training by a range test: ``--mode=find_lr``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import (
    config_from_flags,
    require_devices_from_flags,
    run_from_flags,
)
from efficientnetv2.runtime.cluster import find_cluster
from efficientnetv2.runtime.console import open_bar
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError
from hparams.resolve import require_full_batch, require_trainable
from hparams.train_keys import BASE_BATCH

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.train.range_test import RangeTest

_FEWEST = 20  # steps; fewer jump over the rates at which the loss falls


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Tests learning rates for the training that the flags describe; the value is a RangeTest."""
    del stop  # ends it at once: there is nothing to save
    config = config_from_flags(values)
    require_trainable(config)
    require_devices_from_flags(values, config, trains=True)
    if len(find_cluster(config.runtime.strategy).workers) > 1:
        raise UserError(
            "--mode=find_lr takes no TF_CONFIG: run it on one machine; if the batch does not fit "
            "into its memory, set train.accumulate"
        )
    if values.steps < _FEWEST:
        raise UserError(
            f"--steps must be at least {_FEWEST} with --mode=find_lr, got {values.steps}"
        )
    run_directory = run_from_flags(values)
    import_tensorflow()
    return Outcome(find_lr(config, run_directory, steps=values.steps))


def find_lr(config: Config, run: RunDirectory, *, steps: int) -> RangeTest:
    """Writes ``find_lr.png`` and ``find_lr.csv`` into the run directory, and prints the suggestion.

    A training in the directory is not touched.

    Args:
      config: of the training.
      run: its run directory.
      steps: from the lowest to the highest rate.

    Raises:
      UserError: if the loss falls at no rate, or as ``run_range_test``.
      WriteError: if a file cannot be written.
    """
    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.reporting.rate_curve import draw_rate_curve, write_steps
    from efficientnetv2.reporting.results import run_title
    from efficientnetv2.train.range_test import run_range_test

    config, source = open_data(config, run)
    run.create()
    require_full_batch(config, num_images=source.num_images(config.data.train_split))
    title = run_title(config)
    print(f"{title}: at most {steps} steps, at a learning rate that grows", flush=True)
    with open_bar(total=steps, desc="find_lr") as bar:
        test = run_range_test(config, source, steps=steps, after_step=bar.update, show=print)
    picture = run.path / "find_lr.png"
    write_steps(test, run.path / "find_lr.csv")
    draw_rate_curve(test, picture, title=f"{title}: learning rate range test")
    print(f"written to {run.path}: {picture.name}, find_lr.csv")
    if test.suggestion is None:
        raise UserError(
            f"no learning rate from {test.rates[0]:.1e} to {test.rates[-1]:.1e} lowers the loss in "
            f"{len(test.rates)} steps; see '{picture}', and try more --steps"
        )
    own_peak = test.suggestion * test.batch_size / BASE_BATCH
    print(
        f"suggested peak: --learning_rate={test.suggestion:g} (for a batch of {BASE_BATCH}; "
        f"{own_peak:.2g} for this batch of {test.batch_size}); the settings have "
        f"{test.configured:g}"
    )
    return dataclasses.replace(test, picture=picture)
