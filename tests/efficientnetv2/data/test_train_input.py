"""The training stream is a function of (seed, step); all settings come from the step's row."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import augment, decode, training_image
from efficientnetv2.data.bad_images import SkippedLog
from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.data.shard import Shard
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.train.progressive import build_settings, build_stages
from hparams import resolve

pytestmark = pytest.mark.usefixtures("only_digits")

SETTINGS = {"data.crop_area": [0.5, 1.0], "data.flip": True, "train.batch_size": 64}


def constant(**changes):
    settings = dataclasses.replace(StepSettings(16, 0.0, 0.0, 0.0, 0.0, 64), **changes)
    columns = {name: np.array([value]) for name, value in settings.asdict().items()}
    return SettingsSchedule(np.array([0]), StepSettings(**columns))


@pytest.fixture(scope="module")
def stream(digits):
    config = resolve("efficientnetv2-s", "digits", SETTINGS)
    return build_training_input(
        config, digits, phases=[Phase(0, 0, 1257 // 64, 64)], settings=constant()
    )


def take(stream, count, *, start_step=0):
    batches = stream.batches(start_step=start_step).take(count)
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def assert_same(batch, expected):
    np.testing.assert_array_equal(batch[0], expected[0])
    np.testing.assert_array_equal(batch[1], expected[1])


@pytest.fixture(scope="module")
def uninterrupted(stream):
    return take(stream, 2 * 19 + 3)


def test_batches_are_normalised_and_one_hot(uninterrupted):
    images, labels = uninterrupted[0]
    assert images.shape == (64, 16, 16, 3) and images.dtype == np.float32
    assert -1.0 <= images.min() < -0.9 and 0.9 < images.max() <= 1.0
    assert labels.shape == (64, 10)
    np.testing.assert_array_equal(labels.sum(-1), 1)


@pytest.mark.parametrize("step", [1, 18, 38, 40])  # epochs begin at 19 and 38
def test_stream_from_any_step_equals_the_uninterrupted_one(step, stream, uninterrupted):
    assert_same(take(stream, 1, start_step=step)[0], uninterrupted[step])


def test_the_programs_global_seed_does_not_matter(stream, uninterrupted):
    tf.random.set_seed(99)
    assert_same(take(stream, 1)[0], uninterrupted[0])


def test_the_decoder_of_all_formats_gives_the_same_batches(stream, uninterrupted, monkeypatch):
    monkeypatch.setattr(training_image, "decode_training", decode.decode_training)
    assert_same(take(stream, 1, start_step=20)[0], uninterrupted[20])


def test_another_seed_is_another_stream(stream, uninterrupted):
    other = dataclasses.replace(stream, seed=stream.seed + 1)
    assert np.mean(take(other, 1)[0][0] != uninterrupted[0][0]) > 0.3


def test_epochs_have_other_orders_crops_and_flips(uninterrupted):
    first, second = uninterrupted[0], uninterrupted[19]
    assert np.mean(first[1] != second[1]) > 0.1
    assert np.mean(first[0] != second[0]) > 0.3


def plain(stream, *, image_size=8, **changes):
    """The stream without crops, so that images can be recognised."""
    transform = dataclasses.replace(stream.transform, area=(1.0, 1.0), flip=False)
    transform = dataclasses.replace(transform, **changes)
    settings = constant(image_size=image_size)
    return dataclasses.replace(stream, transform=transform, settings=settings)


@pytest.fixture(scope="module")
def one_epoch(stream):
    return take(plain(stream), 19)


def test_an_epoch_uses_each_image_at_most_once(one_epoch):
    images = np.concatenate([images for images, _ in one_epoch])
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    assert len(images) == 19 * 64
    assert distinct > 0.99 * len(images)  # scikit-learn's digits hold a few equal images


def test_half_of_the_images_are_mirrored(stream, one_epoch):
    pairs = zip(one_epoch, take(plain(stream, flip=True), 10))
    mirrored = same = 0
    for (a, _), (b, _) in pairs:
        same += int(np.all(a == b, axis=(1, 2, 3)).sum())
        mirrored += int(np.all(a[:, :, ::-1] == b, axis=(1, 2, 3)).sum())
    assert same + mirrored >= 640
    assert 0.43 < mirrored / 640 < 0.57  # 640 coins: 3.5 standard deviations


def test_all_sizes_have_one_type(stream):
    images, targets = stream.batches().element_spec
    assert images.shape.as_list() == [64, None, None, 3]
    assert targets.shape.as_list() == [64, 10]


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_are_the_batch(parts, stream, uninterrupted):
    in_parts = dataclasses.replace(stream, microbatches=parts)
    made = take(in_parts, 2 * parts, start_step=18)  # the last of an epoch, the first of another
    assert [len(images) for images, _ in made] == [64 // parts] * 2 * parts
    for step in (18, 19):
        own, made = made[:parts], made[parts:]
        assert_same([np.concatenate(arrays) for arrays in zip(*own)], uninterrupted[step])


def test_parts_of_a_batch_are_mixed_each_on_its_own(stream, uninterrupted):
    mixing = dataclasses.replace(stream, settings=constant(mixup_alpha=0.5), microbatches=2)
    made = take(mixing, 8)
    for step in (0, 3):
        parts, whole = made[2 * step : 2 * step + 2], uninterrupted[step]
        weights = []
        for number, (images, targets) in enumerate(parts):
            rows = slice(32 * number, 32 * (number + 1))
            assert set(targets.nonzero()[1]) <= set(whole[1][rows].nonzero()[1])
            assert not np.array_equal(images, whole[0][rows])
            weights.append(targets.max(-1))
        assert not np.allclose(*weights)
    assert_same(take(mixing, 1, start_step=3)[0], made[6])


# ---------------------------------------------------------------------- progressive, all at once

NUM_IMAGES = 200  # per epoch: 6 batches
PROGRESSIVE = {
    **SETTINGS,
    "train.epochs": 4,
    "train.stages": 4,
    "train.batch_size": 32,
    "train.isize": 40,
    "data.ibase": 16,
    "data.mixup_alpha": 0.4,
    "data.cutmix_alpha": 1.0,
}
AUGMENTED = {"data.augname": "randaug", "data.cutout": 0.25}
GROWING = {
    "data.mixup_alpha": 0.0,
    "data.cutmix_alpha": 0.0,
    "train.scale_batch_with_size": True,
    "train.stages": 3,
    "train.epochs": 3,
    "train.isize": 48,
}


def progressive(digits, *, log=None, **changes):
    config = resolve("efficientnetv2-s", "digits", {**PROGRESSIVE, **changes})
    plan = build_stages(config, num_images=NUM_IMAGES)
    phases = [Phase(s.first_epoch, s.first_step, s.steps_per_epoch, s.batch_size) for s in plan]
    if not config.train.scale_batch_with_size:
        phases = phases[:1]
    settings = build_settings(config, plan)
    return plan, build_training_input(config, digits, phases=phases, settings=settings, skipped=log)


def assert_restarts_are_uninterrupted(stream, plan, whole):
    """From the middle of an early stage to the end, and from the last step of a later one."""
    early, late = plan[len(plan) // 3], plan[-2 if len(plan) > 1 else -1]
    sizes = [images.shape[1] for images, _ in whole]
    expected = [stream.settings.mean(step, step + 1)["image_size"] for step in range(len(whole))]
    assert sizes == expected
    for start, end in (
        ((early.first_step + early.end_step) // 2, len(whole)),
        (late.end_step - 1, min(late.end_step + 1, len(whole))),
    ):
        made = take(stream, end - start, start_step=start)
        assert len(made) == end - start > 0
        for batch, same in zip(made, whole[start:end]):
            assert_same(batch, same)


@pytest.fixture(scope="module")
def mixed(digits):
    plan, stream = progressive(digits)
    return plan, stream, take(stream, plan[-1].end_step)


@pytest.mark.slow
def test_in_every_stage_the_stream_from_a_step_is_the_uninterrupted_one(mixed):
    plan, stream, whole = mixed
    assert_restarts_are_uninterrupted(stream, plan, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "data.augname": "trivialaugment",
            "data.random_erasing": 0.5,
            "data.repeats": 3,
            "data.on_bad_image": "skip",
        },
        {
            "data.augname": "augmix",
            "data.color_jitter": [0.4, 0.4, 0.4, 0.1],
            "data.vertical_flip": True,
            "data.quarter_turns": True,
            "data.rotate": 30.0,
            "data.cutout": 0.25,
            "data.repeats": 2,
        },
        {
            **AUGMENTED,
            "data.augment_ops": "official",
            "train.size_schedule": "random",
            "train.size_steps": 1,
        },
    ],
    ids=str,
)
def test_with_augmentation_the_stream_from_a_step_is_the_uninterrupted_one(
    changes, digits, tmp_path
):
    plan, stream = progressive(digits, log=SkippedLog(tmp_path / "bad.txt"), **changes)
    assert_restarts_are_uninterrupted(stream, plan, take(stream, plan[-1].end_step))


@pytest.mark.slow
def test_batches_grow_where_images_are_small(digits):
    plan, stream = progressive(digits, **GROWING)
    whole = take(stream, plan[-1].end_step)
    expected = [s.batch_size for s in plan for _ in range(s.first_step, s.end_step)]
    assert [len(images) for images, _ in whole] == expected
    assert [s.batch_size for s in plan] == [6 * 32, 2 * 32, 32]
    assert_restarts_are_uninterrupted(stream, plan, whole)


def test_mixing_and_strength_belong_to_their_stage(mixed):
    plan, _, whole = mixed
    shares = [float(np.mean(targets.max(-1) < 1)) for _, targets in whole]
    first, last = plan[0], plan[-1]
    assert max(shares[: first.end_step]) == 0
    assert min(shares[last.first_step :]) > 0.5
    for _, targets in whole:
        np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)


def test_images_without_augmentation_are_not_rounded(stream, uninterrupted):
    images, _ = uninterrupted[0]
    pixels = images * 128 + 128
    assert np.abs(pixels - np.rint(pixels)).max() > 0.1
    rounded = dataclasses.replace(
        stream, transform=dataclasses.replace(stream.transform, name="randaug", layers=0)
    )
    pixels = take(rounded, 1)[0][0] * 128 + 128
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)


@pytest.mark.slow
def test_a_tf_data_service_gives_the_same_batches_in_the_same_order(digits):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    workers = [service.WorkerServer(service.WorkerConfig(address)) for _ in range(2)]
    changes = {**AUGMENTED, "train.epochs": 2, "train.stages": 2, "data.repeats": 3}
    plan, stream = progressive(digits, **changes)
    expected = take(stream, plan[-1].end_step)
    served = dataclasses.replace(stream, service=dispatcher.target, num_streams=2)
    start = 3  # an odd step, which the second stream prepares; the second stage begins at 6
    got = take(served, len(expected) - start, start_step=start)
    assert len(got) == len(expected) - start
    for batch, same in zip(got, expected[start:]):
        assert_same(batch, same)
    assert len({id(worker) for worker in workers}) == 2


# ---------------------------------------------------------------------- repeats and erasing


@pytest.fixture(scope="module")
def repeated(stream):
    """Three times the same image in a row, without crops and flips; and the steps of an epoch."""
    repeating = dataclasses.replace(plain(stream), repeats=3)
    return repeating, take(repeating, 2 * 19)


def test_each_image_comes_several_times_in_a_row(repeated, one_epoch):
    images = np.concatenate([images for images, _ in repeated[1][:19]])
    labels = np.concatenate([labels for _, labels in repeated[1][:19]])
    once = [np.concatenate(arrays) for arrays in zip(*one_epoch)]
    assert len(images) == 19 * 64  # as many as without repeats
    source = np.arange(19 * 64) // 3
    np.testing.assert_array_equal(images, once[0][source])
    np.testing.assert_array_equal(labels, once[1][source])


def test_the_next_epoch_has_other_images(repeated):
    first, second = (
        {image.tobytes() for images, _ in epoch for image in images}
        for epoch in (repeated[1][:19], repeated[1][19:])
    )
    assert 400 < len(first) <= 406 and 400 < len(second) <= 406  # 19 * 64 / 3
    # By chance a third of an epoch's images was seen in the epoch before: 406 * 406 / 1257.
    assert 90 < len(first & second) < 175


def test_each_repeat_is_augmented_anew(stream):
    images, _ = take(dataclasses.replace(stream, repeats=4), 1)[0]
    assert len({image.tobytes() for image in images}) > 0.95 * len(images)


@pytest.mark.parametrize("step", [5, 20])  # in the middle of an epoch: 64 is no multiple of 3
def test_a_stream_of_repeats_goes_on_from_any_step(step, repeated):
    assert_same(take(repeated[0], 1, start_step=step)[0], repeated[1][step])


def test_shards_of_repeats_make_up_the_batch(repeated):
    stream, whole = repeated
    halves = [
        next(iter(stream.batches(start_step=18, shard=Shard(index, 2)))) for index in range(2)
    ]
    assert_same([np.concatenate(arrays) for arrays in zip(*halves)], whole[18])


def test_an_iteration_from_an_epoch_repeats_too(repeated):
    stream, whole = repeated
    with tf.device("cpu:0"):
        epoch = tf.Variable(1, dtype=tf.int64)
    batch = next(iter(stream.from_epoch(epoch)))
    assert_same([tensor.numpy() for tensor in batch], whole[19])


@pytest.mark.parametrize("augmentation", ["none", "trivialaugment"])
def test_erased_pixels_are_the_normalised_0(augmentation, stream, monkeypatch):
    monkeypatch.setattr(augment, "WIDE", {"Identity": augment.WIDE["Identity"]})
    (images, _), (erased, _) = (
        take(plain(stream, preprocess="v1", name=augmentation, random_erasing=share), 1)[0]
        for share in (0.0, 0.5)
    )
    changed = (images != erased).any(-1)
    assert (erased[changed] == 0).all()
    assert 0.25 < changed.any((1, 2)).mean() < 0.75  # 64 coins: four standard deviations
    assert 0.02 < changed.mean() < 0.2
