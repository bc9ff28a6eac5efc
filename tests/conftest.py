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
