"""Compares the metrics of several labels with scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from efficientnetv2.evaluation.metric_sums import metric_sums, multi_label_result, multi_label_sums
from efficientnetv2.train.target_scale import TargetScale


@pytest.mark.parametrize("batches", [1, 3])
def test_metrics_of_several_labels_are_scikit_learns(seed: int, batches: int) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.uniform(size=(60, 7)) < 0.3).astype(np.float32)
    logits = (rng.normal(size=(60, 7)) + 2 * targets).astype(np.float32)
    sums = sum(
        multi_label_sums(tf.constant(some_logits), tf.constant(some_targets)).numpy()
        for some_logits, some_targets in zip(np.split(logits, batches), np.split(targets, batches))
    )
    result = multi_label_result(sums)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    rounded = np.floor(probabilities * 200)
    expected = sklearn.metrics.average_precision_score(targets.ravel(), rounded.ravel())
    assert result["pr_auc"] == pytest.approx(expected, abs=1e-6)
    exact = sklearn.metrics.average_precision_score(targets.ravel(), probabilities.ravel())
    assert result["pr_auc"] == pytest.approx(exact, abs=0.02)
    for k in (1, 5):
        chosen = np.argsort(-logits, axis=1)[:, :k]
        hits = np.take_along_axis(targets, chosen, 1).sum()
        assert result[f"precision_at_{k}"] == pytest.approx(hits / (60 * k), abs=1e-6)
        assert result[f"recall_at_{k}"] == pytest.approx(hits / targets.sum(), abs=1e-6)


def test_metrics_of_no_label_and_of_nothing_are_zero() -> None:
    sums = multi_label_sums(tf.ones([4, 3]), tf.zeros([4, 3])).numpy()
    assert set(multi_label_result(sums).values()) == {0.0}


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_views_count_by_the_mean_of_their_probabilities(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits = np.float32(rng.normal(0, 3, (12, 4, 5)))
    targets = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 12)]
    metrics = metric_sums("softmax", multi_label=False, scale=None, temperature=temperature)
    sums, rows = metrics.of_views(tf.constant(logits), tf.constant(targets), tf.ones([12], bool))
    result = metrics.result(sums.numpy())

    def mean(divided: np.ndarray) -> np.ndarray:
        return tf.nn.softmax(divided).numpy().mean(1)

    raw = mean(logits)
    assert result["loss"] == pytest.approx(-np.log((raw * targets).sum(-1)).mean(), rel=1e-5)
    assert result["top1"] == pytest.approx((raw.argmax(-1) == targets.argmax(-1)).mean())
    found = metrics.predictions.from_rows(np.arange(12), rows.numpy()[:, :-1])
    np.testing.assert_allclose(found.confidence, raw.max(-1), rtol=1e-5)
    if temperature is not None:
        calibrated = mean(logits / temperature)
        np.testing.assert_allclose(found.calibrated, calibrated.max(-1), rtol=1e-5)
        nll = -np.log((calibrated * targets).sum(-1)).mean()
        assert result["nll_calibrated"] == pytest.approx(nll, rel=1e-5)


def test_views_of_several_labels_and_of_numbers_are_averaged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = np.float32(rng.normal(0, 5, (6, 3, 4)))
    logits[0] = 200  # probability 1 in float32
    several = metric_sums("sigmoid", multi_label=True, scale=None)
    found = several.outputs(several.merged(tf.constant(logits)))
    np.testing.assert_allclose(found, (1 / (1 + np.exp(-logits))).mean(1), atol=1e-6)
    scale = TargetScale((1.0,) * 4, (2.0,) * 4)
    numbers = metric_sums("mse", multi_label=False, scale=scale)
    found = numbers.outputs(numbers.merged(tf.constant(logits)))
    np.testing.assert_allclose(found, 2 * logits.mean(1) + 1, rtol=1e-5)


@pytest.mark.parametrize(("count", "batches"), [(1, 1), (3, 1), (64, 100)])
def test_r2_of_equal_numbers_is_0(seed: int, count: int, batches: int) -> None:
    """The spread of their sums in float32 is not 0, but rounding."""
    number = np.float32(np.random.default_rng(seed).normal())
    numbers = metric_sums("mse", multi_label=False, scale=TargetScale([0.0], [1.0]))
    targets, logits = tf.fill([count, 1], number), tf.fill([count, 1], number + 0.1)
    sums = numbers.sums(logits, targets, tf.fill([count], True)).numpy()
    total = sum([sums] * batches, start=np.zeros_like(sums))
    assert total.dtype == np.float32
    assert numbers.means(total)["r2"] == 0
