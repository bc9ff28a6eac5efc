"""Defines the picklable messages between a search and the processes of its trials."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from hparams.config import Config

RESULT_FILE = "result.json"
TIMING_FILE = "timing.json"


@dataclasses.dataclass(frozen=True)
class TrialJob:
    """Sent to the process of a trial: what to train and time.

    Attributes:
      config: the complete config of its training.
      folder: its run directory.
      data_folder: the run directory that stores the split of a folder of images; the same for all
        trials, so that they are compared on the same images.
      identity: what the result on disk must have in common with the trial.
      timed_steps: number of training steps to time; 0: the time of a step does not matter.
      max_spread: as in ``step_timer.time_step``.
      lock_folder: folder of the device locks; None: the temporary folder.
    """

    config: Config
    folder: pathlib.Path
    data_folder: pathlib.Path
    identity: Mapping[str, Any]
    timed_steps: int
    max_spread: float
    lock_folder: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """Sent at the end of a trial that trained: what it measured.

    The numbers of a timing are None if there was none.

    Attributes:
      accuracy: minival top-1 after the last epoch, 0..1; the better of raw and averaged weights.
      seconds: median time of a training step.
      spread: interquartile range of these times, as a fraction of the median.
      rounds: how many rounds of timing it took.
      timed_from: when the timing began, seconds since 1970.
      timed_until: when the timing ended, seconds since 1970.
      parameters: number of all variables.
      epochs: number of epochs trained.
      pruned: whether the search ended it early.
    """

    accuracy: float
    seconds: float | None
    spread: float | None
    rounds: int | None
    timed_from: float | None
    timed_until: float | None
    parameters: int
    epochs: int
    pruned: bool


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """Sent after each epoch; the search replies whether to prune the trial.

    Attributes:
      number: of the epoch, from 1.
      accuracy: as in ``TrialResult``.
      seconds: as in ``TrialResult``.
      parameters: as in ``TrialResult``.
    """

    number: int
    accuracy: float
    seconds: float | None
    parameters: int


@dataclasses.dataclass(frozen=True)
class TrialFailure:
    """Sent when a trial cannot go on.

    Attributes:
      reason: one line.
      is_fatal: whether other trials would fail in the same way, as on a full disk.
    """

    reason: str
    is_fatal: bool = False


@dataclasses.dataclass(frozen=True)
class TrialStopped:
    """Sent when a signal has stopped a trial; its state is saved."""
