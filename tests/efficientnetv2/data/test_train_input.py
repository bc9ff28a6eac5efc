"""The training stream is a function of (seed, step); all settings come from the step's row."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.train.progressive import build_settings, build_stages
from hparams import resolve

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


@pytest.mark.parametrize("step", [1, 18, 19, 20, 37, 38, 40])
def test_stream_from_any_step_equals_the_uninterrupted_one(step, stream, uninterrupted):
    assert_same(take(stream, 1, start_step=step)[0], uninterrupted[step])


def test_the_programs_global_seed_does_not_matter(stream, uninterrupted):
    for seed in (0, 99):
        tf.random.set_seed(seed)
        assert_same(take(stream, 1)[0], uninterrupted[0])


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


def test_an_epoch_uses_each_image_at_most_once(stream):
    images = np.concatenate([images for images, _ in take(plain(stream), 19)])
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    assert len(images) == 19 * 64
    assert distinct > 0.99 * len(images)  # scikit-learn's digits hold a few equal images


def test_half_of_the_images_are_mirrored(stream):
    pairs = zip(take(plain(stream), 10), take(plain(stream, flip=True), 10))
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
    for step in (0, 18):
        made = take(in_parts, parts, start_step=step)
        assert [len(images) for images, _ in made] == [64 // parts] * parts
        assert_same([np.concatenate(arrays) for arrays in zip(*made)], uninterrupted[step])


@pytest.mark.slow
def test_parts_of_a_batch_are_mixed_each_on_its_own(stream):
    mixing = dataclasses.replace(stream, settings=constant(mixup_alpha=0.5), microbatches=2)
    whole = dataclasses.replace(stream, settings=constant())
    for step in (0, 3):
        parts = take(mixing, 2, start_step=step)
        plain = take(whole, 1, start_step=step)[0]
        weights = []
        for number, (images, targets) in enumerate(parts):
            own = plain[1][32 * number : 32 * (number + 1)]
            assert set(targets.nonzero()[1]) <= set(own.nonzero()[1])
            assert not np.array_equal(images, plain[0][32 * number : 32 * (number + 1)])
            weights.append(targets.max(-1))
        assert not np.allclose(*weights)
        assert_same(take(mixing, 1, start_step=step)[0], parts[0])


# ---------------------------------------------------------------------- progressive, all at once

EVERYTHING = {
    **SETTINGS,
    "train.epochs": 4,
    "train.stages": 4,
    "train.batch_size": 128,
    "train.isize": 40,
    "data.ibase": 16,
    "data.augname": "randaug",
    "data.cutout": 0.25,
    "data.mixup_alpha": 0.4,
    "data.cutmix_alpha": 1.0,
}


def progressive(digits, **changes):
    config = resolve("efficientnetv2-s", "digits", {**EVERYTHING, **changes})
    plan = build_stages(config, num_images=1257)
    phases = [Phase(s.first_epoch, s.first_step, s.steps_per_epoch, s.batch_size) for s in plan]
    if not config.train.scale_batch_with_size:
        phases = phases[:1]
    settings = build_settings(config, plan)
    return plan, build_training_input(config, digits, phases=phases, settings=settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.augname": "autoaug"},
        {"data.augment_ops": "official"},
        {"train.scale_batch_with_size": True},
        {"train.size_schedule": "random", "train.size_steps": 1},
        {"data.on_bad_image": "skip"},
    ],
    ids=str,
)
def test_in_every_stage_the_stream_from_a_step_is_the_uninterrupted_one(changes, digits):
    plan, stream = progressive(digits, **changes)
    whole = take(stream, plan[-1].end_step)
    sizes = [images.shape[1] for images, _ in whole]
    expected = [int(stream.settings.mean(step, step + 1)["image_size"]) for step in range(36)]
    assert sizes[:36] == expected[: len(sizes)]
    for stage in plan:  # the first, a middle and the last step of a stage, in turns
        length = stage.end_step - stage.first_step
        step = stage.first_step + (0, length // 2, length - 1)[stage.index % 3]
        assert_same(take(stream, 1, start_step=step)[0], whole[step])


@pytest.mark.slow
def test_batches_grow_where_images_are_small(digits):
    plan, stream = progressive(digits, **{"train.scale_batch_with_size": True})
    whole = take(stream, plan[-1].end_step)
    expected = [s.batch_size for s in plan for _ in range(s.first_step, s.end_step)]
    assert [len(images) for images, _ in whole] == expected
    assert plan[0].batch_size == 6 * 128 and plan[-1].batch_size == 128


def test_mixing_and_strength_belong_to_their_stage(digits):
    plan, stream = progressive(digits, **{"data.cutout": 0.0})
    whole = take(stream, plan[-1].end_step)
    mixed = [float(np.mean(targets.max(-1) < 1)) for _, targets in whole]
    first, last = plan[0], plan[-1]
    assert max(mixed[: first.end_step]) == 0
    assert min(mixed[last.first_step :]) > 0.5
    for _, targets in whole:
        np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)


def test_images_without_augmentation_are_not_rounded(stream):
    images, _ = take(stream, 1)[0]
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
    plan, stream = progressive(digits, **{"train.epochs": 2, "train.stages": 2})
    expected = take(stream, plan[-1].end_step)
    served = dataclasses.replace(stream, service=dispatcher.target, num_streams=2)
    for start in (0, 13):
        got = take(served, plan[-1].end_step - start, start_step=start)
        for batch, same in zip(got, expected[start:]):
            assert_same(batch, same)
        assert len(got) == len(expected) - start
    assert len({id(worker) for worker in workers}) == 2
