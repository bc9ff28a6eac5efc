"""A run directory in; its checkpoints as they appear, while a training runs there, out."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from efficientnetv2.train.checkpoint_files import (
    find_checkpoint,
    is_in_flux,
    latest_checkpoint,
    problem,
    steps,
)
from efficientnetv2.train.lock import holder
from efficientnetv2.train.run_directory import RunDirectory

_POLL_SECONDS = 1.0


def wait_for_config(run: RunDirectory) -> None:
    """Waits for config.yaml, as long as a training runs that has yet to write it."""
    while not run.config_file.is_file() and holder(run.lock_file) is not None:
        time.sleep(_POLL_SECONDS)


def new_checkpoints(run: RunDirectory) -> Iterator[str]:
    """Yields the newest checkpoint, then each new one until no training holds the directory.

    What was removed before its turn came is left out; what is damaged is named on stderr.

    Yields:
      Path prefixes; they may vanish at any time.

    Raises:
      RunError: if there is no checkpoint, and none will come.
    """
    # Whether a training runs is asked before each look: what it saved last is then not missed.
    while holder(run.lock_file) is not None and find_checkpoint(run) is None:
        time.sleep(_POLL_SECONDS)
    training = holder(run.lock_file) is not None
    newest = latest_checkpoint(run)
    seen = int(newest.rpartition("-")[2])
    yield newest
    while training:
        training = holder(run.lock_file) is not None
        while (step := _next(run, seen)) is not None:
            seen = step
            reason = problem(run.checkpoints, step)
            if reason is None:
                yield str(run.checkpoints / f"ckpt-{step}")
            elif not is_in_flux(run.checkpoints, step):
                print(f"warning: checkpoint ckpt-{step} is damaged: {reason}", file=sys.stderr)
        if training:
            time.sleep(_POLL_SECONDS)


def _next(run: RunDirectory, seen: int) -> int | None:
    """The first checkpoint after a step that is not being written just now."""
    fresh = (step for step in steps(run.checkpoints) if step > seen)
    return next((step for step in fresh if not is_in_flux(run.checkpoints, step)), None)
