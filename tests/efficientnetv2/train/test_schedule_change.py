"""Tests which finished steps of a training would have been others with more epochs."""

import math

import pytest

from efficientnetv2.train.schedule_change import compare_schedules
from hparams import resolve

ONE_STAGE = {"train.batch_size": 256, "train.stages": 1, "train.lr_warmup_epoch": 1.0}
STEPS = 4  # per epoch


def change(epochs, more, *, step, **settings):
    before, after = (
        resolve("efficientnetv2-s", "digits", {**ONE_STAGE, **settings, "train.epochs": count})
        for count in (epochs, more)
    )
    return compare_schedules(before, after, num_images=1257, step=step)


@pytest.mark.parametrize("schedule", ["constant", "exponential"])
def test_an_endless_schedule_is_the_same(schedule):
    result = change(5, 10, step=5 * STEPS, **{"train.lr_sched": schedule})
    assert result.is_exact
    assert result.last_rate == pytest.approx(0.006, rel=0.06)


def test_a_cosine_goes_back_to_where_the_longer_one_is():
    result = change(5, 9, step=5 * STEPS, **{"train.lr_sched": "cosine"})
    assert (result.settings, result.changes_rate, result.is_exact) == ((), True, False)
    assert result.next_rate == pytest.approx(0.006 * 0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert result.last_rate == pytest.approx(0.006 * 0.5 * (1 + math.cos(math.pi * 15 / 16)))


def test_a_cosine_is_the_same_while_it_warms_up():
    settings = {"train.lr_sched": "cosine", "train.lr_warmup_epoch": 2.0}
    assert change(5, 9, step=2 * STEPS, **settings).is_exact
    assert not change(5, 9, step=2 * STEPS + 2, **settings).is_exact


def test_stages_end_later():
    settings = {"train.stages": 2, "train.lr_sched": "constant"}
    assert "image_size" in change(4, 8, step=4 * STEPS, **settings).settings
    assert change(4, 8, step=2 * STEPS, **settings).is_exact  # of a training that was stopped
    assert not change(4, 8, step=2 * STEPS + 1, **settings).is_exact


def test_random_sizes_are_drawn_in_the_same_order():
    settings = {"train.lr_sched": "constant", "train.size_schedule": "random", "data.ibase": 8}
    assert change(5, 50, step=5 * STEPS, **settings).is_exact


def test_a_weight_decay_that_grows_grows_slower():
    settings = {"train.lr_sched": "constant", "train.weight_decay_inc": 0.5}
    assert change(5, 9, step=5 * STEPS, **settings).settings == ("weight_decay",)


def test_batches_that_grow_back():
    settings = {"train.stages": 2, "train.scale_batch_with_size": True, "data.ibase": 16}
    assert "batch_size" in change(4, 8, step=6, **settings).settings
