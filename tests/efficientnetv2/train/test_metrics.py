"""Compares accuracies and running means with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.metrics import (
    TrainingMetrics,
    any_in_top_k,
    top_k_correct,
)

CLASSES = 5


@pytest.mark.parametrize("k", range(1, CLASSES + 1))
def test_top_k_correct_agrees_with_sorting(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(64, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, 64)
    best = np.argsort(-logits, axis=-1)[:, :k]
    expected = (best == labels[:, None]).any(-1)
    np.testing.assert_array_equal(
        top_k_correct(tf.constant(logits), tf.constant(labels), k=k), expected
    )


@pytest.mark.parametrize("k", [3, 4, 1000])
def test_as_many_guesses_as_classes_are_always_right(k: int) -> None:
    logits = tf.constant([[5.0, 1.0, 0.0]] * 3)
    assert top_k_correct(logits, tf.constant([0, 1, 2]), k=k).numpy().tolist() == [True] * 3


def test_top_k_correct_of_float16_logits() -> None:
    logits = tf.constant([[1.0, 2.0, 3.0]], tf.float16)
    assert not top_k_correct(logits, tf.constant([0]), k=2).numpy()[0]
    assert top_k_correct(logits, tf.constant([1]), k=2).numpy()[0]


@pytest.mark.parametrize("k", [1, 2, 4, CLASSES, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_any_in_top_k_agrees_with_sorting(seed: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.permuted(np.tile(np.arange(CLASSES), (64, 1)), axis=1).astype(dtype)
    targets = (rng.random((64, CLASSES)) < 0.3).astype(np.float32)
    targets[:4] = 0.0  # without any label
    best = np.argsort(-logits, axis=-1)[:, :k]
    expected = np.take_along_axis(targets, best, -1).any(-1)
    result = any_in_top_k(tf.constant(logits), tf.constant(targets), k=k).numpy()
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == bool
    assert not result[:4].any()
    assert 0 < result.sum() <= 60


def test_with_one_label_both_counts_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = tf.constant(rng.normal(size=(64, CLASSES)), tf.float32)
    labels = rng.integers(0, CLASSES, 64)
    targets = tf.one_hot(labels, CLASSES)
    for k in range(1, CLASSES + 1):
        np.testing.assert_array_equal(
            any_in_top_k(logits, targets, k=k), top_k_correct(logits, tf.constant(labels), k=k)
        )


def update(metrics: TrainingMetrics, loss_sum: float, *, guesses: list, targets: list) -> None:
    metrics.update(
        loss_sum=tf.constant(loss_sum),
        logits=tf.one_hot(guesses, CLASSES) * 3.0,
        targets=tf.constant(targets, tf.float32),
    )


def one_hot(*labels: int) -> list:
    return np.eye(CLASSES)[list(labels)].tolist()


def means(metrics: TrainingMetrics) -> dict[str, float]:
    return {name: metrics.result()[name] for name in ("loss", "accuracy")}


def test_means_weigh_each_image_alike_over_several_updates() -> None:
    metrics = TrainingMetrics()
    update(metrics, 6.0, guesses=[0, 1, 2], targets=one_hot(0, 1, 3))
    update(metrics, 1.0, guesses=[4], targets=one_hot(4))
    update(metrics, 2.5, guesses=[1, 1], targets=one_hot(0, 2))
    assert means(metrics) == {"loss": 9.5 / 6, "accuracy": 3 / 6}


def test_result_can_be_read_between_updates() -> None:
    metrics = TrainingMetrics()
    update(metrics, 6.0, guesses=[0, 1], targets=one_hot(0, 2))
    assert means(metrics) == {"loss": 3.0, "accuracy": 0.5}
    update(metrics, 2.0, guesses=[0, 1], targets=one_hot(0, 1))
    assert means(metrics) == {"loss": 2.0, "accuracy": 0.75}


def test_a_mixed_image_counts_as_its_largest_part() -> None:
    metrics = TrainingMetrics()
    mixed = [[0.3, 0.7, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0, 0.7]]
    update(metrics, 0.0, guesses=[1, 0], targets=mixed)
    assert metrics.result()["accuracy"] == 0.5


def test_one_of_several_labels_counts_as_any_of_them() -> None:
    metrics = TrainingMetrics()
    several = [[1.0, 0.0, 1.0, 0.0, 0.0]] * 3
    update(metrics, 0.0, guesses=[0, 1, 2], targets=several)
    assert metrics.result()["accuracy"] == pytest.approx(2 / 3)


def test_an_image_without_a_label_is_never_right() -> None:
    metrics = TrainingMetrics()
    update(metrics, 0.0, guesses=[0, 1], targets=[[0.0] * CLASSES, [0.0, 1.0, 0.0, 0.0, 0.0]])
    assert metrics.result()["accuracy"] == 0.5


def test_updates_inside_a_function_are_counted() -> None:
    metrics = TrainingMetrics()

    @tf.function
    def step(logits: tf.Tensor, targets: tf.Tensor) -> None:
        metrics.update(loss_sum=tf.constant(4.0), logits=logits, targets=targets)

    for label in (0, 1):
        step(tf.one_hot([0, 0], CLASSES), tf.one_hot([label, label], CLASSES))
    assert means(metrics) == {"loss": 2.0, "accuracy": 0.5}


def test_reset_forgets_everything() -> None:
    metrics = TrainingMetrics()
    update(metrics, 100.0, guesses=[0, 0], targets=one_hot(1, 1))
    metrics.reset()
    assert means(metrics) == {"loss": 0.0, "accuracy": 0.0}
    update(metrics, 1.0, guesses=[2], targets=one_hot(2))
    assert means(metrics) == {"loss": 1.0, "accuracy": 1.0}


def test_the_result_before_any_step_is_zero() -> None:
    assert set(TrainingMetrics().result().values()) == {0.0}


def test_the_mean_norm_of_the_gradients() -> None:
    metrics = TrainingMetrics()
    for norm in (1.0, 2.0, 6.0):
        metrics.update_gradient(tf.constant(norm))
    assert metrics.result()["gradient_norm"] == 3.0
    metrics.reset()
    assert metrics.result()["gradient_norm"] == 0.0


def test_a_gradient_that_is_not_finite_is_left_out_of_the_mean() -> None:
    """The loss scaling of float16 makes some by design, and skips their steps."""
    metrics = TrainingMetrics()
    for norm in (2.0, float("inf"), 4.0, float("nan")):
        metrics.update_gradient(tf.constant(norm))
    assert metrics.result()["gradient_norm"] == 3.0
