"""Evaluation sees every image of a split exactly once, in order."""

import numpy as np
import pytest
from PIL import Image

from efficientnetv2.data.eval_input import EvaluationInput, evaluation_image
from efficientnetv2.data.sources import build_source
from hparams import resolve


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 64, 360, 500])
def test_evaluation_sees_every_image_once_in_order(batch_size, digits):
    config = resolve("efficientnetv2-s", "digits", {"eval.batch_size": batch_size})
    batches = list(EvaluationInput(config, digits, split="test").batches())
    labels = np.concatenate([targets.numpy().argmax(-1) for _, targets in batches])
    references = digits.references("test", seed=None, buffer=1)
    expected = [int(digits.load(reference)[2]) for reference in references]
    assert labels.tolist() == expected
    assert [len(images) for images, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_evaluation_images_are_those_of_inference(digits):
    config = resolve("efficientnetv2-s", "digits")
    images, _ = next(iter(EvaluationInput(config, digits, split="test").batches()))
    reference = next(iter(digits.references("test", seed=None, buffer=1)))
    encoded = digits.load(reference)[1]
    np.testing.assert_array_equal(images[0], evaluation_image(config, encoded))


def test_some_images_by_their_numbers(digits):
    config = resolve("efficientnetv2-s", "digits", {"eval.batch_size": 50})
    images = EvaluationInput(config, digits, split="test")
    whole = np.concatenate([batch.numpy() for batch, _ in images.batches()])
    np.testing.assert_array_equal(images.pick([300, 7, 0]), whole[[300, 7, 0]])


@pytest.fixture
def photos(tmp_path):
    """A folder of six images for evaluation, each of another grey."""
    for number in range(6):
        for split in ("train", "val", "test"):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 20), 40 * number).save(path)
    return tmp_path


def open_photos(folder, **overrides):
    settings = {"data.data_dir": str(folder), "eval.isize": 16, "eval.batch_size": 4, **overrides}
    config = resolve("efficientnetv2-b0", "folder", {"model.num_classes": 2, **settings})
    return EvaluationInput(config, build_source(config), split="test")


def read(images):
    return [[values.numpy() for values in batch] for batch in images.padded()]


def test_images_that_fit_are_decoded_once(photos):
    images = open_photos(photos, **{"data.cache_mib": 1})
    first, some = read(images), images.pick([5, 0, 2])
    for path in photos.glob("test/*/*.png"):
        path.unlink()
    for before, after in zip(first, read(images), strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(images.pick([5, 0, 2]), some)
    real = np.concatenate([pixels[is_real] for pixels, _, is_real in first])
    np.testing.assert_array_equal(some, real[[5, 0, 2]])


def test_images_that_do_not_fit_are_decoded_again(photos):
    images = open_photos(photos, **{"data.cache_mib": 0})
    first, some = read(images), images.pick([5, 0, 2])
    real = np.concatenate([pixels[is_real] for pixels, _, is_real in first])
    np.testing.assert_array_equal(some, real[[5, 0, 2]])
    for path in photos.glob("test/*/*.png"):
        Image.new("L", (20, 20), 255).save(path)
    assert (read(images)[0][0][0] > first[0][0][0]).all()
