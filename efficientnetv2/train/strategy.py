"""A device choice in; a ``tf.distribute.Strategy`` out. What the machine lacks is an error."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from hparams.errors import UserError


def _gpus() -> list[str]:
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def _one_device() -> tf.distribute.Strategy:
    return tf.distribute.get_strategy()


def _cpu() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _gpu() -> tf.distribute.Strategy:
    gpus = _gpus()
    if not gpus:
        raise UserError("runtime.strategy is gpu, but TensorFlow sees no GPU; give auto")
    return _mirrored(gpus)


def _auto() -> tf.distribute.Strategy:
    gpus = _gpus()
    return _mirrored(gpus) if len(gpus) > 1 else _one_device()


def _mirrored(devices: list[str]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


STRATEGIES: dict[str, Callable[[], tf.distribute.Strategy]] = {
    "auto": _auto,
    "none": _one_device,
    "cpu": _cpu,
    "gpu": _gpu,
}


def build_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the strategy of ``runtime.strategy``.

    Raises:
      UserError: if the devices that were asked for are not there.
    """
    if name not in STRATEGIES:
        raise UserError(f"runtime.strategy={name} is not available; give {', '.join(STRATEGIES)}")
    return STRATEGIES[name]()
