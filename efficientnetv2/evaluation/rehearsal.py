"""Estimates a training before it begins: runs a few of its steps and throws them away."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from efficientnetv2.data.sources import Source
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.evaluation.model_cost import call_seconds
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.progressive import Stage, phases_of, stage_settings
from efficientnetv2.train.step import build_trainer
from efficientnetv2.train.strategy import build_strategy, distribute_training
from efficientnetv2.train.time_estimate import EVALUATION_SHARE, RunEstimate, RunEstimator
from efficientnetv2.train.train_state import build_train_state
from efficientnetv2.train.workload import Workload, build_workload
from hparams.config import Config
from hparams.resolve import with_overrides

_STEPS = 4  # timed, of each image size
_SIZE_SECONDS = 5.0  # for the steps of one image size
_LARGEST_STEP = 4e9  # multiply-adds: a larger batch is measured by some of its images


def rehearse(config: Config, source: Source, folder: pathlib.Path) -> RunEstimate:
    """Runs steps of the smallest and the largest images of a training, and estimates all of it.

    The network starts from random weights, which take as long as others. Nothing is written.

    Args:
      config: the complete config, for the devices of this process.
      source: the data set.
      folder: the run directory of the training, for the message.

    Raises:
      UserError: if the machine does not have the devices, or an image cannot be read.
    """
    one_by_one = with_overrides(config, {"runtime.steps_per_loop": 1})
    workload = build_workload(config, source, validates=False)
    strategy = build_strategy(config)
    unit = config.train.accumulate * strategy.num_replicas_in_sync
    stages = list(_rehearsed_stages(workload, unit=unit))
    with strategy.scope():
        train_state = build_train_state(config, build_learning_rate(config, workload.plan))
    trainer = build_trainer(
        one_by_one,
        train_state,
        strategy,
        settings=stage_settings(stages[-1:]),
        after_step=lambda _: None,
    )
    measured, build_seconds = [], 0.0
    for stage in stages:
        batches = build_training_input(
            config,
            source,
            phases=phases_of([stage]),
            settings=stage_settings([stage]),
            microbatches=config.train.accumulate,
        )
        trainer.set_input(distribute_training(strategy, batches, start_step=0))
        try:
            first, seconds = call_seconds(
                lambda: trainer.train(tf.constant(1)), steps=_STEPS, warm_up=1, limit=_SIZE_SECONDS
            )
        except tf.errors.OpError as error:
            batches.raise_bad_image(error, step=0)
        build_seconds = max(build_seconds, first)
        work = stage.batch_size * workload.training_multiply_adds(stage.image_size)
        measured.append((work, float(np.median(seconds))))
    trainer.clear_input()
    estimator = RunEstimator(
        config, source, train_state, workload, folder, strategy.num_replicas_in_sync
    )
    largest = max(stages, key=lambda stage: stage.batch_size * stage.image_size**2)
    return estimator.estimate(
        0,
        measured,
        overhead_seconds=(1 + EVALUATION_SHARE) * build_seconds,
        largest_batch=(largest.image_size, largest.batch_size),
    )


def _rehearsed_stages(workload: Workload, *, unit: int) -> Iterator[Stage]:
    """Yields the smallest and the largest images, in batches that are not too large to try.

    Args:
      workload: of the training.
      unit: the batch sizes are multiples of this.
    """
    rows = workload.settings.rows
    for row in sorted({int(np.argmin(rows.image_size)), int(np.argmax(rows.image_size))}):
        size, batch_size = int(rows.image_size[row]), int(rows.batch_size[row])
        images = int(_LARGEST_STEP / workload.training_multiply_adds(size))
        yield dataclasses.replace(
            workload.plan[-1],
            index=0,
            first_epoch=0,
            first_step=0,
            image_size=size,
            batch_size=unit * max(1, min(batch_size, images) // unit),
        )
