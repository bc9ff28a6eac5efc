"""Tests that the files of every version of Keras are read: real ones, of a small network."""

import pathlib
import tarfile
import zlib

import numpy as np
import pytest

from efficientnetv2.checkpoints.pretrained_model import layer_map_of
from efficientnetv2.checkpoints.reader import read_weights
from hparams.resolve import resolve_model

ARCHIVE = pathlib.Path(__file__).parents[2] / "golden" / "keras_versions.tar.xz"
NETWORK = {
    "blocks_args": ["r1_k3_s2_e2_i8_o8_c1", "r1_k3_s2_e2_i8_o8_se0.25"],
    "feature_size": 8,
}


def _paths():
    """Lists what can be given as weights: files, and folders of TensorFlow's formats."""
    with tarfile.open(ARCHIVE) as tar:
        parts = [pathlib.PurePosixPath(name).parts[:2] for name in tar.getnames()]
    return sorted({"/".join(two) for two in parts if len(two) == 2})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_versions")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else (
            tar.extractall(folder)
        )
    return folder


def draw(name, shape):
    """Draws the values of ``layer/variable`` as make_keras_versions.py does."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def test_all_versions_and_formats_are_there():
    versions = {path.split("/")[0] for path in _paths()}
    assert versions == {*(f"keras_3.{n}" for n in (0, 3, 5, 6, 15)), "tf_keras_2.20"}
    assert len(_paths()) == 58


@pytest.mark.parametrize("path", _paths())
def test_every_value_of_every_file(files, path):
    layers = layer_map_of(resolve_model("efficientnetv2-b0", NETWORK))
    stored = read_weights(files / path, layers, model_name="efficientnetv2-b0")
    assert set(stored.values) == {f"{layer.name}/{v}" for layer in layers for v in layer.variables}
    for name, value in stored.values.items():
        np.testing.assert_array_equal(value, draw(name, value.shape), err_msg=name)
    assert (stored.extra, stored.note) == ((), "")


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables", "variables"])
def test_a_saved_model_by_the_path_of_a_part(files, name):
    layers = layer_map_of(resolve_model("efficientnetv2-b0", NETWORK))
    path = files / "tf_keras_2.20" / "nested_saved_model" / name
    assert len(read_weights(path, layers, model_name="efficientnetv2-b0").values) == 41


@pytest.mark.parametrize("version", ["keras_3.0", "keras_3.15", "tf_keras_2.20"])
def test_a_file_of_another_network_is_refused(files, version):
    from efficientnetv2 import get_model
    from hparams.errors import WeightsError

    for name in ("plain.weights.h5", "nested.keras"):
        with pytest.raises(WeightsError, match=r"(has no weights of|has no value for|has shape)"):
            get_model(
                "efficientnetv2-b0",
                num_classes=3,
                weights=files / version / name,
                overrides={"blocks_args": ["r2_k3_s2_e2_i8_o8_c1"], "feature_size": 8},
            )
