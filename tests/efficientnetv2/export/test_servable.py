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

from .conftest import SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", LOSSES)
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
