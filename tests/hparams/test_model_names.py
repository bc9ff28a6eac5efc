"""Tests that networks are known by the names that Keras, timm and torchvision give them."""

import pytest

from hparams import resolve
from hparams.errors import UserError
from hparams.model_names import split_weights
from hparams.models import MODELS


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("EfficientNetV2S", "efficientnetv2-s"),
        ("EfficientNetV2B0", "efficientnetv2-b0"),
        ("efficientnetv2_xl", "efficientnetv2-xl"),
        ("efficientnetv2l", "efficientnetv2-l"),
        ("tf_efficientnetv2_b3", "efficientnetv2-b3"),
        ("timm/tf_efficientnetv2_m", "efficientnetv2-m"),
        ("efficientnet_v2_s", "efficientnetv2-s"),
        ("Efficientnet-V2 M", "efficientnetv2-m"),
        ("V2-S", "efficientnetv2-s"),
        ("EfficientNetB0", "efficientnet-b0"),
        ("efficientnet_b7", "efficientnet-b7"),
        ("tf_efficientnet_l2", "efficientnet-l2"),
        ("efficientnet_lite0", "efficientnet-lite0"),
        ("tf_efficientnet_lite4", "efficientnet-lite4"),
        ("Lite2", "efficientnet-lite2"),
        ("ResNet50", "resnet50"),
        ("efficientnet-b4-fused-1-3", "efficientnet-b4-fused-1-3"),
    ],
)
def test_a_name_in_another_spelling(name, ours):
    assert MODELS.canonical(name) == ours
    assert name in MODELS
    assert resolve(name, "digits").model.model_name == ours
    assert split_weights(name) == (ours, None)


def test_every_name_is_spelled_as_it_is_registered():
    for name in MODELS:
        assert MODELS.canonical(name) == name
        assert split_weights(name) == (name, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnetv2_rw_s", "did you mean 'efficientnetv2-s'"),  # another network of timm
        ("efficientnet_es", "did you mean"),
        ("b0", "unknown model 'b0'"),  # of V1 or V2?
        ("efficientnetv2", "unknown model 'efficientnetv2'; did you mean"),
        ("", "unknown model ''"),
    ],
)
def test_a_name_of_another_network(name, message):
    with pytest.raises(UserError, match=message):
        MODELS.canonical(name)


@pytest.mark.parametrize(
    ("name", "ours", "weights"),
    [
        ("tf_efficientnetv2_s.in21k_ft_in1k", "efficientnetv2-s", "imagenet21k-ft1k"),
        ("tf_efficientnetv2_xl.in21k", "efficientnetv2-xl", "imagenet21k"),
        ("tf_efficientnetv2_b0.in1k", "efficientnetv2-b0", "imagenet"),
        ("tf_efficientnetv2_m_in21ft1k", "efficientnetv2-m", "imagenet21k-ft1k"),
        ("tf_efficientnet_b5.ap_in1k", "efficientnet-b5", "imagenet"),
        ("tf_efficientnet_b7_ns", "efficientnet-b7", "jft"),
        ("tf_efficientnet_l2.ns_jft_in1k", "efficientnet-l2", "jft"),
    ],
)
def test_weights_behind_the_name(name, ours, weights):
    assert split_weights(name) == (ours, weights)
    with pytest.raises(UserError, match="unknown model"):  # nobody drops the weights in silence
        MODELS.canonical(name)


@pytest.mark.parametrize("name", ["tf_efficientnet_b0.ra_in1k", "tf_efficientnetv2_s.ns_jft_in1k"])
def test_weights_that_were_not_released(name):
    with pytest.raises(UserError, match=r"names weights '.*', which are no release"):
        split_weights(name)
