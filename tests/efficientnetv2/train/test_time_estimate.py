"""Tests what a training estimates of itself, on trainings of a tiny network and a slow clock."""

import dataclasses
import time

import pytest

from efficientnetv2.evaluation.rehearsal import rehearse
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.loop import Training
from efficientnetv2.train.time_estimate import LONG_SECONDS, RunEstimator, StepClock
from efficientnetv2.train.workload import build_workload, image_multiply_adds
from hparams import resolve
from hparams.overrides import read_overrides
from hparams.resolve import with_overrides

TINY = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16_se0.25"],
    "model.feature_size": 16,
    "train.epochs": 24,
    "train.batch_size": 64,
    "train.stages": 2,
    "data.ibase": 16,
    "train.isize": 32,
    "eval.isize": 32,
    "runtime.save_checkpoint_epochs": 8,
    "runtime.keep_checkpoint_max": 2,
}


class Notes(TrainingCallback):
    """Notes when each estimate came, and when training ended."""

    def __init__(self, stop_at=None):
        self.estimates, self.ended, self.began = [], 0.0, 0.0
        self.stop_at = stop_at

    def begin(self, *, step, plan):
        self.began = time.monotonic()

    def estimate(self, estimate):
        self.estimates.append((time.monotonic(), estimate))

    def end(self):
        self.ended = time.monotonic()


def config_of(**settings):
    return resolve("efficientnetv2-b0", "digits", {**TINY, **settings})


def training_of(digits, folder, callback=None, **settings):
    config = config_of(**settings)
    run = RunDirectory(folder)
    run.start(config, digits.class_names)
    return Training(config, digits, run=run, callback=callback)


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_an_estimate_comes_true(digits, tmp_path):
    rehearsed = rehearse(config_of(), digits, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    notes = Notes()
    training_of(digits, tmp_path / "run", notes).run()
    when, estimate = notes.estimates[0]
    took = notes.ended - when
    assert took / 3 < estimate.seconds < 3 * took + 5  # other work shares the cores
    assert (estimate.corrects, estimate.is_long, estimate.epochs <= 24) == (False, False, True)
    written = bytes_in(tmp_path / "run" / "checkpoints")
    assert estimate.disk_bytes == rehearsed.disk_bytes
    assert estimate.disk_bytes < written < estimate.disk_bytes + 80_000  # names and checksums
    whole = notes.ended - notes.began
    assert whole / 4 < rehearsed.seconds < 4 * whole + 10
    assert rehearsed.epochs == 24


class SlowClock:
    """A clock on which a step takes as long as a function of its multiply-adds says."""

    def __init__(self, workload, *, factor=lambda step: 1.0):
        self.now, self.workload, self.factor = 100.0, workload, factor

    def run(self, clock, first, end):
        estimates = []
        for step in range(first, end):
            seconds = 0.2 + 1e-7 * self.workload.multiply_adds(step, step + 1)
            self.now += self.factor(step) * (seconds if step > first else 9.0)
            estimates.append(clock.after(step + 1))
        return [estimate for estimate in estimates if estimate is not None]


@pytest.fixture(scope="module")
def estimator(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    training = training_of(digits, folder)
    workload = build_workload(config_of(), digits, validates=False)
    return RunEstimator(config_of(), digits, training.train_state, workload, folder)


def test_steps_of_two_stages_are_scaled_by_their_arithmetic(estimator):
    workload, slow = estimator.workload, SlowClock(estimator.workload)
    clock = StepClock(estimator, wait=lambda: None, clock=lambda: slow.now)
    (first,) = slow.run(clock, 0, 200)
    boundary = workload.plan[0].end_step
    clock.begin_stage()
    assert slow.run(clock, boundary, boundary + 40) == []  # it was right enough
    seconds = [0.2 + 1e-7 * workload.multiply_adds(s, s + 1) for s in range(workload.end_step)]
    assert first.epochs == 24
    # From the seventh step on, or so; evaluation and saves, of a second or two, are included.
    assert sum(seconds[7:]) * 0.6 < first.seconds < sum(seconds[7:]) * 1.7


def test_the_tracing_and_what_follows_an_epoch_do_not_count(estimator):
    slow = SlowClock(estimator.workload)
    clock = StepClock(estimator, wait=lambda: None, clock=lambda: slow.now)
    assert slow.run(clock, 0, 4) == []
    clock.pause(4)
    slow.now += 1000.0  # an evaluation
    (paused,) = slow.run(clock, 4, 40)
    other = SlowClock(estimator.workload)
    fresh = StepClock(estimator, wait=lambda: None, clock=lambda: other.now)
    (through,) = other.run(fresh, 0, 40)
    assert paused.seconds == pytest.approx(through.seconds, rel=0.1)


def test_an_estimate_that_was_wrong_by_a_lot_is_corrected_once_a_stage(estimator):
    boundary = estimator.workload.plan[0].end_step
    slow = SlowClock(estimator.workload, factor=lambda step: 1.0 if step < boundary else 5.0)
    clock = StepClock(estimator, wait=lambda: None, clock=lambda: slow.now)
    assert [e.corrects for e in slow.run(clock, 0, boundary)] == [False]
    clock.begin_stage()
    assert [e.corrects for e in slow.run(clock, boundary, boundary + 40)] == [True]


def test_a_resumed_training_estimates_what_is_left(estimator):
    ends = []
    for first in (0, estimator.workload.end_step - 60):
        slow = SlowClock(estimator.workload)
        clock = StepClock(estimator, wait=lambda: None, clock=lambda: slow.now)  # noqa: B023
        (estimate,) = slow.run(clock, first, first + 20)
        ends.append(estimate)
    assert ends[1].epochs == 3 and ends[0].epochs == 24
    assert ends[1].seconds < ends[0].seconds / 5


def test_later_images_need_more_memory(estimator):
    small, large = (
        estimator.estimate(0, [(1e6, 0.1)], overhead_seconds=0.0, largest_batch=(size, 64))
        for size in (16, 32)
    )
    # The images, 3 tensors of a convolution with BatchNorm and activation, and so on: four times
    # as much with images of twice the side.
    assert 0.5e6 < small.memory_bytes - large.memory_bytes < 200e6


@pytest.mark.parametrize(("seconds", "flags"), [(0.02, 1), (0.3, 1), (1.5, 2), (60.0, 2)])
def test_the_proposed_flags_make_it_short_by_the_same_estimate(digits, estimator, seconds, flags):
    config = with_overrides(config_of(), {"train.epochs": 10_000, "train.stages": 1})
    workload = build_workload(config, digits, validates=False)
    long = dataclasses.replace(estimator, config=config, workload=workload)
    work = 64 * image_multiply_adds(config.model, 32)
    options = {"overhead_seconds": 5.0, "largest_batch": (32, 64)}
    estimate = long.estimate(0, [(work, seconds)], **options)
    assert estimate.is_long and estimate.seconds > LONG_SECONDS
    if seconds == 60.0:  # an epoch takes 19 minutes, of the smallest images as well
        flags = len(estimate.shorter.flags.split())
    given = dict(flag.removeprefix("--").split("=") for flag in estimate.shorter.flags.split())
    assert len(given) == flags or given.keys() == {"epochs"}
    names = {"epochs": ["train.epochs"], "image_size": ["train.isize", "eval.isize"]}
    changes = {key: value for name, value in given.items() for key in names[name]}
    shorter = with_overrides(config, read_overrides(changes)[0])
    other = build_workload(shorter, digits, validates=False)
    again = dataclasses.replace(long, config=shorter, workload=other)
    result = again.estimate(0, [(work, seconds)], **options)
    assert not result.is_long
    assert result.seconds == pytest.approx(estimate.shorter.seconds, rel=0.05)


def test_what_nothing_makes_short(digits, estimator):
    config = with_overrides(config_of(), {"train.min_steps": 1_000_000, "train.isize": 32})
    workload = build_workload(config, digits, validates=False)
    long = dataclasses.replace(estimator, config=config, workload=workload)
    options = {"overhead_seconds": 0.0, "largest_batch": (32, 64)}
    estimate = long.estimate(0, [(1e6, 10.0)], **options)
    assert (estimate.is_long, estimate.shorter) == (True, None)
