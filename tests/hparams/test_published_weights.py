"""Tests that ``--weights=best`` names the weights with the highest published accuracy."""

import pytest

from hparams.errors import UserError
from hparams.models import MODELS
from hparams.published_weights import PUBLISHED_WEIGHTS, best_weights, published_weights, why_best
from hparams.weights import NAMES, RELEASES, name_and_weights


def test_rows_are_of_releases_with_1000_classes():
    assert len({(row.model, row.weights) for row in PUBLISHED_WEIGHTS}) == len(PUBLISHED_WEIGHTS)
    for row in PUBLISHED_WEIGHTS:
        assert RELEASES[row.model, row.weights].num_classes == 1000 or row.weights not in NAMES
        assert 70 < row.top1 < 90
        assert row.source


def test_every_network_with_a_release_has_a_best_one():
    for model in {model for model, _ in RELEASES}:
        best = best_weights(model)
        assert best.top1 == max(row.top1 for row in PUBLISHED_WEIGHTS if row.model == model)
        assert best.image_size == MODELS[model].eval_size


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("efficientnetv2-s", "imagenet21k-ft1k"),
        ("EfficientNetV2B0", "imagenet"),
        ("efficientnet-b7", "jft"),
        ("efficientnet-b8", "imagenet"),
        ("efficientnet-lite4", "imagenet"),
    ],
)
def test_best_becomes_a_name(name, weights):
    assert name_and_weights(name, "best")[1] == weights


def test_why_says_what_it_was_chosen_from():
    assert why_best("efficientnet-b0") == (
        "weights=best: jft of efficientnet-b0, ImageNet top-1 78.8% at 224 px (tensorflow/tpu, "
        "models/official/efficientnet/README.md); imagenet 77.6%"
    )
    assert [row.top1 for row in published_weights("efficientnetv2-s")] == [84.9, 83.9]


def test_a_network_without_published_weights():
    with pytest.raises(UserError, match="no --weights=best for resnet50"):
        name_and_weights("resnet50", "best")
