"""Weights of images and classes on their way from the table to the training batch."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.open_data import open_data
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.train.progressive import build_settings, build_stages, phases_of
from hparams import resolve

NUM_IMAGES = 40
WEIGHTS = {"cat": 1.0, "dog": 3.0}  # one of each class, so that a mixture can be taken apart
COUNTS = {"cat": 28, "dog": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = ["path,label,weight,split"]
    for number in range(NUM_IMAGES):
        pixels = tf.constant(rng.integers(0, 256, (12, 12, 3), np.uint8))
        (folder / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
        name = "dog" if number % 10 < 3 else "cat"
        split = "test" if number >= 36 else "train"
        lines.append(f"{number}.png,{name},{WEIGHTS[name]},{split}")
    (folder / "weights.csv").write_text("\n".join(lines))
    (folder / "plain.csv").write_text(
        "\n".join(",".join(line.split(",")[:2] + line.split(",")[3:]) for line in lines)
    )
    return folder


def batches_of(table, **settings):
    settings = {
        "data.data_dir": str(table),
        "train.preset": "none",
        "train.batch_size": 8,
        "train.epochs": 2,
        "train.stages": 1,
        "train.isize": 16,
        **settings,
    }
    config, source = open_data(resolve("efficientnetv2-b0", "folder", settings), None)
    plan = build_stages(config, num_images=source.num_images("train"))
    training_input = build_training_input(
        config, source, phases=phases_of(plan), settings=build_settings(config, plan)
    )
    return [tuple(map(np.array, batch)) for batch in training_input.batches().take(8)], source


def test_each_image_has_its_weight_and_the_mean_is_1(folder):
    batches, source = batches_of(folder / "weights.csv")
    plain, _ = batches_of(folder / "plain.csv")
    counts = np.array(source.class_counts())
    mean = (counts * [1, 3]).sum() / counts.sum()
    for (images, targets, weights), (plain_images, plain_targets) in zip(batches, plain):
        np.testing.assert_array_equal(images, plain_images)
        np.testing.assert_allclose(targets, plain_targets, rtol=1e-6)
        np.testing.assert_allclose(weights, (targets @ [1, 3]) / mean, rtol=1e-6)


@pytest.mark.parametrize("alphas", [(0.5, 0.0), (0.0, 1.0), (0.5, 1.0)])
def test_a_mixture_has_the_loss_of_its_two_images(folder, alphas):
    mixing = {
        "data.mixup_alpha": alphas[0],
        "data.mixup_base": alphas[0],
        "data.cutmix_alpha": alphas[1],
        "data.cutmix_base": alphas[1],
    }
    batches, source = batches_of(folder / "weights.csv", **mixing)
    plain, _ = batches_of(folder / "plain.csv", **mixing)
    counts = np.array(source.class_counts())
    by_class = np.array([1, 3]) * counts.sum() / (counts * [1, 3]).sum()
    for (images, targets, weights), (plain_images, plain_targets) in zip(batches, plain):
        np.testing.assert_array_equal(images, plain_images)
        # Each class counts as much as in the plain mixture, times the weight of its images.
        np.testing.assert_allclose(
            weights[:, np.newaxis] * targets, plain_targets * by_class, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    assert any(((targets > 0.01) & (targets < 0.99)).any() for _, targets, _ in batches)


def test_balanced_class_weights_are_multiplied_with_those_of_the_images(folder):
    balanced = {"train.class_weights": "balanced"}
    both, source = batches_of(folder / "weights.csv", **balanced)
    of_classes, _ = batches_of(folder / "plain.csv", **balanced)
    of_images, _ = batches_of(folder / "weights.csv")
    counts = np.array(source.class_counts())
    for (_, targets, weights), (_, _, classes), (_, _, images) in zip(both, of_classes, of_images):
        np.testing.assert_allclose(classes, targets @ (counts.sum() / 2 / counts), rtol=1e-6)
        np.testing.assert_allclose(weights, classes * images, rtol=1e-6)


@pytest.mark.parametrize("sampling", ["sqrt", "balanced"])
def test_an_epoch_draws_each_class_as_often_as_wanted(folder, sampling):
    batches, source = batches_of(folder / "plain.csv", **{"data.sampling": sampling})
    counts = np.array(source.class_counts(), np.float64)
    wanted = counts**0.5 if sampling == "sqrt" else np.ones(2)
    targets = np.concatenate([targets for _, targets in batches])
    shares = targets.sum(0) / len(targets)
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.06)


def test_of_an_image_with_weight_0_the_class_is_still_known(folder):
    """Otherwise the training's accuracy would count each of them as wrong."""
    batches, _ = batches_of(folder / "plain.csv", **{"train.class_weights": [0.0, 1.0]})
    for _, targets, weights in batches:
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        assert weights[targets[:, 0] == 1].max(initial=0) < 1e-20
        assert (weights[targets[:, 1] == 1] > 0.5).all()
