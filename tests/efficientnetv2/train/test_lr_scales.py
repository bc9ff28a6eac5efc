"""Tests learning rate factors: a variable is trained as if with a learning rate of its own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.learning_rate import KerasSchedule, LearningRate
from efficientnetv2.train.optimizers import OPTIMIZERS, build_optimizer, learning_rate_scales
from efficientnetv2.train.train_state import build_train_state
from hparams.errors import UserError
from hparams.resolve import ConfigError, resolve

STEPS = 5


def trained(name: str, *, peak: float, factors: tuple[float, ...] = ()) -> list[np.ndarray]:
    """Returns two variables after some steps with the same gradients."""
    rng = np.random.default_rng(3)
    variables = [keras.Variable(rng.normal(size=(3, 2)).astype(np.float32)) for _ in range(2)]
    config = resolve("efficientnetv2-b0", "digits", {"train.optimizer": name, "train.gclip": 0.5})
    rate = LearningRate(peak=peak, name="constant", warmup_steps=0, total_steps=1)
    optimizer = build_optimizer(config, KerasSchedule(rate), factors=factors)
    optimizer.build(variables)
    apply = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    for _ in range(STEPS):
        apply([tf.constant(rng.normal(size=(3, 2)), tf.float32) for _ in variables])
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_is_a_learning_rate_of_its_own(name: str) -> None:
    first, second = trained(name, peak=0.1, factors=(1.0, 0.3))
    np.testing.assert_allclose(first, trained(name, peak=0.1)[0], rtol=1e-6)
    np.testing.assert_allclose(second, trained(name, peak=0.03)[1], rtol=1e-5)
    assert np.abs(second - trained(name, peak=0.1)[1]).max() > 1e-3


def variables(*paths: str) -> list[keras.Variable]:
    variables = []
    for path in paths:
        layer, name = path.split("/")
        with keras.name_scope(layer):
            variables.append(keras.Variable(0.0, name=name))
    return variables


def test_the_first_expression_that_is_found_counts() -> None:
    names = ("stem_conv/kernel", "block1a_bn/gamma", "block10a_bn/gamma", "predictions/bias")
    scales = ["block1[a-z]|stem:0.1", "gamma$:0.5"]
    assert learning_rate_scales(variables(*names), scales) == [0.1, 0.1, 0.5, 1.0]
    assert learning_rate_scales(variables(*names), []) == []


def test_an_expression_that_is_in_no_name_is_named() -> None:
    config = resolve(
        "efficientnetv2-b0",
        "digits",
        {
            "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
            "model.feature_size": 8,
            "train.lr_scales": ["stem:0.1", "stage1:0.5"],
        },
    )
    rate = LearningRate(peak=0.1, name="constant", warmup_steps=0, total_steps=1)
    message = r"train\.lr_scales: 'stage1' matches no trainable variable \(for example 'stem_conv/"
    with pytest.raises(UserError, match=message):
        build_train_state(config, rate)


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("[a|b:0.1,^c$:2]", ("a|b:0.1", "^c$:2")),
        ("a:0.1|b:2", ("a:0.1", "b:2")),  # the official way to write a list
        ("[]", ()),
    ],
)
def test_in_brackets_an_expression_may_have_alternatives(
    text: str, scales: tuple[str, ...]
) -> None:
    config = resolve("efficientnetv2-b0", "digits", f"train.lr_scales={text},train.epochs=3")
    assert config.train.lr_scales == scales


@pytest.mark.parametrize("wrong", ["stem", "stem:", ":0.1", "stem:0", "stem:-1", "(:0.1", "a:nan"])
def test_what_is_no_expression_with_a_factor(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr_scales must hold expression:factor"):
        resolve("efficientnetv2-b0", "digits", {"train.lr_scales": [wrong]})
