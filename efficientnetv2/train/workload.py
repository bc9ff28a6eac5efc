"""Counts the arithmetic of a training, and the time that it takes once some steps are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from efficientnetv2.data.schedule import SettingsSchedule
from efficientnetv2.data.sources import Source
from efficientnetv2.runtime.teacher_run import find_teacher
from efficientnetv2.train.progressive import (
    Stage,
    build_settings,
    build_stages,
    stage_at,
    validation_size,
)
from hparams.architecture import cost, scaled_architecture
from hparams.config import Config, ModelSection
from hparams.errors import UserError
from hparams.models import MODELS

# The update of one parameter (optimizer and moving average) takes as long as so many multiply-adds.
# Measured on two CPU cores with AdamW, at 32 and 96 px: 160 with B0, 330 with S.
_UPDATE_MULTIPLY_ADDS = 200
_FORWARD_SHARE = 1 / 3  # of a training step; the backward pass has two products for each of its


def image_multiply_adds(model: ModelSection, image_size: int) -> float:
    """Returns the multiply-adds of one image, forward; a ResNet's grow with the area."""
    architecture = scaled_architecture(model)
    if architecture.stages:
        return cost(architecture, image_size=image_size, channels=model.channels).multiply_adds
    row = MODELS[model.model_name]
    return row.published.flops_b * 1e9 * (image_size / row.eval_size) ** 2


@dataclasses.dataclass(frozen=True)
class StepCost:
    """The measured speed of a device.

    Attributes:
      seconds_per_step: what a step takes whatever its images: the update of the parameters.
      seconds_per_multiply_add: of the forward pass in training; the backward pass is included.
    """

    seconds_per_step: float
    seconds_per_multiply_add: float


def fit_step_cost(steps: Sequence[tuple[float, float]], *, parameters: int) -> StepCost:
    """Fits the speed of a device to measured steps.

    >>> fit_step_cost([(1e9, 2.0), (3e9, 5.0)], parameters=1)
    StepCost(seconds_per_step=0.5, seconds_per_multiply_add=1.5e-09)

    Args:
      steps: (multiply-adds, seconds) of at least one step. Where all have about the same
        multiply-adds, the parameters' share of a step is taken from what was measured elsewhere.
      parameters: number of the network's parameters.
    """
    work, seconds = np.array(steps, np.float64).T
    if work.max() > 1.3 * work.min():
        slope, fixed = np.polyfit(work, seconds, 1)
        if slope > 0 and fixed >= 0:
            return StepCost(float(fixed), float(slope))
    update = _UPDATE_MULTIPLY_ADDS * parameters
    slope = float(np.mean(seconds / (work + update)))
    return StepCost(slope * update, slope)


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a training computes.

    Attributes:
      model: the network.
      plan: the stages.
      settings: image and batch size by step.
      validation_images: evaluated after each epoch, those of the moving average counted again.
      final_images: evaluated at the end, likewise.
      validation_sizes: image size of the evaluation in each stage, pixels.
      eval_size: image size of evaluation, pixels.
      teacher_multiply_adds: of a teacher's forward pass, for one image; 0: there is no teacher.
    """

    model: ModelSection
    plan: Sequence[Stage]
    settings: SettingsSchedule
    validation_images: int
    final_images: int
    validation_sizes: Sequence[int]
    eval_size: int
    teacher_multiply_adds: float = 0.0

    @property
    def end_step(self) -> int:
        """Number of steps of the whole training."""
        return self.plan[-1].end_step

    def training_multiply_adds(self, image_size: int) -> float:
        """Returns those of training on one image, forward; a teacher's have no backward pass."""
        teacher = _FORWARD_SHARE * self.teacher_multiply_adds
        return image_multiply_adds(self.model, image_size) + teacher

    def multiply_adds(self, first_step: int, end_step: int) -> float:
        """Returns those of the steps ``first_step`` .. ``end_step - 1``, forward."""
        starts, rows = self.settings.first_step, self.settings.rows
        bounds = np.clip([*starts, max(end_step, starts[-1])], first_step, end_step)
        images = np.diff(bounds) * rows.batch_size
        sizes, index = np.unique(rows.image_size, return_inverse=True)
        by_size = np.bincount(index, weights=images)
        return float(sum(n * self.training_multiply_adds(int(s)) for n, s in zip(by_size, sizes)))

    def largest_batch(self, *, end_step: int | None = None) -> tuple[int, int]:
        """Returns the (image size, batch size) with the most pixels, of the steps before a step."""
        starts, rows = self.settings.first_step, self.settings.rows
        begun = starts < (self.end_step if end_step is None else max(end_step, 1))
        pixels = np.where(begun, rows.image_size**2 * rows.batch_size, 0)
        row = int(np.argmax(pixels))
        return int(rows.image_size[row]), int(rows.batch_size[row])

    def epochs_left(self, step: int) -> float:
        """Returns how many epochs are left after so many steps, parts of an epoch included."""
        if step >= self.end_step:
            return 0.0
        stage = stage_at(self.plan, step)
        done = stage.first_epoch + (step - stage.first_step) / stage.steps_per_epoch
        return self.plan[-1].end_epoch - done

    def seconds_left(self, step: int, speed: StepCost) -> float:
        """Returns the time of the steps after ``step`` and of their evaluations."""
        forward = _FORWARD_SHARE * self._evaluation_multiply_adds(step)
        training = self.multiply_adds(step, self.end_step)
        return float(
            (self.end_step - step) * speed.seconds_per_step
            + (training + forward) * speed.seconds_per_multiply_add
        )

    def _evaluation_multiply_adds(self, step: int) -> float:
        """Returns those of the evaluations after ``step``, those of the end included."""
        total = self.final_images * image_multiply_adds(self.model, self.eval_size)
        for stage, size in zip(self.plan, self.validation_sizes):
            steps = stage.end_step - max(step, stage.first_step)
            epochs = np.ceil(max(steps, 0) / stage.steps_per_epoch)
            total += epochs * self.validation_images * image_multiply_adds(self.model, size)
        return float(total)


def build_workload(config: Config, source: Source, *, validates: bool) -> Workload:
    """Counts what a training of a complete config computes.

    Args:
      config: from ``open_data``.
      source: the data set.
      validates: whether the minival split is evaluated after each epoch.
    """
    plan = build_stages(config, num_images=source.num_images(config.data.train_split))
    passes = 2 if config.train.ema_decay else 1
    teacher = find_teacher(config)
    return Workload(
        model=config.model,
        plan=plan,
        settings=build_settings(config, plan),
        validation_images=passes * _count(source, config.data.minival_split) if validates else 0,
        final_images=passes * _count(source, config.data.eval_split),
        validation_sizes=[validation_size(config, stage) for stage in plan],
        eval_size=config.eval.isize,
        teacher_multiply_adds=(
            image_multiply_adds(teacher.model, teacher.image_size) if teacher else 0.0
        ),
    )


def _count(source: Source, split: str) -> int:
    """Returns the images of a split; 0 if it cannot be opened, as its evaluation will say."""
    try:
        return source.num_images(split)
    except UserError:
        return 0
