"""Counts of right answers and running means against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.metrics import TrainingMetrics, top_k_correct

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


def update(metrics: TrainingMetrics, loss_sum: float, *, guesses: list, targets: list) -> None:
    metrics.update(
        loss_sum=tf.constant(loss_sum),
        logits=tf.one_hot(guesses, CLASSES) * 3.0,
        targets=tf.constant(targets, tf.float32),
    )


def one_hot(*labels: int) -> list:
    return np.eye(CLASSES)[list(labels)].tolist()


def test_means_weigh_each_image_alike_over_several_updates() -> None:
    metrics = TrainingMetrics()
    update(metrics, 6.0, guesses=[0, 1, 2], targets=one_hot(0, 1, 3))
    update(metrics, 1.0, guesses=[4], targets=one_hot(4))
    update(metrics, 2.5, guesses=[1, 1], targets=one_hot(0, 2))
    assert metrics.result() == {"loss": 9.5 / 6, "accuracy": 3 / 6}


def test_result_can_be_read_between_updates() -> None:
    metrics = TrainingMetrics()
    update(metrics, 6.0, guesses=[0, 1], targets=one_hot(0, 2))
    assert metrics.result() == {"loss": 3.0, "accuracy": 0.5}
    update(metrics, 2.0, guesses=[0, 1], targets=one_hot(0, 1))
    assert metrics.result() == {"loss": 2.0, "accuracy": 0.75}


def test_a_mixed_image_counts_as_its_largest_part() -> None:
    metrics = TrainingMetrics()
    mixed = [[0.3, 0.7, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0, 0.7]]
    update(metrics, 0.0, guesses=[1, 0], targets=mixed)
    assert metrics.result()["accuracy"] == 0.5


def test_updates_inside_a_function_are_counted() -> None:
    metrics = TrainingMetrics()

    @tf.function
    def step(logits: tf.Tensor, targets: tf.Tensor) -> None:
        metrics.update(loss_sum=tf.constant(4.0), logits=logits, targets=targets)

    for label in (0, 1):
        step(tf.one_hot([0, 0], CLASSES), tf.one_hot([label, label], CLASSES))
    assert metrics.result() == {"loss": 2.0, "accuracy": 0.5}


def test_reset_forgets_everything() -> None:
    metrics = TrainingMetrics()
    update(metrics, 100.0, guesses=[0, 0], targets=one_hot(1, 1))
    metrics.reset()
    assert metrics.result() == {"loss": 0.0, "accuracy": 0.0}
    update(metrics, 1.0, guesses=[2], targets=one_hot(2))
    assert metrics.result() == {"loss": 1.0, "accuracy": 1.0}


def test_the_result_before_any_step_is_zero() -> None:
    assert TrainingMetrics().result() == {"loss": 0.0, "accuracy": 0.0}
