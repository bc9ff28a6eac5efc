"""Yields a run's checkpoints as they appear, while training is still running there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from efficientnetv2.runtime.checkpoint_store import (
    find_checkpoint,
    find_damage,
    is_in_flux,
    latest_checkpoint,
    step_of,
    steps,
)
from efficientnetv2.runtime.lock import lock_holder
from efficientnetv2.runtime.run_directory import RunDirectory

_POLL_SECONDS = 1.0


def wait_for_config(run: RunDirectory) -> None:
    """Waits until config.yaml exists, or until no training process is left that could write it."""
    while not run.config_file.is_file() and lock_holder(run.lock_file) is not None:
        time.sleep(_POLL_SECONDS)


def new_checkpoints(run: RunDirectory) -> Iterator[str]:
    """Yields the newest checkpoint, then each new one until training in the directory has ended.

    Checkpoints that are removed before their turn are skipped; damaged ones are skipped with a
    warning on stderr.

    Yields:
      Path prefixes; the files may be removed at any time.

    Raises:
      RunError: if there is no checkpoint and no training that could write one.
    """
    # Always check for a running training before looking at the files, not after: otherwise its
    # last checkpoint could be missed.
    while lock_holder(run.lock_file) is not None and find_checkpoint(run) is None:
        time.sleep(_POLL_SECONDS)
    is_training = lock_holder(run.lock_file) is not None
    newest = latest_checkpoint(run)
    last_step = step_of(newest)
    yield newest
    while is_training:
        is_training = lock_holder(run.lock_file) is not None
        while (step := _next_step(run, last_step)) is not None:
            last_step = step
            damage = find_damage(run.checkpoints, step)
            if damage is None:
                yield str(run.checkpoints / f"ckpt-{step}")
            elif not is_in_flux(run.checkpoints, step):
                print(f"warning: checkpoint ckpt-{step} is damaged: {damage}", file=sys.stderr)
        if is_training:
            time.sleep(_POLL_SECONDS)


def _next_step(run: RunDirectory, last_step: int) -> int | None:
    """Returns the step of the first checkpoint after ``last_step`` that is not being written."""
    newer = (step for step in steps(run.checkpoints) if step > last_step)
    return next((step for step in newer if not is_in_flux(run.checkpoints, step)), None)
