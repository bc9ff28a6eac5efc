"""Fixtures for all tests. TensorFlow is not imported here: tests of ``hparams`` run without it."""

import gc
import pathlib

import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the files with slow tests first, so that no process ends long after the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keeps the objects of the imports out of garbage collections, and makes these rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)  # tracing makes many objects, and little garbage


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of reference values from the official code; see tests/golden/README.md."""
    return GOLDEN


@pytest.fixture
def seed() -> int:
    return 2104


@pytest.fixture(autouse=True, scope="module")
def verbosity():
    """Restores the log level after each test file: commands lower it within the process."""
    from absl import logging

    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The folder in which the digits are prepared, once for all tests."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def digits(data_dir):
    from efficientnetv2.data.sources import build_source
    from hparams import resolve

    return build_source(resolve("efficientnetv2-s", "digits", {"data.data_dir": data_dir}))
