"""Tests that networks with the official weights give the official code's outputs."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2 import get_model
from efficientnetv2.checkpoints.loader import load_weights
from efficientnetv2.checkpoints.official_names import tf1_names
from efficientnetv2.checkpoints.pretrained_model import layer_map_of
from efficientnetv2.checkpoints.reader import StoredWeights
from hparams.resolve import resolve_model

TOLERANCE = 1e-4
MODELS = ["efficientnet-b0", "efficientnetv2-b0", "efficientnetv2-s"]


def names_of(model_name):
    """Returns our name of a variable -> the official one."""
    return tf1_names(layer_map_of(resolve_model(model_name)), model_name=model_name)


def load(model, official_values, names):
    values = {ours: official_values[theirs] for ours, theirs in names.items()}
    return load_weights(model, StoredWeights(pathlib.Path("here"), "official", values, names, ()))


@pytest.mark.parametrize("model_name", MODELS)
def test_table_names_exactly_the_variables_of_a_released_checkpoint(model_name, official_variables):
    assert set(names_of(model_name).values()) == set(official_variables(model_name))


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("model_name", MODELS)
def test_table_names_every_weight_of_ours_with_its_shape(model_name, official_variables):
    model = get_model(model_name)
    ours = {weight.path: tuple(weight.shape) for weight in model.weights}
    shapes = official_variables(model_name)
    assert {ours: shapes[theirs] for ours, theirs in names_of(model_name).items()} == ours


@pytest.fixture(scope="module", params=["efficientnetv2-b0", "efficientnet-b0"])
def b0(request, golden, official_variables, draw_by_name):
    """(model name, official values, golden arrays)."""
    arrays = np.load(golden / "forward_b0.npz")
    values = {
        name: arrays[f"bn/{name}"] if "moving_" in name else draw_by_name(name, shape)
        for name, shape in official_variables(request.param).items()
    }
    return request.param, values, arrays


def test_logits_of_b0(b0):
    model_name, values, arrays = b0
    model = get_model(model_name)
    load(model, values, names_of(model_name))
    logits = model(arrays["x"], training=False)
    np.testing.assert_allclose(logits, arrays[f"{model_name}/logits"], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_pooled_features_of_b0(b0):
    model_name, values, arrays = b0
    model = get_model(model_name, include_top=False, pooling="avg")
    load(model, values, names_of(model_name))
    features = model(arrays["x"], training=False)
    expected = arrays[f"{model_name}/pooled_features"]
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_endpoints_of_b0(b0):
    model_name, values, arrays = b0
    model = get_model(model_name, features_only=True)
    load(model, values, names_of(model_name))
    endpoints = model(arrays["x"], training=False)
    assert list(endpoints) == [f"reduction_{index}" for index in range(1, 6)]
    for name, features in endpoints.items():
        key = f"{model_name}/{name}"
        assert features.shape == tuple(arrays[f"{key}_shape"]), name
        for suffix, value in (
            ("mean", tf.reduce_mean(features, [1, 2, 3])),
            ("std", tf.math.reduce_std(features, [1, 2, 3])),
            ("chmean", tf.reduce_mean(features, [1, 2])),
            ("corner", features[:, :2, :2, :8]),
        ):
            expected = arrays[f"{key}_{suffix}"]
            np.testing.assert_allclose(
                value, expected, atol=TOLERANCE, rtol=1e-5, err_msg=f"{name} {suffix}"
            )
