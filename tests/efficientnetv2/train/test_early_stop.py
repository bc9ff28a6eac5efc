"""Tests the best result in the records, and the number of epochs since it was reached."""

import pytest

from efficientnetv2.train.early_stop import best_result, epochs_without_better


def lines(*values):
    """Returns records; a value is a raw top-1, (raw, averaged) ones, or None: not validated."""
    records = []
    for step, value in enumerate(values, start=1):
        names = ("minival_top1", "minival_ema_top1")
        pairs = () if value is None else (value,) if isinstance(value, float) else value
        records.append({"step": step, "loss": 1.0, **dict(zip(names, pairs))})
    return records


@pytest.mark.parametrize(
    ("values", "best", "since"),
    [
        ([], None, 0),
        ([None, None], None, 0),
        ([0.5], 0.5, 0),
        ([0.5, 0.5], 0.5, 1),
        ([0.5, 0.4, 0.6], 0.6, 0),
        ([0.5, 0.6, 0.4, 0.6, 0.1], 0.6, 3),
        ([(0.5, 0.1), (0.4, 0.6), (0.59, 0.2)], 0.6, 1),
        ([0.5, None, 0.4, None], 0.5, 1),
        ([0.0, 0.0], 0.0, 1),
        ([-3.0, -1.0, -2.0], -1.0, 1),
    ],
)
def test_the_best_and_the_epochs_since(values, best, since):
    assert best_result(lines(*values), "top1") == best
    assert epochs_without_better(lines(*values), "top1") == since
    assert best_result(lines(*values), "r2") is None


def test_a_new_image_size_starts_anew():
    records = lines(0.9, 0.8, 0.5, 0.4, 0.6, 0.6)
    for record, size in zip(records, (16, 16, 32, 32, 32, 32)):
        record["minival_size"] = size
    assert best_result(records, "top1") == 0.9
    assert best_result(records, "top1", image_size=16) == 0.9
    assert best_result(records, "top1", image_size=32) == 0.6
    assert best_result(records, "top1", image_size=64) is None
    counts = [epochs_without_better(records[:number], "top1") for number in range(1, 7)]
    assert counts == [0, 1, 0, 1, 0, 1]
