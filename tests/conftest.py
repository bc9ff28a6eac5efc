"""Fixtures for all tests. TensorFlow is not imported here: tests of ``hparams`` run without it."""

import pathlib

import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of numbers measured from the official code; tests/golden/README.md says how."""
    return GOLDEN


@pytest.fixture
def seed() -> int:
    return 2104


@pytest.fixture(autouse=True, scope="module")
def verbosity():
    """A command that runs inside a test silences notes below errors: not beyond its file."""
    from absl import logging

    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the digits are prepared, once for all tests."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def digits(data_dir):
    from efficientnetv2.data.sources import build_source
    from hparams import resolve

    return build_source(resolve("efficientnetv2-s", "digits", {"data.data_dir": data_dir}))
