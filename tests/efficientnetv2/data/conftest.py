"""The digits data set, prepared once for all tests of this folder."""

import pytest

from efficientnetv2.data.sources import open_source


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def digits(data_dir):
    return open_source("digits", data_dir=data_dir)
