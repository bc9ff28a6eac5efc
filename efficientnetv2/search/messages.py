"""What a search and the processes of its trials tell each other; out: picklable structures."""

from __future__ import annotations

import dataclasses
import pathlib

from hparams.resolve import Config

RESULT_FILE = "result.json"
TIMING_FILE = "timing.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One trial.

    Attributes:
      config: of its training, complete.
      folder: its run directory.
      data_folder: where the split of a folder of images is kept, the same for all trials.
      timed_steps: steps that are timed.
      max_spread: as in ``timing.time_step``.
      lock_folder: of the device locks; None: the temporary folder.
    """

    config: Config
    folder: pathlib.Path
    data_folder: pathlib.Path
    timed_steps: int
    max_spread: float
    lock_folder: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a trial has found out.

    Attributes:
      accuracy: minival top-1 after the last epoch, 0..1; the better of raw and averaged weights.
      seconds: of one training step, median.
      spread: of these times.
      rounds: how often it was timed.
      timed_from: when that began, seconds since 1970.
      timed_until: when it ended.
      parameters: all variables.
      epochs: that were trained.
      pruned: it was ended early.
    """

    accuracy: float
    seconds: float
    spread: float
    rounds: int
    timed_from: float
    timed_until: float
    parameters: int
    epochs: int
    pruned: bool


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Told after each epoch; the answer is whether the trial shall end.

    Attributes:
      number: from 1.
      accuracy: as in ``Found``.
      seconds: as in ``Found``.
      parameters: as in ``Found``.
    """

    number: int
    accuracy: float
    seconds: float
    parameters: int


@dataclasses.dataclass(frozen=True)
class Failed:
    """Told when it cannot go on.

    Attributes:
      reason: one line.
      is_fatal: others would fail likewise, as on a full disk.
    """

    reason: str
    is_fatal: bool = False


@dataclasses.dataclass(frozen=True)
class Halted:
    """Told when a signal has stopped it; it is saved."""
