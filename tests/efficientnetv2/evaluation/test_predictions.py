"""Tests the order, the confusions and the calibration error of predictions, and their report."""

import csv

import numpy as np
import pytest
from PIL import Image

from efficientnetv2.evaluation.predictions import Predictions, calibration_error, merge_replicas
from efficientnetv2.reporting.evaluation_report import class_rows, draw_mistakes, write_class_tables


def predictions_of(label, predicted, confidence):
    return Predictions(
        np.arange(len(label)),
        np.array(label, np.int64),
        np.array(predicted, np.int64),
        np.array(confidence, np.float32),
    )


@pytest.fixture
def predictions():
    return predictions_of([0, 0, 0, 1, 1, 3], [0, 1, 1, 1, 3, 3], [0.9, 0.6, 0.8, 0.7, 0.95, 0.2])


NAMES = ["cat", "dog", "emu", "fox"]


def test_confusions(predictions):
    by_hand = [[1, 2, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert predictions.confusion(4).tolist() == by_hand


def test_classes_the_worst_first(predictions):
    assert class_rows(predictions, NAMES) == [
        ("cat", 3, 1 / 3, "dog"),
        ("dog", 2, 0.5, "fox"),
        ("fox", 1, 1.0, ""),
    ]


def test_the_most_confident_mistakes(predictions):
    mistakes = predictions.mistakes(2)
    assert mistakes.index.tolist() == [4, 2]
    assert mistakes.predicted.tolist() == [3, 1]
    assert len(predictions.mistakes(10).index) == 3


def test_calibration_by_hand():
    # Two bins: (0.6, 0.6667] holds three predictions, one right; (0.8667, 0.9333] one, right.
    predictions = predictions_of([0, 0, 0, 0], [0, 1, 1, 0], [0.62, 0.64, 0.66, 0.9])
    by_hand = (abs(1 - (0.62 + 0.64 + 0.66)) + abs(1 - 0.9)) / 4
    assert calibration_error(predictions) == pytest.approx(by_hand)
    assert calibration_error(predictions_of([1, 1], [1, 1], [1.0, 1.0])) == 0
    assert calibration_error(predictions_of([], [], [])) == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("images", [1, 7, 16])
def test_order_over_workers_replicas_and_steps(workers, replicas, images):
    """Image n goes to worker n modulo their number; its batches go to its replicas in turn."""
    batch, steps = 2, 8
    rows = np.zeros((steps, workers * replicas, batch, 4), np.float32)
    for worker in range(workers):
        for place, image in enumerate(range(worker, images, workers)):
            turn, row = divmod(place, batch)
            step, replica = divmod(turn, replicas)
            rows[step, worker * replicas + replica, row] = (image % 5, image / 100, image, 1)
    predictions = Predictions.from_rows(*merge_replicas(rows, workers=workers))
    assert predictions.index.tolist() == list(range(images))
    assert predictions.label.tolist() == list(range(images))
    assert predictions.predicted.tolist() == [image % 5 for image in range(images)]
    np.testing.assert_allclose(predictions.confidence, np.arange(images) / 100)


def test_images_that_are_left_out_keep_their_numbers():
    """Of batches of three, the first is short of one image: later numbers must not move."""
    rows = np.zeros((3, 1, 3, 4), np.float32)
    rows[0, 0, 0, -1] = rows[0, 0, 2, -1] = 1
    rows[1, 0, :, -1] = rows[2, 0, 0, -1] = 1
    rows[..., 2] = np.arange(9).reshape(3, 1, 3)
    index, values = merge_replicas(rows, workers=1)
    assert index.tolist() == values[:, 2].tolist() == [0, 2, 3, 4, 5, 6]


def test_tables_and_pictures(tmp_path, predictions):
    written = write_class_tables(predictions, NAMES, tmp_path, suffix="_x", title="a network")
    assert written == ["per_class_x.csv", "confusion_x.csv", "confusion_x.png"]
    with (tmp_path / "per_class_x.csv").open() as file:
        assert next(csv.DictReader(file))["most_taken_for"] == "dog"
    with (tmp_path / "confusion_x.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[1:] == NAMES
    assert [list(map(int, row[1:])) for row in rows] == predictions.confusion(4).tolist()
    mistakes = predictions.mistakes(24)
    images = np.zeros((3, 8, 8, 3), np.uint8)
    draw_mistakes(images, mistakes, NAMES, tmp_path / "mistakes.png", title="a network")
    for name in ("confusion_x.png", "mistakes.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture).std() > 10
    assert not list(tmp_path.glob("*.tmp*"))


def test_many_classes_get_no_matrix(tmp_path):
    names = [f"class {number}" for number in range(1001)]
    predictions = predictions_of([0, 1000], [0, 1], [0.5, 0.5])
    assert write_class_tables(predictions, names, tmp_path, suffix="", title="") == [
        "per_class.csv"
    ]
