"""Chooses the batch of ``--batch_size=auto``: the largest power of two per device that fits.

On GPUs, steps with more and more images are run until the memory is full. On a CPU the memory is
estimated: a machine without free memory slows down, or kills any of its processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import pathlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import tensorflow as tf
from absl import logging

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.open_data import open_data
from efficientnetv2.data.sources import Source
from efficientnetv2.data.sources.source import MIB
from efficientnetv2.evaluation.model_cost import build_step_trainer, constant_batch
from efficientnetv2.model.complexity import activation_bytes
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import dtype_policy
from efficientnetv2.runtime.available_memory import available_bytes
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.spawn import without_main
from hparams.config import Config
from hparams.errors import DataError, UserError, tensorflow_message
from hparams.resolve import with_overrides

STEPS_PER_EPOCH = 8  # at least: a batch is at most this part of the images
LARGEST = 4096  # images: the paper's batch, the largest that recipes are known for
_SHARE = 0.7  # of the memory that is available on a CPU
_BYTES_PER_PARAMETER = 20  # weights, gradients, two slots of the optimizer, moving average
_GRAPH_BYTES = 600e6  # TensorFlow's, of the step and of the evaluation
# Memory of a step on a CPU, in units of the activations that the backward pass keeps: 1.14 was
# measured from 8 to 128 images of 96 px, the rest is for other networks.
_ACTIVATIONS = 1.5
_POLL_SECONDS = 0.2
_STEPS = 2  # of each size; what the first one allocates may not be all
_REASON_LENGTH = 200  # characters


@dataclasses.dataclass(frozen=True)
class BatchChoice:
    """The batch of a training.

    Attributes:
      batch_size: images per step, over all devices together.
      reason: why it is no larger one, in words.
    """

    batch_size: int
    reason: str


@dataclasses.dataclass(frozen=True)
class _Limit:
    """The largest sensible batch, regardless of memory.

    Attributes:
      unit: devices x microbatches: the parts of a batch that are in memory one by one.
      power: the largest power of two of images in a part.
      reason: why it is no larger one.
    """

    unit: int
    power: int
    reason: str


def choose_batch_size(config: Config, run: RunDirectory, *, stop: StopRequest) -> BatchChoice:
    """Chooses the batch for the devices of this machine; prints nothing.

    The whole batch is a power of two for each device and microbatch (``train.accumulate``), at most
    an eighth of the training images, so that an epoch has 8 steps, and at most 4096.

    Args:
      config: of the training; its batch size does not matter.
      run: the run directory, for the split of a folder of images.
      stop: the signals that stop it.

    Raises:
      UserError: if not even one image per device fits, or the data cannot be opened.
      Stopped: if a signal came.
    """
    if config.runtime.strategy != "cpu" and tf.config.list_physical_devices("GPU"):
        return choose_by_trial(config, run, stop=stop)
    return choose_by_estimate(config, run, available=available_bytes())


def choose_by_estimate(config: Config, run: RunDirectory, *, available: int) -> BatchChoice:
    """Chooses the batch for a CPU, as ``choose_batch_size``.

    Args:
      config: as there.
      run: as there.
      available: bytes of memory that this process can still take.
    """
    config, source = open_data(config, run)
    limit = _limit(config, source.num_images(config.data.train_split), devices=1)
    model = build_model(config.model)
    per_value = 4 if dtype_policy(config.train.precision) == "float32" else 2
    size = config.train.isize
    image = activation_bytes(model, bytes_per_value=per_value, image_size=size)
    network = model.count_params() * _BYTES_PER_PARAMETER
    fixed = _GRAPH_BYTES + network + _cached_bytes(config, source)

    def needed(power: int) -> int:
        return round(fixed + _ACTIVATIONS * image * power)

    power = _largest_power(limit.power, lambda power: needed(power) <= _SHARE * available)
    if power == 0:
        raise UserError(
            f"--batch_size=auto: a step of one image of {size} px needs about "
            f"{needed(1) / 1e9:.1f} GB of memory, of which {available / 1e9:.1f} GB are free; give "
            "a smaller --image_size or model, or a --batch_size of your own"
        )
    memory = (
        f"about {needed(power) / 1e9:.1f} GB of the {available / 1e9:.1f} GB of memory that are "
        "free, by an estimate"
    )
    reason = limit.reason if power == limit.power else f"the next one fills {_SHARE:.0%} of it"
    return BatchChoice(power * limit.unit, f"{memory}; {reason}")


def _limit(config: Config, num_images: int, *, devices: int) -> _Limit:
    unit = devices * config.train.accumulate
    by_images = num_images // STEPS_PER_EPOCH
    power = 2 ** math.floor(math.log2(max(1, min(by_images, LARGEST) // unit)))
    reason = f"no larger one leaves {STEPS_PER_EPOCH} steps for {num_images:,} images"
    if by_images >= LARGEST:
        reason = f"recipes go up to {LARGEST}"
    return _Limit(unit, power, reason)


def _cached_bytes(config: Config, source: Source) -> int:
    """Returns the most memory that encoded images, and those of minival, take for good."""
    encoded, prepared = config.data.cache_mib * MIB, 0
    with contextlib.suppress(DataError):  # minival may be empty
        minival = EvaluationInput(config, source, split=config.data.minival_split)
        prepared = minival.kept_bytes
    return encoded + prepared


def _largest_power(high: int, fits: Callable[[int], bool]) -> int:
    """Returns the largest power of two, up to ``high``, before the first that does not fit; or 0.

    >>> _largest_power(64, lambda power: power <= 20)
    16
    """
    best, power = 0, 1
    while power <= high and fits(power):
        best, power = power, 2 * power
    return best


# ---------------------------------------------------------------------- by trial


def choose_by_trial(config: Config, run: RunDirectory, *, stop: StopRequest) -> BatchChoice:
    """Chooses the batch by running steps, as ``choose_batch_size``.

    They run in a process of their own: its memory is free again afterwards, and if it is killed for
    lack of memory, the largest batch that it has run counts.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_try_batches, args=(config, run.path, there), daemon=True)
    with without_main():
        process.start()
    there.close()
    best: BatchChoice | None = None
    failure = "the process died, probably for lack of memory"
    try:
        while True:
            stop.check()
            if here.poll(_POLL_SECONDS):
                message = here.recv()
                if isinstance(message, UserError):
                    raise message
                if isinstance(message, BatchChoice):
                    best = message
                else:
                    failure = str(message)
    except (EOFError, OSError):  # it has ended
        pass
    finally:
        here.close()
        process.kill()
        process.join()
    if best is None:
        raise UserError(
            f"--batch_size=auto: not even a step of one image of {config.train.isize} px per "
            f"device can be run: {failure}"
        )
    return best


def _try_batches(config: Config, folder: pathlib.Path, connection: Connection) -> None:
    """Runs steps of larger and larger batches, and sends each that fits; a process's function."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C in a terminal goes to the training, which ends this process
    logging.set_verbosity(logging.ERROR)  # TensorFlow Datasets repeats its warnings
    try:
        config, source = open_data(config, RunDirectory(folder))
        num_images = source.num_images(config.data.train_split)
        unit = config.train.accumulate
        # A batch of one image for each device, whose settings hold for all others.
        settings: dict[str, Any] = {"train.batch_size": unit, "runtime.steps_per_loop": 1}
        settings |= {"data.repeats": 1, "train.lr_min": 0.0}  # which may not go with so small a one
        trainer, strategy = build_step_trainer(with_overrides(config, settings))
        limit = _limit(config, num_images, devices=strategy.num_replicas_in_sync)
    except UserError as error:
        connection.send(UserError(str(error)))
        return
    image = tf.data.Dataset.from_tensor_slices(constant_batch(config, unit)).repeat()

    def fits(power: int) -> bool:
        # Batched on the way, the size is not a part of the trace: one trace serves all.
        batches = image.batch(power * strategy.num_replicas_in_sync)
        try:
            trainer.set_input(strategy.experimental_distribute_dataset(batches))
            for _ in range(_STEPS):
                trainer.train(tf.constant(1))
        # A library on the GPU reports a full memory in words of its own.
        except (tf.errors.ResourceExhaustedError, tf.errors.InternalError) as error:
            connection.send(tensorflow_message(str(error), limit=_REASON_LENGTH))
            return False
        is_last = power == limit.power
        reason = limit.reason if is_last else "the next one does not fit into memory"
        text = f"it ran a step of {config.train.isize} px; {reason}"
        connection.send(BatchChoice(power * limit.unit, text))
        return True

    _largest_power(limit.power, fits)
