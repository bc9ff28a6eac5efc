"""Measures a network's speed and memory on this machine, in training and in inference."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import multiprocessing
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.complexity import activation_bytes, multiply_adds
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import dtype_policy
from efficientnetv2.model.traced_function import function_without_gradient
from efficientnetv2.runtime.spawn import without_main
from efficientnetv2.train.learning_rate import LearningRate
from efficientnetv2.train.peak_memory import peak_bytes
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer, build_trainer
from efficientnetv2.train.strategy import build_strategy
from efficientnetv2.train.train_state import build_train_state
from hparams.architecture import Cost, cost, scaled_architecture
from hparams.config import Config
from hparams.errors import UserError
from hparams.models import MODELS

_WARM_UP = 2  # calls after the first, which traces
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """The measured cost of one network. Times are medians unless they say otherwise.

    Attributes:
      model: the network's name.
      top1: ImageNet top-1 in percent, as published.
      parameters: the number of values in all variables.
      multiply_adds: for one image at the network's published evaluation size.
      batch_size: images per training step, and per batch of inference.
      train_size: image size in training, pixels.
      eval_size: image size in inference, pixels.
      first_step_seconds: time of the first training step, tracing included.
      train_images_per_second: in whole training steps, from forward pass to moving average.
      train_step_seconds: time of one training step.
      train_step_p95_seconds: 95th percentile of the same.
      activation_mib: activations that the backward pass needs for one training image, computed.
      train_peak_mib: peak memory in use: on a GPU the device's, on a CPU the process's.
      infer_images_per_second: in batches.
      infer_batch_ms: time of one batch.
      infer_batch_p95_ms: 95th percentile of the same.
      latency_ms: time of one image alone.
      latency_p95_ms: 95th percentile of the same.
    """

    model: str
    top1: float
    parameters: int
    multiply_adds: int
    batch_size: int
    train_size: int
    eval_size: int
    first_step_seconds: float
    train_images_per_second: float
    train_step_seconds: float
    train_step_p95_seconds: float
    activation_mib: float
    train_peak_mib: float
    infer_images_per_second: float
    infer_batch_ms: float
    infer_batch_p95_ms: float
    latency_ms: float
    latency_p95_ms: float


def measure_cost(config: Config, *, steps: int) -> ModelCost:
    """Measures a network in a process of its own, so that its memory is not mixed with another's.

    Args:
      config: ``train.batch_size``, ``train.isize``, ``eval.isize``, precision and devices matter.
      steps: the number of timed calls, for training and each kind of inference.

    Raises:
      UserError: if the process dies or runs out of memory.
    """
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            with without_main():
                measured = pool.submit(_measure, config, steps)
            return measured.result()
        except concurrent.futures.process.BrokenProcessPool:
            reason = "its process died, probably for lack of memory"
        except tf.errors.ResourceExhaustedError:
            reason = "the device ran out of memory"
    raise UserError(
        f"{config.model.model_name} with {config.train.batch_size} images of "
        f"{config.train.isize} px: {reason}"
    )


def _measure(config: Config, steps: int) -> ModelCost:
    train, static_cost = config.train, _static_cost(config)
    model = build_model(config.model)
    batched, single = (
        call_seconds(_inference(config, model, batch_size=batch_size), steps=steps)[1]
        for batch_size in (train.batch_size, 1)
    )
    first, loops = call_seconds(training_step(config), steps=steps)
    peak, training = (
        peak_bytes() / _MIB,
        [seconds / config.runtime.steps_per_loop for seconds in loops],
    )
    step, batch = float(np.median(training)), float(np.median(batched))
    return ModelCost(
        model=config.model.model_name,
        top1=MODELS[config.model.model_name].published.top1,
        parameters=static_cost.parameters,
        multiply_adds=static_cost.multiply_adds,
        batch_size=train.batch_size,
        train_size=train.isize,
        eval_size=config.eval.isize,
        first_step_seconds=first,
        train_images_per_second=train.batch_size / step,
        train_step_seconds=step,
        train_step_p95_seconds=_p95(training),
        activation_mib=_activation_mib(config),
        train_peak_mib=peak,
        infer_images_per_second=train.batch_size / batch,
        infer_batch_ms=1e3 * batch,
        infer_batch_p95_ms=1e3 * _p95(batched),
        latency_ms=1e3 * float(np.median(single)),
        latency_p95_ms=1e3 * _p95(single),
    )


def _p95(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 95))


def _static_cost(config: Config) -> Cost:
    """Parameters, and multiply-adds at the network's published evaluation size."""
    size, channels = MODELS[config.model.model_name].eval_size, config.model.channels
    architecture = scaled_architecture(config.model)
    if architecture.stages:
        return cost(
            architecture,
            image_size=size,
            num_classes=config.model.num_classes,
            channels=channels,
        )
    model = build_model(config.model, input_shape=(size, size, channels))
    return Cost(model.count_params(), multiply_adds(model))


def _activation_mib(config: Config) -> float:
    size, channels = config.train.isize, config.model.channels
    is_last = config.model.data_format == "channels_last"
    shape = (size, size, channels) if is_last else (channels, size, size)
    bytes_per_value = 4 if dtype_policy(config.train.precision) == "float32" else 2
    model = build_model(config.model, input_shape=shape)
    return activation_bytes(model, bytes_per_value=bytes_per_value) / _MIB


def call_seconds(
    call: Callable[[], object], *, steps: int, warm_up: int = _WARM_UP, limit: float = math.inf
) -> tuple[float, list[float]]:
    """Returns the seconds of the first call, and of each timed one after the warm-up.

    Args:
      call: returns when the devices are done.
      steps: number of timed calls.
      warm_up: calls after the first that do not count.
      limit: seconds after which no further call is made, once one is timed.
    """
    seconds: list[float] = []
    while len(seconds) < 1 + warm_up + steps:
        if sum(seconds[1:]) > limit and len(seconds) > 1 + warm_up:
            break
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1 + warm_up :]


def _images(config: Config, *, size: int, batch_size: int) -> tf.Tensor:
    channels = config.model.channels
    shape = [batch_size, size, size, channels]
    if config.model.data_format == "channels_first":
        shape = [batch_size, channels, size, size]
    return tf.random.stateless_uniform(shape, seed=[0, 1], minval=-1.0, maxval=1.0)


def _inference(config: Config, model: keras.Model, *, batch_size: int) -> Callable[[], object]:
    images = _images(config, size=config.eval.isize, batch_size=batch_size)
    infer = function_without_gradient(
        lambda batch: model(batch, training=False), jit_compile=config.runtime.xla
    )
    return lambda: infer(images).numpy()


def training_step(config: Config) -> Callable[[], object]:
    """Returns a function that runs the training steps of ``--mode=train`` on constant images.

    Each call runs ``runtime.steps_per_loop`` steps and returns when the devices are done.
    """
    trainer, strategy = build_step_trainer(config)
    batches = tf.data.Dataset.from_tensors(constant_batch(config, config.train.batch_size)).repeat()
    trainer.set_input(strategy.experimental_distribute_dataset(batches))
    return lambda: trainer.train(tf.constant(config.runtime.steps_per_loop))


def build_step_trainer(config: Config) -> tuple[Trainer, tf.distribute.Strategy]:
    """Builds the trainer of ``--mode=train``, with new weights and the last stage's settings.

    It still needs its input.
    """
    strategy = build_strategy(config)
    batch_size = config.train.batch_size
    stage = build_stages(config, num_images=batch_size)[-1]
    with strategy.scope():
        rate = LearningRate(peak=1e-3, name="constant", warmup_steps=0, total_steps=1)
        train_state = build_train_state(config, rate)
    trainer = build_trainer(
        config,
        train_state,
        strategy,
        settings=stage_settings([dataclasses.replace(stage, first_step=0, batch_size=batch_size)]),
        after_step=lambda _: None,
    )
    return trainer, strategy


def constant_batch(config: Config, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the images and targets of one microbatch of batches of this size, all devices'."""
    microbatch_size = batch_size // config.train.accumulate
    images = _images(config, size=config.train.isize, batch_size=microbatch_size)
    labels = tf.range(microbatch_size) % config.model.num_classes
    return images, tf.one_hot(labels, config.model.num_classes)
