"""Counts parameters and multiply-adds: of the official networks, and of networks as built."""

import json

import pytest

from efficientnetv2 import get_model
from efficientnetv2.model.complexity import multiply_adds
from hparams.architecture import Architecture, cost, scaled_architecture
from hparams.models import MODELS
from hparams.resolve import resolve_model

LITE_PARAMETERS = (4_694_024, 5_470_344, 6_150_168, 8_273_768, 13_118_936)  # docs/python.md
FUSED = [name for name in MODELS if "fused" in name]  # tested in test_fused_b4.py
OURS = [n for n, row in MODELS.items() if row.family in ("v1", "v2") and n not in FUSED]


@pytest.fixture(scope="module")
def official(golden):
    return json.loads((golden / "models.json").read_text())


@pytest.mark.parametrize("name", OURS)
def test_counts_are_the_official_ones(name, official):
    ours = cost(scaled_architecture(resolve_model(name)), image_size=official[name]["eval_isize"])
    assert ours.parameters == official[name]["include_top"]["params_total"]
    assert ours.multiply_adds == official[name]["include_top"]["macs_conv_dense"]


def test_lite_keeps_stem_and_head():
    for number, parameters in enumerate(LITE_PARAMETERS):
        architecture = scaled_architecture(resolve_model(f"efficientnet-lite{number}"))
        assert (architecture.stem_filters, architecture.head_filters) == (32, 1280)
        assert cost(architecture, image_size=224).parameters == parameters


ODD = {
    "blocks_args": [
        "r1_k5_s1_e1_i12_o20_se0.1",
        "r2_k3_s2_e4_i20_o28_se0.25_c1",
        "r2_k5_s2_e3_i28_o36",
        "r1_k3_s1_e1_i36_o36_c1",
    ],
    "feature_size": 52,
    "depth_divisor": 4,
    "min_depth": 4,
    "width_coefficient": 1.3,
    "depth_coefficient": 1.5,
}


@pytest.mark.parametrize(("size", "channels", "classes"), [(33, 3, 7), (47, 1, 2), (64, 4, 1)])
def test_any_network_is_counted_as_it_is_built(size, channels, classes):
    architecture = scaled_architecture(resolve_model("efficientnetv2-s", ODD))
    model = get_model(
        "efficientnetv2-s",
        overrides=ODD,
        num_classes=classes,
        input_shape=(size, size, channels),
    )
    ours = cost(architecture, image_size=size, num_classes=classes, channels=channels)
    assert (ours.parameters, ours.multiply_adds) == (model.count_params(), multiply_adds(model))


def test_a_resnet_has_no_stages_of_ours():
    assert scaled_architecture(resolve_model("resnet50")) == Architecture(0, (), 1280)
