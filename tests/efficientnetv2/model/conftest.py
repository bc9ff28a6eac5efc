"""Draws weights by name, as the golden data does (tests/golden/README.md)."""

import pathlib
import zlib

import numpy as np
import pytest
from tensorflow import keras


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.removesuffix("/ExponentialMovingAverage").rpartition("/")[2]
    if kind in ("gamma", "moving_variance"):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    fan_in = {"kernel": np.prod(shape[:-1]), "depthwise_kernel": np.prod(shape[:2])}
    gain = {"kernel": 2.0 if len(shape) == 4 else 1.0, "depthwise_kernel": 2.0}
    scale = np.sqrt(gain[kind] / fan_in[kind]) if kind in fan_in else 0.1
    return (rng.standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture(scope="session")
def draw_by_name():
    """(official variable name, shape) -> the golden value."""
    return _draw


@pytest.fixture
def without_weights():
    """Networks of the test have variables with a shape alone, which are quickly built."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.backend.clear_session(free_memory=False)  # else Keras would soon initialise them


def _raw_variables(file: pathlib.Path) -> dict[str, tuple[int, ...]]:
    rows = [line.split("\t") for line in file.read_text().splitlines() if line[0] != "#"]
    return {
        name: tuple(int(size) for size in shape.split("x"))
        for name, shape, _, kind in rows
        if kind in ("trainable", "moving")
    }


@pytest.fixture(scope="session")
def official_variables(golden):
    """Model name -> {official variable name: shape}, without moving averages of the weights."""
    return lambda model_name: _raw_variables(golden / f"variables_{model_name}.txt")
