"""Evaluation sees every image of a split exactly once, in order."""

import numpy as np
import pytest

from efficientnetv2.data.eval_input import EvaluationInput, evaluation_image
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
