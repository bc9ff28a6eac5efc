"""Compares the moving average with NumPy and with values recorded from the official code."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.ema import MovingAverage
from efficientnetv2.train.learning_rate import LearningRate
from efficientnetv2.train.train_state import TrainState, build_train_state, named_weights
from hparams.resolve import resolve

TINY = {
    "model.blocks_args": ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o8_se0.25"],
    "model.feature_size": 16,
}


@pytest.fixture
def train_state() -> TrainState:
    config = resolve("efficientnetv2-b0", "digits", TINY, "train.ema_decay=0.8")
    rate = LearningRate(peak=0.1, name="constant", warmup_steps=0, total_steps=1)
    tf.keras.utils.set_random_seed(0)
    return build_train_state(config, rate)


def values(variables: dict) -> dict[str, np.ndarray]:
    return {name: np.array(tf.convert_to_tensor(variables[name])) for name in variables}


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.5, 0.9999])
def test_the_average_is_numpys_over_50_updates(seed: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(51, 3, 2)).astype(np.float32)
    variable = tf.Variable(steps[0])
    moving = MovingAverage({"w": variable}, decay=decay)
    expected = steps[0].astype(np.float64)
    for n, value in enumerate(steps[1:]):
        variable.assign(value)
        moving.update(tf.constant(n, tf.int64))
        ramp = min(decay, (1 + n) / (10 + n))
        expected = ramp * expected + (1 - ramp) * value
        np.testing.assert_allclose(moving.averages["w"], expected, atol=1e-6)


def test_the_average_is_the_official_one(golden: pathlib.Path) -> None:
    record = json.loads((golden / "optimizer.json").read_text())["ema"]
    variable = tf.Variable(record["initial"])
    moving = MovingAverage({"w": variable}, decay=record["decay"])
    update = tf.function(moving.update)
    averages = []
    for value, num_updates in zip(record["values"], record["num_updates"]):
        variable.assign(value)
        update(tf.constant(num_updates))
        averages.append(float(moving.averages["w"]))
    np.testing.assert_allclose(averages, record["ema_after_each"], rtol=1e-6)


def test_the_average_starts_at_the_variables_values() -> None:
    variable = tf.Variable([3.0, 4.0])
    moving = MovingAverage({"w": variable}, decay=0.9)
    variable.assign([0.0, 0.0])
    assert moving.averages["w"].numpy().tolist() == [3.0, 4.0]


def test_every_weight_and_batchnorm_statistic_of_a_network_is_averaged(
    train_state: TrainState, seed: int
) -> None:
    before = values(named_weights(train_state.model))
    images = np.random.default_rng(seed).normal(2, 3, (4, 16, 16, 3)).astype(np.float32)
    train_state.model(images, training=True)
    for variable in train_state.model.trainable_variables:
        variable.assign(variable + 1.0)
    after = values(named_weights(train_state.model))
    train_state.average.update(tf.constant(20))
    averages = values(train_state.average.averages)
    assert {name for name in after if "moving" in name} <= set(averages)
    for name, value in after.items():
        assert not np.array_equal(value, before[name]), name
        expected = 0.7 * before[name] + 0.3 * value
        np.testing.assert_allclose(averages[name], expected, atol=1e-5, err_msg=name)


def test_swapped_exchanges_a_networks_values_and_puts_them_back(train_state: TrainState) -> None:
    for average in train_state.average.averages.values():
        average.assign(average + 1.0)
    raw, averages = values(named_weights(train_state.model)), values(train_state.average.averages)
    with train_state.average.swapped():
        np.testing.assert_equal(values(named_weights(train_state.model)), averages)
        np.testing.assert_equal(values(train_state.average.averages), raw)
    np.testing.assert_equal(values(named_weights(train_state.model)), raw)
    np.testing.assert_equal(values(train_state.average.averages), averages)


def test_swapped_puts_the_values_back_after_an_exception() -> None:
    variable = tf.Variable(1.0)
    moving = MovingAverage({"w": variable}, decay=0.9)
    moving.averages["w"].assign(5.0)
    with pytest.raises(KeyError, match="inside"), moving.swapped():
        assert (float(variable), float(moving.averages["w"])) == (5.0, 1.0)
        raise KeyError("inside")
    assert (float(variable), float(moving.averages["w"])) == (1.0, 5.0)
