"""Thresholds and scores of images with several classes, against scikit-learn and brute force."""

import numpy as np
import pytest
import sklearn.metrics

from efficientnetv2.evaluation.label_scores import (
    choose_thresholds,
    class_scores,
    label_metrics,
    with_label_metrics,
)
from efficientnetv2.evaluation.predictions import FullPredictions

IMAGES, CLASSES = 200, 5


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(5)
    targets = rng.random((IMAGES, CLASSES)) < [0.5, 0.3, 0.1, 0.02, 0.2]
    logits = rng.normal(size=targets.shape) * [1, 1, 1, 0.1, 3] + 2 * targets - 1
    outputs = np.round(1 / (1 + np.exp(-logits)), 2).astype(np.float32)  # with ties
    return FullPredictions(np.arange(IMAGES), outputs, targets.astype(np.float32))


def f1_of(outputs, targets, threshold):
    return sklearn.metrics.f1_score(targets > 0, outputs >= threshold)


def test_no_threshold_has_a_better_f1(predictions):
    thresholds = choose_thresholds(predictions)
    for outputs, targets, threshold in zip(
        predictions.outputs.T, predictions.targets.T, thresholds
    ):
        best = max(f1_of(outputs, targets, cut) for cut in np.unique(outputs))
        assert f1_of(outputs, targets, threshold) == pytest.approx(best)
        assert np.abs(outputs - threshold).min() > 1e-3  # between two of them
        assert 0 < threshold < 1


def test_a_wanted_precision_has_the_highest_recall(predictions):
    thresholds = choose_thresholds(predictions, min_precision=0.8)
    reached = 0
    for outputs, targets, threshold in zip(
        predictions.outputs.T, predictions.targets.T, thresholds
    ):
        is_label = targets > 0
        scores = {}
        for cut in (*np.unique(outputs), threshold):
            found = outputs >= cut
            scores[cut] = (is_label[found].mean(), is_label[found].sum() / is_label.sum())
        fitting = [recall for precision, recall in scores.values() if precision >= 0.8]
        precision, recall = scores[threshold]
        if fitting:
            assert precision >= 0.8 and recall == max(fitting)
            reached += 1
        else:
            assert precision == max(precision for precision, _ in scores.values())
    assert 0 < reached < CLASSES


def test_a_class_that_tells_nothing_gets_a_half(predictions):
    targets = predictions.targets.copy()
    targets[:, 0], targets[:, 1] = 0, 1
    thresholds = choose_thresholds(FullPredictions(predictions.index, predictions.outputs, targets))
    assert thresholds[:2].tolist() == [0.5, 0.5]


def test_metrics_are_scikit_learns(predictions):
    thresholds = choose_thresholds(predictions)
    metrics = label_metrics(predictions, thresholds)
    targets, outputs = predictions.targets, predictions.outputs
    for name, average in (("map", "macro"), ("ap_micro", "micro")):
        expected = sklearn.metrics.average_precision_score(targets, outputs, average=average)
        assert metrics[name] == pytest.approx(expected)
    expected = sklearn.metrics.f1_score(targets, outputs >= thresholds, average="macro")
    assert metrics["macro_f1"] == pytest.approx(expected)


def test_scores_of_classes(predictions):
    thresholds = np.full(CLASSES, 0.4)
    names = [f"class {number}" for number in range(CLASSES)]
    for number, score in enumerate(class_scores(predictions, names, thresholds)):
        true = predictions.targets[:, number] > 0
        found = predictions.outputs[:, number] >= 0.4
        assert (score.name, score.images) == (names[number], true.sum())
        for name in ("precision", "recall", "f1"):
            expected = getattr(sklearn.metrics, f"{name}_score")(true, found, zero_division=0)
            assert getattr(score, name) == pytest.approx(expected)


def test_a_class_without_images_does_not_count(predictions):
    targets = predictions.targets.copy()
    targets[:, 0] = 0
    changed = FullPredictions(predictions.index, predictions.outputs, targets)
    metrics = label_metrics(changed, np.full(CLASSES, 0.5))
    expected = sklearn.metrics.average_precision_score(
        targets[:, 1:], predictions.outputs[:, 1:], average="macro"
    )
    assert metrics["map"] == pytest.approx(expected)
    nothing = FullPredictions(predictions.index, predictions.outputs, 0 * targets)
    assert set(label_metrics(nothing, np.full(CLASSES, 0.5)).values()) == {0.0}


def test_they_are_added_to_the_metrics_of_the_same_weights(predictions):
    metrics = {"raw": {"loss": 1.0}, "ema": {"loss": 0.5}}
    added = with_label_metrics(metrics, {"ema": predictions}, np.full(CLASSES, 0.5))
    assert added["raw"] == {"loss": 1.0}
    assert added["ema"] == {"loss": 0.5, **label_metrics(predictions, np.full(CLASSES, 0.5))}
    assert metrics["ema"] == {"loss": 0.5}
