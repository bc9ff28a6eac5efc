"""Tests that wrong labels are found by features."""

import numpy as np
import pytest

from efficientnetv2.data.quality.label_errors import find_label_errors


def blobs(counts, *, spread=1.0, size=20, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (len(counts), size))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.float32(centres[labels] + rng.normal(0, spread, (len(labels), size))), labels


def test_wrong_labels_are_found_with_what_they_are():
    features, truth = blobs([80, 60, 40, 20])
    rng = np.random.default_rng(1)
    wrong = rng.permutation(len(truth))[:12]
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, 4, 12)) % 4
    suspects = find_label_errors(features, labels.tolist(), range(len(labels)))
    found = {suspect.image for suspect in suspects}
    assert found <= set(wrong.tolist()) and len(found) >= 11
    assert all(suspect.suggestion == truth[suspect.image] for suspect in suspects)
    margins = [suspect.probability - suspect.own_probability for suspect in suspects]
    assert margins == sorted(margins, reverse=True) and min(margins) > 0.3


def test_labels_that_nobody_could_guess_are_left_alone():
    features, labels = blobs([50, 50], spread=30)
    suspects = find_label_errors(features, labels.tolist(), range(100))
    assert len(suspects) <= 25  # half of all guesses are wrong


def test_copies_do_not_judge_each_other():
    features, labels = blobs([40, 40])
    labels[:3] = 1  # wrong; each has two copies with the same wrong label
    features = np.concatenate([features, features[:3], features[:3]])
    labels = np.concatenate([labels, labels[:3], labels[:3]])
    groups = np.arange(86)
    groups[80:] = [0, 1, 2, 0, 1, 2]
    found = {suspect.image for suspect in find_label_errors(features, labels, groups)}
    assert found == {0, 1, 2, *range(80, 86)}
    alone = {suspect.image for suspect in find_label_errors(features, labels, range(86))}
    assert len(alone) < len(found)


@pytest.mark.parametrize("labels", [[], [3], [3, 3, 3], [0, 1], [*[0] * 20, 1]])
def test_too_few_images_have_no_suspects(labels):
    features = np.zeros([len(labels), 4], np.float32)
    assert find_label_errors(features, labels, range(len(labels))) == []


def test_a_class_may_have_one_image():
    features, labels = blobs([30, 30, 1])
    suspects = find_label_errors(features, labels.tolist(), range(61))
    assert {suspect.image for suspect in suspects} <= {60}
