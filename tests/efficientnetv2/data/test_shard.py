"""The shards of several processes, one after the other, are the batches of a single process."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import eval_input
from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.shard import Shard
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.train.progressive import build_settings, build_stages, phases_of
from hparams import resolve

pytestmark = pytest.mark.usefixtures("only_digits")

SETTINGS = {
    "train.epochs": 2,
    "train.stages": 2,
    "train.batch_size": 24,
    "train.isize": 24,
    "data.ibase": 12,
    "eval.isize": 16,
    "eval.batch_size": 50,
}


def stream_of(digits, *, microbatches=1, num_images=125, **changes):
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, **changes})
    plan = build_stages(config, num_images=num_images)
    return build_training_input(
        config,
        digits,
        phases=phases_of(plan),
        settings=build_settings(config, plan),
        microbatches=microbatches,
    )


def take(stream, count, **options):
    return [[x.numpy() for x in batch] for batch in stream.batches(**options).take(count)]


# 125 images: 5 batches of 24 an epoch. Where the batch grows, the first epoch has one of 96.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "replicas", "microbatches", "grows", "first", "sizes"),
    [(2, 1, 1, True, 0, (96, 24, 24)), (3, 2, 4, False, 4, (24, 24, 24))],
)
def test_shards_make_up_the_batch(count, replicas, microbatches, grows, first, sizes, digits):
    changes = {"train.scale_batch_with_size": grows}
    stream = stream_of(digits, microbatches=microbatches, **changes)
    steps = 3 * microbatches  # the second epoch begins at the second step, with larger images
    whole = take(stream, steps, start_step=first)
    shards = [
        take(stream, steps * replicas, start_step=first, shard=Shard(index, count, replicas))
        for index in range(count)
    ]
    assert whole[0][0].shape[1] == 12 and whole[-1][0].shape[1] == 24
    assert [len(images) for images, _ in whole[::microbatches]] == [
        n // microbatches for n in sizes
    ]
    for number, batch in enumerate(whole):
        pieces = [s for shard in shards for s in shard[number * replicas : (number + 1) * replicas]]
        assert {len(images) for images, _ in pieces} == {len(batch[0]) // count // replicas}
        for which in (0, 1):
            joined = np.concatenate([piece[which] for piece in pieces])
            np.testing.assert_array_equal(joined, batch[which])


def test_a_shard_is_prepared_alone(digits):
    prepared = []

    class CountingSource(type(digits)):
        def load(self, reference):
            name, encoded, label = super().load(reference)

            def count(label):
                prepared.append(1)
                return label

            label = tf.ensure_shape(tf.py_function(count, [label], tf.int64), [])
            return name, encoded, label

    source = CountingSource.__new__(CountingSource)
    source.__dict__.update(digits.__dict__)
    stream = stream_of(digits, num_images=1257, **{"train.batch_size": 240})
    stream = dataclasses.replace(stream, source=source)
    take(stream, 10, shard=Shard(1, 4))
    # What is prefetched comes on top; four times as many would be the whole batches.
    assert 10 * 60 <= len(prepared) < 2 * 10 * 60


@pytest.mark.slow
def test_mixing_is_among_the_images_of_a_worker(digits):
    mixed = {"data.mixup_base": 1.0, "data.mixup_alpha": 1.0}
    stream, plain = stream_of(digits, **mixed), stream_of(digits)
    weights = []
    for index in (0, 1):
        shard = Shard(index, 2)
        (_, targets), (_, own) = take(stream, 1, shard=shard)[0], take(plain, 1, shard=shard)[0]
        assert ((targets > 0).sum(-1) > 1).mean() > 0.5
        assert set(np.flatnonzero(targets.sum(0))) == set(np.flatnonzero(own.sum(0)))
        weights.append(np.sort(targets.max(-1)))
    assert not np.array_equal(*weights)


@pytest.fixture
def blank_images(monkeypatch):
    """No image is decoded: which of them are read, and in what batches, does not depend on it."""
    blank = tf.zeros([16, 16, 3])
    monkeypatch.setattr(eval_input, "evaluation_image", lambda config, encoded: blank)


@pytest.mark.slow
@pytest.mark.usefixtures("blank_images")
@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (1, 3), (2, 1), (3, 2), (7, 1)])
@pytest.mark.parametrize("batch_size", [50, 7, 1000])
def test_every_evaluation_image_is_in_one_shard(count, replicas, batch_size, digits):
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, "eval.batch_size": batch_size})
    images = EvaluationInput(config, digits, split="minival")
    expected = np.concatenate([t.numpy() for _, t in images.batches()])
    real_targets, lengths, shapes = [], set(), set()
    for index in range(count):
        batches = list(images.padded(Shard(index, count, replicas)))
        lengths.add(len(batches))
        for pixels, targets, is_real in batches:
            shapes.add(tuple(pixels.shape))
            real_targets.append(targets.numpy()[is_real.numpy()])
            assert not targets.numpy()[~is_real.numpy()].any()
    assert len(lengths) == len(shapes) == 1
    assert lengths.pop() % replicas == 0
    np.testing.assert_array_equal(np.concatenate(real_targets).sum(0), expected.sum(0))
    assert sum(map(len, real_targets)) == 180
    assert shapes.pop()[0] == -(-min(batch_size, 180) // (count * replicas))
