"""With the official weights' values, every network gives the official code's numbers."""

import json

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2 import get_model
from efficientnetv2.model.checkpoints.official import official_names, set_weights
from hparams.blocks import decode_block, scale_blocks
from hparams.models import MODELS

TOLERANCE = 1e-4
DEPTHWISE = {
    "efficientnetv2-b0": "dwconv2",
    "efficientnet-b0": "dwconv",
    "efficientnetv2-s": "dwconv2",
}


def names_of(model_name, *, include_top=True):
    stages = [decode_block(text) for text in MODELS[model_name].blocks]
    return official_names(
        scale_blocks(stages, width=1.0, depth=1.0),
        model_name=model_name,
        depthwise_name=DEPTHWISE[model_name],
        include_top=include_top,
    )


@pytest.mark.parametrize("model_name", sorted(DEPTHWISE))
def test_table_names_exactly_the_variables_of_a_released_checkpoint(model_name, official_variables):
    assert set(names_of(model_name)) == set(official_variables(model_name))


@pytest.mark.parametrize("model_name", sorted(DEPTHWISE))
def test_table_names_every_weight_of_ours_with_its_shape(model_name, official_variables):
    model = get_model(model_name)
    ours = {weight.path: tuple(weight.shape) for weight in model.weights}
    shapes = official_variables(model_name)
    assert {name: shapes[official] for official, name in names_of(model_name).items()} == ours


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
    set_weights(model, values, names=names_of(model_name))
    logits = model(arrays["x"], training=False)
    np.testing.assert_allclose(logits, arrays[f"{model_name}/logits"], atol=TOLERANCE, rtol=0)


def test_pooled_features_of_b0(b0):
    model_name, values, arrays = b0
    model = get_model(model_name, include_top=False, pooling="avg")
    set_weights(model, values, names=names_of(model_name))
    features = model(arrays["x"], training=False)
    expected = arrays[f"{model_name}/pooled_features"]
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)


def test_endpoints_of_b0(b0):
    model_name, values, arrays = b0
    model = get_model(model_name, features_only=True)
    names = {k: v for k, v in names_of(model_name).items() if "/head/" not in k}
    set_weights(model, values, names=names)
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


@pytest.fixture(scope="module")
def tiny(golden):
    """(model, names, golden arrays, checkpoint reader) of the network with every kind of block."""
    description = json.loads((golden / "tiny" / "tiny.json").read_text())
    blocks = description["block_strings"]
    overrides = {"blocks_args": blocks, "feature_size": 32}
    model = get_model("efficientnetv2-b0", num_classes=10, overrides=overrides)
    names = official_names(
        [decode_block(text) for text in blocks],
        model_name="efficientnetv2-b0",
        depthwise_name="dwconv2",
    )
    arrays = np.load(golden / "tiny" / "tiny.npz")
    reader = tf.train.load_checkpoint(str(golden / "tiny" / "tf1_namebased" / "model"))
    return model, names, arrays, reader


@pytest.mark.parametrize(
    ("suffix", "logits"), [("", "logits_raw"), ("/ExponentialMovingAverage", "logits_ema")]
)
def test_logits_of_an_official_checkpoint(tiny, suffix, logits):
    model, names, arrays, reader = tiny
    values = {name: reader.get_tensor(name + suffix) for name in names}
    set_weights(model, values, names=names)
    np.testing.assert_allclose(model(arrays["x"]), arrays[logits], atol=TOLERANCE, rtol=0)


def test_parameters_of_tiny(tiny):
    assert tiny[0].count_params() == 13_708


def test_set_weights_refuses_to_leave_a_weight_as_it_is(tiny):
    model, names, _, reader = tiny
    values = {name: reader.get_tensor(name) for name in names if "head/dense/bias" not in name}
    with pytest.raises(ValueError, match="no value for 1 weights, among them predictions/bias"):
        set_weights(model, values, names=names)


def test_set_weights_refuses_another_shape(tiny):
    model, names, _, reader = tiny
    values = {name: reader.get_tensor(name) for name in names}
    values["efficientnetv2-b0/head/dense/bias"] = np.zeros(7, np.float32)
    with pytest.raises(ValueError, match=r"predictions/bias has shape \(10,\), the value \(7,\)"):
        set_weights(model, values, names=names)
