"""Tests the loss of a file in points, and that its interval holds the true loss 95% of the time."""

import numpy as np
import pytest

from efficientnetv2.export.answers import ClassesAboveThresholds, FirstClass
from efficientnetv2.export.points_lost import paired_interval, points_lost

ONE_CLASS = FirstClass(np.zeros(0))


def outputs_of(classes, count=3):
    return np.float32(np.eye(count)[classes])


def test_points_are_images_right_before_less_images_right_now():
    labels = np.array([0] * 100)
    expected = outputs_of(np.array([0] * 90 + [1] * 10))
    outputs = outputs_of(np.array([0] * 87 + [1] * 3 + [0] * 1 + [2] * 9))
    lost = points_lost(ONE_CLASS, outputs, expected, labels)
    assert lost.points == pytest.approx(3 - 1)
    assert (lost.low, lost.high) == pytest.approx(
        [100 * end for end in paired_interval(3, 1, count=100)], abs=1e-3
    )
    assert str(lost).startswith("2.0 points, 95% interval -")


def test_without_labels_another_first_class_counts_unless_it_is_a_tie():
    expected = np.array([[0.9, 0.1], [0.504, 0.496], [0.2, 0.8], [0.3, 0.7]])
    outputs = np.array([[0.4, 0.6], [0.4, 0.6], [0.3, 0.7], [0.1, 0.9]])
    assert points_lost(ONE_CLASS, outputs, expected, None).points == 25


def test_of_several_classes_another_set_counts():
    answers = ClassesAboveThresholds(np.array([0.5, 0.5]))
    expected = np.array([[0.9, 0.1], [0.9, 0.9]])
    outputs = np.array([[0.9, 0.6], [0.8, 0.9]])
    assert points_lost(answers, outputs, expected, np.ones([2, 2])).points == 50


@pytest.mark.parametrize("count", [20, 360, 1000])
def test_without_a_difference_the_interval_tells_the_number_of_images(count):
    z = 1.959964
    expected = z**2 / (count + z**2)  # where the score is z: n d / sqrt(n d (1 - d))
    assert paired_interval(0, 0, count=count) == pytest.approx((-expected, expected), rel=1e-4)


@pytest.mark.parametrize(("lost", "gained"), [(3, 0), (12, 2), (5, 5), (50, 0)])
def test_the_interval_is_symmetric_and_holds_the_estimate(lost, gained):
    low, high = paired_interval(lost, gained, count=50)
    assert -1 <= low <= (lost - gained) / 50 <= high <= 1
    assert paired_interval(gained, lost, count=50) == pytest.approx((-high, -low))


@pytest.mark.parametrize("shares", [(0.02, 0.01), (0.01, 0.01), (0.1, 0.05), (0.3, 0.02)])
def test_it_holds_the_true_difference_as_often_as_it_says(shares):
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(360, [*shares, 1 - sum(shares)], size=1000)
    ends = [paired_interval(int(lost), int(gained), count=360) for lost, gained, _ in drawn]
    true = shares[0] - shares[1]
    held = np.mean([low <= true <= high for low, high in ends])
    assert held == pytest.approx(0.95, abs=0.025)  # 3.6 deviations of 1,000 draws
