"""A configuration in; what its network costs on this machine, in training and inference, out."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import resource
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.complexity import activation_bytes, multiply_adds
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import dtype_policy
from efficientnetv2.train.learner import build_learner
from efficientnetv2.train.schedules import LearningRate
from efficientnetv2.train.sizes import staged
from efficientnetv2.train.stages import build_stages
from efficientnetv2.train.step import build_trainer
from efficientnetv2.train.strategy import build_strategy
from hparams.architecture import Cost, cost, scaled_architecture
from hparams.errors import UserError
from hparams.models import MODELS
from hparams.resolve import Config

_WARM_UP = 2  # calls after the first, which traces
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one network costs. Times are medians unless they say otherwise.

    Attributes:
      model: its name.
      top1: ImageNet top-1 in percent, as published.
      parameters: all variables.
      multiply_adds: of one image at its own published evaluation size.
      batch_size: images a step of training, and of batched inference.
      train_size: pixels.
      eval_size: pixels.
      first_step_seconds: of training, tracing included.
      train_images_per_second: whole training steps: forward, backward, optimizer, moving average.
      train_step_seconds: of one step.
      train_step_p95_seconds: of one step, 95th percentile.
      activation_mib: what the backward pass keeps of one training image, computed.
      train_peak_mib: the most memory that was in use, of the device, or on a CPU of the process.
      infer_images_per_second: in batches.
      infer_batch_ms: of one batch.
      infer_batch_p95_ms: of one batch, 95th percentile.
      latency_ms: of one image alone.
      latency_p95_ms: of one image alone, 95th percentile.
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


def measure(config: Config, *, steps: int) -> Costs:
    """Measures in a process of its own, so that no network sees the memory of another.

    Args:
      config: ``train.batch_size``, ``train.isize``, ``eval.isize``, precision and devices count.
      steps: timed calls of each kind.

    Raises:
      UserError: if the process ends before it is done, as when the memory does not suffice.
    """
    # Not forked: TensorFlow's threads do not live on in the child.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, config, steps).result()
        except concurrent.futures.process.BrokenProcessPool:
            reason = "its process was ended from outside, as when the memory does not suffice"
        except tf.errors.ResourceExhaustedError:
            reason = "the device's memory does not suffice"
    raise UserError(
        f"{config.model.model_name} with {config.train.batch_size} images of "
        f"{config.train.isize} px: {reason}"
    )


def _measure(config: Config, steps: int) -> Costs:
    train, network = config.train, _counted(config)
    model = build_model(config.model)
    batched, single = (
        _times(_inference(config, model, batch_size=size), steps=steps)[1]
        for size in (train.batch_size, 1)
    )
    first, loops = _times(training_step(config), steps=steps)
    peak, training = _peak_mib(), [seconds / config.runtime.steps_per_loop for seconds in loops]
    step, batch = float(np.median(training)), float(np.median(batched))
    return Costs(
        model=config.model.model_name,
        top1=MODELS[config.model.model_name].published.top1,
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
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


def _counted(config: Config) -> Cost:
    """Parameters, and multiply-adds at the network's own evaluation size."""
    size = MODELS[config.model.model_name].eval_size
    architecture = scaled_architecture(config.model)
    if architecture.stages:
        return cost(architecture, image_size=size, num_classes=config.model.num_classes)
    model = build_model(config.model, input_shape=(size, size, 3))
    return Cost(model.count_params(), multiply_adds(model))


def _activation_mib(config: Config) -> float:
    size = config.train.isize
    bytes_per_value = 4 if dtype_policy(config.train.precision) == "float32" else 2
    model = build_model(config.model, input_shape=(size, size, 3))
    return activation_bytes(model, bytes_per_value=bytes_per_value) / _MIB


def _times(call: Callable[[], object], *, steps: int) -> tuple[float, list[float]]:
    """Seconds of the first call, and of each timed one."""
    times = []
    for _ in range(1 + _WARM_UP + steps):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times[0], times[1 + _WARM_UP :]


def _images(config: Config, *, size: int, batch_size: int) -> tf.Tensor:
    shape = [batch_size, size, size, 3]
    if config.model.data_format == "channels_first":
        shape = [batch_size, 3, size, size]
    return tf.random.stateless_uniform(shape, seed=[0, 1], minval=-1.0, maxval=1.0)


def _inference(config: Config, model: keras.Model, *, batch_size: int) -> Callable[[], object]:
    images = _images(config, size=config.eval.isize, batch_size=batch_size)
    infer = tf.function(lambda batch: model(batch, training=False), jit_compile=config.runtime.xla)
    return lambda: infer(images).numpy()


def training_step(config: Config) -> Callable[[], object]:
    """Returns a loop of the very training that ``--mode=train`` runs, on images that are there.

    A call runs ``runtime.steps_per_loop`` steps, and returns when the devices are done.
    """
    strategy = build_strategy(config)
    batch_size = config.train.batch_size
    stage = build_stages(config, num_images=batch_size)[-1]
    with strategy.scope():
        rate = LearningRate(peak=1e-3, name="constant", warmup_steps=0, total_steps=1)
        learner = build_learner(config, rate)
    trainer = build_trainer(
        config,
        learner,
        strategy,
        settings=staged([dataclasses.replace(stage, first_step=0, batch_size=batch_size)]),
        after_step=lambda _: None,
    )
    part = batch_size // config.train.accumulate
    images = _images(config, size=config.train.isize, batch_size=part)
    targets = tf.one_hot(tf.range(part) % config.model.num_classes, config.model.num_classes)
    batches = tf.data.Dataset.from_tensors((images, targets)).repeat()
    trainer.set_input(strategy.experimental_distribute_dataset(batches))
    return lambda: trainer.train(tf.constant(config.runtime.steps_per_loop))


def _peak_mib() -> float:
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus) / _MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
