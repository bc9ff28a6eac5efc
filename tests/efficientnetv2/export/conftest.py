"""Provides a small network with each kind of block and non-trivial BatchNormalization."""

import numpy as np
import pytest
from tensorflow import keras

from efficientnetv2.export.servable import Servable
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import fold
from hparams import resolve

BLOCKS = ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e4_i8_o16_c1", "r2_k3_s2_e4_i16_o16_se0.25"]
SETTINGS = {"model.blocks_args": BLOCKS, "model.feature_size": 32, "eval.isize": 32}


def with_random_batchnorm(model, seed=0):
    """Sets statistics and scales of BatchNormalization to random values, as after a training."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            width = layer.weights[0].shape[0]
            gamma, variance = rng.uniform(0.5, 1.5, (2, width))
            beta, mean = rng.normal(0, 0.3, (2, width))
            layer.set_weights([gamma, beta, mean, variance])
    return model


def servable_of(name="efficientnetv2-b0", *, logits=False, preprocessing=True, **overrides):
    config = resolve(name, "digits", {**SETTINGS, **overrides})
    keras.utils.set_random_seed(3)
    model = with_random_batchnorm(
        build_model(
            config.model,
            include_preprocessing=preprocessing,
            classifier_activation=None if logits else "softmax",
        )
    )
    return Servable(
        model=model,
        folded=fold(model),
        class_names=[f"digit {number}" for number in range(10)],
        image_size=32,
        preprocessing=preprocessing,
        output_name="logits" if logits else "probabilities",
        model_name=name,
        preprocess=config.model.preprocess,
        resize=config.data.resize,
        origin="random weights",
    )


@pytest.fixture(scope="session")
def servable():
    return servable_of()


@pytest.fixture(scope="session")
def pixels():
    """Smooth images, in which neighbouring pixels are alike as in photographs."""
    rng = np.random.default_rng(1)
    coarse = rng.uniform(0, 255, (24, 4, 4, 3))
    return np.float32(np.round(np.kron(coarse, np.ones((1, 8, 8, 1)))))
