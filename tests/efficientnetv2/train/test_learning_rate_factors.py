"""Tests learning rate factors: a variable is trained as if with a learning rate of its own."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.checkpoints.layer_map import layer_map
from efficientnetv2.checkpoints.torch_names import timm_names
from efficientnetv2.model.factory import build_model
from efficientnetv2.train.learning_rate import KerasSchedule, LearningRate
from efficientnetv2.train.learning_rate_factors import layers_to_classifier, scales_by_name
from efficientnetv2.train.optimizers import OPTIMIZERS, build_optimizer
from efficientnetv2.train.train_state import TrainState, build_train_state
from hparams.architecture import scaled_architecture
from hparams.errors import UserError
from hparams.resolve import ConfigError, resolve, resolve_model

STEPS = 5
SMALL = {
    "model.blocks_args": ["r2_k3_s2_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o8"],
    "model.feature_size": 8,
}
CONSTANT = LearningRate(peak=0.1, name="constant", warmup_steps=0, total_steps=1)


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
    assert scales_by_name(variables(*names), scales) == [0.1, 0.1, 0.5, 1.0]
    assert scales_by_name(variables(*names), []) == []


def built(**settings: object) -> TrainState:
    """Returns the train state of a network with a stem, three blocks and a head."""
    config = resolve("efficientnetv2-b0", "digits", {**SMALL, **settings})
    return build_train_state(config, CONSTANT)


def test_an_expression_that_is_in_no_name_is_named() -> None:
    message = r"train\.lr_scales: 'stage1' matches no trainable variable \(for example 'stem_conv/"
    with pytest.raises(UserError, match=message):
        built(**{"train.lr_scales": ["stem:0.1", "stage1:0.5"]})


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


def shares_decayed(state: TrainState) -> dict[str, float]:
    """Returns the share of each variable that one update without a gradient takes away."""
    for variable in state.variables:
        variable.assign(tf.ones(variable.shape))
    gradients = [tf.zeros(variable.shape) for variable in state.variables]
    state.optimizer.apply(gradients, state.variables)
    return {v.path: 1.0 - float(tf.reduce_mean(v.value)) for v in state.variables}


def test_the_rate_falls_with_each_layer_and_weight_decay_follows_it() -> None:
    settings = {
        "train.optimizer": "adamw",
        "train.weight_decay": 0.5,
        "train.weight_decay_vars": "kernel|gamma",
        "train.lr_layer_decay": 0.5,
        "train.lr_scales": ["block1a:0.4", "^predictions:2"],
    }
    expected = {
        **dict.fromkeys(("stem_conv/kernel", "stem_bn/gamma"), 0.5**4),
        **dict.fromkeys(("block1a_project_conv/kernel", "block1a_project_bn/gamma"), 0.4 * 0.5**3),
        **dict.fromkeys(("block1b_project_conv/kernel", "block1b_project_bn/gamma"), 0.5**2),
        "block2a_dwconv2/kernel": 0.5,
        **dict.fromkeys(("top_conv/kernel", "top_bn/gamma"), 0.5),
        "predictions/kernel": 2.0,
        "predictions/bias": 0.0,  # has no weight decay
    }
    shares = shares_decayed(built(**settings))
    for path, factor in expected.items():
        assert shares[path] == pytest.approx(0.1 * 0.5 * factor, abs=1e-6), path


def test_layers_that_are_not_trained_count() -> None:
    settings = {"train.varsexp": "stem|predictions", "train.lr_layer_decay": 0.5}
    settings.update({"train.optimizer": "adamw", "train.weight_decay": 0.5})
    shares = shares_decayed(built(**settings))
    assert shares["stem_conv/kernel"] == pytest.approx(0.1 * 0.5 * 0.5**4, abs=1e-6)
    assert "block1a_project_conv/kernel" not in shares


def test_a_decay_that_changes_nothing_is_refused() -> None:
    message = r"train\.lr_layer_decay=0.5 has no effect: train\.varsexp='\^pred' trains the class"
    with pytest.raises(UserError, match=message):
        built(**{"train.varsexp": "^pred", "train.lr_layer_decay": 0.5})


@pytest.mark.parametrize("decay", [0, 1.01, -0.5])
def test_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr_layer_decay must be"):
        resolve("efficientnetv2-b0", "digits", {"train.lr_layer_decay": decay})


def timm_decay(golden: pathlib.Path, name: str) -> tuple[float, dict[str, float]]:
    facts = json.loads((golden / "layer_decay.json").read_text())
    return facts["layer_decay"], facts["models"][name]


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnetv2-s"])
def test_factors_are_those_of_timm(golden: pathlib.Path, name: str) -> None:
    decay, scales = timm_decay(golden, f"tf_{name.replace('-', '_')}")
    stages = scaled_architecture(resolve_model(name)).stages
    names = timm_names(list(layer_map(stages, depthwise_name="dwconv2", head_filters=1280)))
    trained = {ours: theirs for ours, theirs in names.items() if "moving" not in ours}
    distance = layers_to_classifier(list(trained))
    assert len(distance) == {"efficientnetv2-b0": 243, "efficientnetv2-s": 452}[name]
    found = set()
    for ours, theirs in trained.items():
        block = re.match(r"blocks\.\d+\.\d+|\w+", theirs)[0]
        assert decay ** distance[ours] == pytest.approx(scales[block], rel=1e-12), ours
        found.add(block)
    assert found == set(scales)


def test_the_variables_of_b0_are_those_that_were_compared() -> None:
    model = resolve_model("efficientnetv2-b0")
    stages = scaled_architecture(model).stages
    layers = layer_map(stages, depthwise_name="dwconv2", head_filters=1280)
    names = [f"{layer.name}/{variable}" for layer in layers for variable in layer.variables]
    built = [v.path for v in build_model(model, num_classes=10).trainable_variables]
    by_layer_map = layers_to_classifier([name for name in names if "moving" not in name])
    assert layers_to_classifier(built) == by_layer_map


def test_blocks_of_a_resnet_are_layers_too(golden: pathlib.Path) -> None:
    decay, scales = timm_decay(golden, "resnet50")
    model = build_model(resolve_model("resnet50"), num_classes=10)
    distance = layers_to_classifier([variable.path for variable in model.trainable_variables])
    of_block = {"conv1": "conv1", "predictions": "fc"}
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            of_block[f"conv{stage + 1}_block{block + 1}"] = f"layer{stage}.{block}"
    found = {}
    for path, layers in distance.items():
        block = re.match(r"conv\d_block\d+|conv1|predictions", path)[0]
        found.setdefault(of_block[block], set()).add(layers)
    assert {block: decay**layers for block, (layers,) in found.items()} == pytest.approx(
        {block: scale for block, scale in scales.items() if block != "bn1"}, rel=1e-12
    )
