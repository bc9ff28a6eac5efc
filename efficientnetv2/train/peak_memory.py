"""Reads the peak memory of this process and of its GPUs."""

from __future__ import annotations

import resource

import tensorflow as tf


def peak_bytes() -> int:
    """Returns the peak memory in use so far: on a GPU the device's, on a CPU the process's."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(int(tf.config.experimental.get_memory_info(gpu.name)["peak"]) for gpu in gpus)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # it is in KiB on Linux
