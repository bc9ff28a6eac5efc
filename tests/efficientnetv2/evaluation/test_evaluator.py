"""Tests that an evaluation equals NumPy's, for any batch size and number of devices."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import pad_batches
from efficientnetv2.data.shard import Shard
from efficientnetv2.evaluation.evaluator import build_evaluator
from efficientnetv2.evaluation.predictions import FullPredictions, Predictions
from efficientnetv2.train.target_scale import TargetScale

IMAGES, CLASSES, SIZE = 23, 7, 4
# With 23 images the last batch has 23, 7, 3, 1 and 1; two devices share none of them evenly.
BATCH_SIZES = (32, 8, 5, 2, 1)
KINDS = ("softmax", "sigmoid")
# Two devices get 16 and 7 images; 23 single ones and a blank one; 3 each, in the end 3 and 2.
OF_TWO_DEVICES = (("softmax", 32), ("softmax", 2), ("sigmoid", 5))
Arrays = dict[str, np.ndarray]


def logits_of(data: Arrays) -> np.ndarray:
    """The logits of ``build_network``, by hand."""
    return data["images"].astype(np.float64).mean((1, 2)) @ data["kernel"] + data["bias"]


class NeverEmpty(keras.layers.Layer):
    """Fails where a device has nothing to do: not every kernel takes an empty batch."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(inputs)[0])]):
            return tf.identity(inputs)


def build_network(data: Arrays) -> keras.Model:
    """Means over the pixels, then one dense layer; the dropout must have no effect."""
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(NeverEmpty()(inputs))
    outputs = keras.layers.Dropout(0.9)(outputs)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(outputs))
    model.layers[-1].set_weights([data["kernel"], data["bias"]])
    return model


def batches(
    data: Arrays, kind: str, batch_size: int, images: int = IMAGES
) -> Callable[[Shard], tf.data.Dataset]:
    def shard_batches(shard: Shard) -> tf.data.Dataset:
        arrays = data["images"][:images], data[kind][:images]
        own = tf.data.Dataset.from_tensor_slices(arrays).shard(shard.count, shard.index)
        rows = -(-batch_size // (shard.count * shard.replicas))
        shape = (SIZE, SIZE, 3)
        return pad_batches(
            own.batch(rows), shard, num_images=images, batch_size=rows, image_shape=shape
        )

    return shard_batches


def expected(data: Arrays, kind: str, images: int = IMAGES) -> dict[str, float]:
    logits, targets = logits_of(data)[:images], data[kind][:images]
    if kind == "softmax":
        losses = -(targets * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)
    else:
        terms = np.where(targets == 1, np.logaddexp(0, -logits), np.logaddexp(0, logits))
        losses = terms.mean(-1)
    order = np.argsort(-logits, -1)
    hits = np.take_along_axis(targets, order, -1).cumsum(-1) > 0
    return {
        "images": images,
        "loss": losses.mean(),
        "top1": hits[:, 0].mean(),
        "top5": hits[:, 4].mean(),
        **by_class(targets.argmax(-1), logits.argmax(-1)),
    }


def by_class(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Recall of the classes that have images, and F1 of those that have some or are predicted."""
    return {
        "balanced_accuracy": sklearn.metrics.recall_score(
            labels, predicted, average="macro", labels=np.unique(labels)
        ),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
    }


def assert_same(metrics: dict[str, float], by_hand: dict[str, float]) -> None:
    assert list(metrics) == list(by_hand)
    assert metrics["images"] == by_hand["images"]
    np.testing.assert_allclose(list(metrics.values()), list(by_hand.values()), rtol=1e-6)


@pytest.fixture(scope="module")
def data() -> Arrays:
    """Images of noise, with one class each (softmax) or any number, also none (sigmoid)."""
    rng = np.random.default_rng(2104)
    several = rng.random((IMAGES, CLASSES)) < 0.2
    several[[0, 22]] = False
    return {
        "images": rng.normal(0, 2, (IMAGES, SIZE, SIZE, 3)).astype(np.float32),
        "softmax": np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, IMAGES)],
        "sigmoid": several.astype(np.float32),
        "kernel": rng.normal(0, 1, (3, CLASSES)).astype(np.float32),
        "bias": rng.normal(0, 1, CLASSES).astype(np.float32),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_shares_of_right_answers_are_neither_all_nor_none(data: Arrays, kind: str) -> None:
    """Otherwise the tests below would show little."""
    by_hand = expected(data, kind)
    assert 0.05 < by_hand["top1"] < by_hand["top5"] < 0.95


def assert_predictions(collected: list[Predictions], data: Arrays, kind: str) -> None:
    """Checks one prediction per image, in the split's order."""
    (predictions,) = collected
    logits = logits_of(data)
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    softmax = exponents / exponents.sum(-1, keepdims=True)
    probabilities = softmax if kind == "softmax" else 1 / (1 + np.exp(-logits))
    assert predictions.index.tolist() == list(range(IMAGES))
    assert predictions.predicted.tolist() == logits.argmax(-1).tolist()
    assert predictions.label.tolist() == data[kind].argmax(-1).tolist()
    np.testing.assert_allclose(predictions.confidence, probabilities.max(-1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_every_image_counts_once(data: Arrays, kind: str, batch_size: int) -> None:
    evaluate = build_evaluator(build_network(data), loss_type=kind)
    predictions: list[Predictions] = []
    metrics = evaluate(batches(data, kind, batch_size), predictions=predictions)
    assert_same(metrics, expected(data, kind))
    assert_predictions(predictions, data, kind)


def test_softmax_is_the_default(data: Arrays) -> None:
    evaluate = build_evaluator(build_network(data))
    assert_same(evaluate(batches(data, "softmax", 8)), expected(data, "softmax"))


def test_one_evaluator_serves_several_data_sets_without_a_new_trace(data: Arrays) -> None:
    traces = []

    class Counted(keras.layers.Layer):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            traces.append(1)
            return inputs

    model = build_network(data)
    evaluate = build_evaluator(keras.Model(model.inputs, Counted()(model.outputs[0])))
    traces.clear()
    for images in (23, 22, 9):
        metrics = evaluate(batches(data, "softmax", 8, images))
        assert_same(metrics, expected(data, "softmax", images))
    assert len(traces) == 1


def test_changed_weights_are_seen(data: Arrays) -> None:
    model = build_network(data)
    evaluate = build_evaluator(model)
    before = evaluate(batches(data, "softmax", 8))
    changed = {**data, "bias": data["bias"][::-1]}
    model.layers[-1].set_weights([changed["kernel"], changed["bias"]])
    after = evaluate(batches(data, "softmax", 8))
    assert_same(after, expected(changed, "softmax"))
    assert after["loss"] != pytest.approx(before["loss"], rel=1e-3)


def test_no_images_have_no_loss(data: Arrays) -> None:
    evaluate = build_evaluator(build_network(data))
    nothing = evaluate(batches(data, "softmax", 8, 0))
    assert nothing == dict.fromkeys(expected(data, "softmax"), 0)


def test_as_many_guesses_as_classes_are_always_right(data: Arrays) -> None:
    few = {**data, "kernel": data["kernel"][:, :3], "bias": data["bias"][:3]}
    inputs = keras.Input((None, None, 3))
    dense = keras.layers.Dense(3)
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)))
    dense.set_weights([few["kernel"], few["bias"]])
    targets = np.eye(3, dtype=np.float32)[np.arange(IMAGES) % 3]
    metrics = build_evaluator(model)(batches({**data, "few": targets}, "few", 8))
    assert metrics["top5"] == 1.0
    assert metrics["top1"] == pytest.approx((logits_of(few).argmax(-1) == np.arange(23) % 3).mean())


# Logical devices must be created before TensorFlow starts.
TWO_DEVICES = """
import importlib.util, json, sys
import numpy as np, tensorflow as tf
spec = importlib.util.spec_from_file_location("tests_of_evaluation", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
assert strategy.num_replicas_in_sync == 2
data = dict(np.load(sys.argv[2]))
with strategy.scope():
    model = tests.build_network(data)
results = {}
evaluators = {
    kind: tests.build_evaluator(model, loss_type=kind, strategy=strategy) for kind in tests.KINDS
}
for kind, size in tests.OF_TWO_DEVICES:
    rows = []
    results[f"{kind} {size}"] = evaluators[kind](tests.batches(data, kind, size), predictions=rows)
    tests.assert_predictions(rows, data, kind)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def of_two_devices(
    run_process: Callable, data: Arrays, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    file = tmp_path_factory.mktemp("evaluation") / "data.npz"
    np.savez(file, **data)
    result = run_process("-c", TWO_DEVICES, __file__, file)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "batch_size"), OF_TWO_DEVICES)
def test_two_devices_count_every_image_once(
    data: Arrays, of_two_devices: dict[str, dict], kind: str, batch_size: int
) -> None:
    assert_same(of_two_devices[f"{kind} {batch_size}"], expected(data, kind))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_several_labels_are_kept_with_all_their_probabilities(
    data: Arrays, batch_size: int
) -> None:
    evaluate = build_evaluator(build_network(data), loss_type="sigmoid", multi_label=True)
    kept: list[FullPredictions] = []
    metrics = evaluate(batches(data, "sigmoid", batch_size), predictions=kept)
    logits = logits_of(data)
    assert kept[0].index.tolist() == list(range(IMAGES))
    np.testing.assert_allclose(kept[0].outputs, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    np.testing.assert_array_equal(kept[0].targets, data["sigmoid"])
    by_hand = expected(data, "sigmoid")
    for name in ("images", "loss", "top1", "top5"):
        assert metrics[name] == pytest.approx(by_hand[name], rel=1e-6)
    exact = sklearn.metrics.average_precision_score(
        data["sigmoid"].ravel(), kept[0].outputs.ravel()
    )
    assert metrics["pr_auc"] == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("loss_type", ["mse", "mae", "huber"])
def test_numbers_are_measured_in_their_own_unit(
    data: Arrays, batch_size: int, loss_type: str
) -> None:
    scale = TargetScale(
        mean=[1000.0 * k for k in range(CLASSES)], deviation=[10.0**k for k in range(-3, 4)]
    )
    noise = np.random.default_rng(1).normal(0, 0.5, (IMAGES, CLASSES))
    targets = np.float64(scale.mean) + (logits_of(data) + noise) * np.float64(scale.deviation)
    data = {**data, "numbers": targets.astype(np.float32)}
    evaluate = build_evaluator(build_network(data), loss_type=loss_type, scale=scale)
    kept: list[FullPredictions] = []
    metrics = evaluate(batches(data, "numbers", batch_size), predictions=kept)
    outputs = np.float64(scale.mean) + logits_of(data) * np.float64(scale.deviation)
    errors = (outputs - targets) / np.float64(scale.deviation)
    losses = {
        "mse": errors**2,
        "mae": abs(errors),
        "huber": np.where(abs(errors) <= 1, errors**2 / 2, abs(errors) - 0.5),
    }
    assert list(metrics) == ["images", "loss", "mae", "rmse", "r2"]
    assert metrics["images"] == IMAGES
    # A number of 1,000 with a deviation of 0.001 has no more than 5 of its digits in float32.
    assert metrics["loss"] == pytest.approx(losses[loss_type].mean(), rel=0.02)
    per_number = zip(targets.T, outputs.T)
    r2 = [sklearn.metrics.r2_score(true, found) for true, found in per_number]
    assert metrics["r2"] == pytest.approx(np.mean(r2), abs=5e-3)
    assert metrics["mae"] == pytest.approx(abs(outputs - targets).mean(), rel=1e-4)
    rmse = np.sqrt(((outputs - targets) ** 2).mean(0)).mean()
    assert metrics["rmse"] == pytest.approx(rmse, rel=1e-4)
    np.testing.assert_allclose(kept[0].outputs, outputs, rtol=1e-5, atol=1e-3)


def test_without_images_all_metrics_are_0(data: Arrays) -> None:
    for options in (
        {},
        {"loss_type": "sigmoid", "multi_label": True},
        {"loss_type": "mse", "scale": TargetScale([0.0] * CLASSES, [1.0] * CLASSES)},
    ):
        metrics = build_evaluator(build_network(data), **options)(
            lambda shard: batches(data, "softmax", 8)(shard).take(0)
        )
        assert metrics["images"] == 0
        assert set(metrics.values()) == {0}
