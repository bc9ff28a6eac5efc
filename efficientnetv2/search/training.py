"""A trial in; what its training reached, and what a step of it takes, out.

The training is the one of ``--mode=traineval``: it goes on from its run directory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from efficientnetv2.costs import training_step
from efficientnetv2.opening import open_data, open_evaluator, open_split
from efficientnetv2.search.messages import Epoch, Job
from efficientnetv2.search.timing import StepTime, time_step
from efficientnetv2.train.checkpoint_files import require_usable
from efficientnetv2.train.cluster import require_for_replicas
from efficientnetv2.train.lock import training_lock
from efficientnetv2.train.loop import Training
from efficientnetv2.train.observer import Observer
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import mend
from efficientnetv2.train.stages import Stage
from efficientnetv2.train.stopping import Stopped, StopRequest
from efficientnetv2.train.workers import build_workers
from efficientnetv2.trained import start_from_pretrained
from efficientnetv2.validate import validator
from hparams.errors import UserError
from hparams.resolve import require_full_batch


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training reached; the fields are those of ``trial.Found``."""

    accuracy: float
    parameters: int
    epochs: int
    pruned: bool


class _EndedEarlyError(UserError):
    """Ends a training after an epoch; what is done is saved."""


class _Teller(Observer):
    """Tells the accuracy of each epoch, also of those of an earlier start."""

    parameters = 0  # of the network, when it is there

    def __init__(
        self, run: RunDirectory, *, seconds: float, shall_end: Callable[[Epoch], bool]
    ) -> None:
        self._run = run
        self._seconds = seconds
        self._shall_end = shall_end

    def begin(self, *, step: int, plan: list[Stage]) -> None:
        del step, plan
        for line in self._run.metrics():
            self.epoch(line)

    def epoch(self, line: dict[str, Any]) -> None:
        epoch = Epoch(line["epoch"], accuracy_of(line), self._seconds, self.parameters)
        if self._shall_end(epoch):
            raise _EndedEarlyError


def accuracy_of(line: dict[str, Any]) -> float:
    """Returns the minival top-1 of a record: the better one of raw and averaged weights."""
    return float(max(line["minival_top1"], line.get("minival_ema_top1", 0.0)))


def train(
    job: Job, *, seconds: float, shall_end: Callable[[Epoch], bool], stop: StopRequest
) -> Trained:
    """Trains to the end, or to where ``shall_end`` says so.

    Args:
      job: the trial.
      seconds: of a step, to be told with each epoch.
      shall_end: is told of each epoch.
      stop: the signals that stop it.

    Raises:
      Stopped: by a signal; all is saved.
    """
    run = RunDirectory(job.folder)
    with training_lock(run.lock_file):
        run.require_same(job.config)
        require_usable(run)
        mend(run)
        workers = build_workers(job.config)
        require_for_replicas(job.config, workers.strategy.num_replicas_in_sync)
        config, source = open_data(job.config, RunDirectory(job.data_folder))
        require_full_batch(config, num_images=source.num_images(config.data.train_split))
        run.start(config, source.class_names)
        observer = _Teller(run, seconds=seconds, shall_end=shall_end)
        training = Training(config, source, run=run, observer=observer, stop=stop, workers=workers)
        observer.parameters = training.learner.model.count_params()
        start_from_pretrained(config, training.learner)
        after_epoch = validator(
            training.learner,
            open_evaluator(config, training.learner.model, strategy=training.strategy),
            open_split(config, source, run, split=config.data.minival_split),
            best=None,
            workers=workers,
            stop=stop,
        )
        pruned = False
        try:
            stopped_by = training.run(after_epoch=after_epoch)
        except _EndedEarlyError:
            stopped_by, pruned = None, True
        if stopped_by is not None:
            raise Stopped(stopped_by)
        last = run.metrics()[-1]
        return Trained(accuracy_of(last), observer.parameters, last["epoch"], pruned)


def time_training(job: Job) -> StepTime:
    """Times the training step of a network whose weights are new: they do not matter for it."""
    config, _ = open_data(job.config, RunDirectory(job.data_folder))  # it tells the classes
    loop = config.runtime.steps_per_loop
    timed = time_step(training_step(config), steps=job.timed_steps, max_spread=job.max_spread)
    return dataclasses.replace(timed, seconds=timed.seconds / loop)
