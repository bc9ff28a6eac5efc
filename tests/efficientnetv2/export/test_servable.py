"""The exported network answers with the probabilities that its loss means."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.servable import build_servable
from efficientnetv2.model.factory import build_model
from efficientnetv2.train.losses import probabilities
from hparams import resolve
from hparams.choices import LOSSES
from hparams.errors import UserError

from .conftest import SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", [n for n, row in LOSSES.items() if not row.is_regression])
def test_each_loss_exports_with_its_activation(loss_type: str, pixels: np.ndarray) -> None:
    config = resolve("efficientnetv2-b0", "digits", {**SETTINGS, "train.loss_type": loss_type})
    model = build_model(config.model)
    names = [str(digit) for digit in range(10)]
    loaded = LoadedModel(model, config, names, "random weights")
    images = tf.constant(pixels / 128 - 1)
    servable = build_servable(loaded, preprocessing=False, logits=False)
    expected = probabilities(model(images), loss_type)
    np.testing.assert_allclose(servable.model(images), expected, atol=1e-6)
    np.testing.assert_allclose(servable.folded(images), expected, atol=1e-5)
    logits = build_servable(loaded, preprocessing=False, logits=True)
    np.testing.assert_allclose(logits.model(images), model(images), atol=1e-6)
    assert (servable.output_name, logits.output_name) == ("probabilities", "logits")


def test_a_temperature_divides_logits_without_another_operation(pixels: np.ndarray) -> None:
    blocks = {"model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "model.feature_size": 8}
    config = resolve("efficientnetv2-b0", "digits", {**SETTINGS, **blocks})
    model = build_model(config.model)
    classifier = model.get_layer("predictions")
    classifier.set_weights([40 * classifier.get_weights()[0], np.arange(10.0)])
    loaded = LoadedModel(model, config, [str(digit) for digit in range(10)], "random weights")
    images = tf.constant(pixels / 128 - 1)
    expected = {True: model(images).numpy() / 0.4}
    expected[False] = tf.nn.softmax(expected[True]).numpy()
    for logits, outputs in expected.items():
        raw = build_servable(loaded, preprocessing=False, logits=logits)
        servable = build_servable(loaded, preprocessing=False, logits=logits, temperature=0.4)
        np.testing.assert_allclose(servable.folded(images), outputs, rtol=1e-4, atol=1e-5)
        assert np.abs(raw.folded(images) - outputs).max() > 0.05
        names = [[layer.name for layer in one.folded.layers] for one in (raw, servable)]
        assert names[0] == names[1]
        assert servable.metadata() == {**raw.metadata(), "temperature": 0.4}


@pytest.mark.slow
def test_numbers_come_in_their_unit(pixels: np.ndarray) -> None:
    scale = {"model.target_mean": [100.0, -3.0], "model.target_deviation": [20.0, 0.01]}
    settings = {
        "data.data_dir": "x",
        "train.loss_type": "mse",
        "train.label_smoothing": 0.0,
        "model.num_classes": 2,
    }
    config = resolve("efficientnetv2-b0", "folder", {**SETTINGS, **settings, **scale})
    model = build_model(config.model)
    loaded = LoadedModel(model, config, ["age", "depth"], "random weights")
    servable = build_servable(loaded, preprocessing=False, logits=False)
    images = tf.constant(pixels / 128 - 1)
    expected = model(images).numpy() * [20.0, 0.01] + [100.0, -3.0]
    np.testing.assert_allclose(servable.model(images), expected, rtol=1e-5)
    np.testing.assert_allclose(servable.folded(images), expected, rtol=1e-5)
    assert servable.output_name == "numbers"
    assert servable.description == "predicts age, depth of an image"
    with pytest.raises(UserError, match="this one predicts numbers"):
        build_servable(loaded, preprocessing=False, logits=True)
