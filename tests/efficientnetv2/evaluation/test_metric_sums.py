"""Compares the metrics of several labels with scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from efficientnetv2.evaluation.metric_sums import multi_label_result, multi_label_sums


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
