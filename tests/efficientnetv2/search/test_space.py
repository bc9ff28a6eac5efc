"""Tests the choices of the search space, and that every point of it builds."""

import random

import pytest

from efficientnetv2.search.space import (
    architecture_text,
    build_space,
    parameters,
)
from hparams import resolve
from hparams.architecture import cost, scaled_architecture
from hparams.block_strings import FUSED_MBCONV, encode_block
from hparams.resolve import resolve_model, with_overrides

SMALL = {"search.backbone": ["r2_k3_s1_e1_i8_o12_se0.25", "r3_k5_s2_e6_i12_o20"]}


def space_of(**overrides):
    return build_space(resolve("efficientnetv2-s", "digits", {**SMALL, **overrides}))


def test_a_choice_a_stage():
    space = space_of(**{"search.feature_size": 48})
    assert space.choices["stage1.operation"] == ("mbconv", "fused")
    assert space.choices["stage1.kernel"] == (3, 5)
    assert space.choices["stage1.expansion"] == (1, 4, 6)
    assert space.choices["stage1.layers"] == (1, 2, 3, 4)  # of 2
    assert space.choices["stage2.layers"] == (2, 3, 5, 6)  # of 3: 1.5 and 4.5 round up
    assert space.size == (2 * 2 * 3 * 4) ** 2
    assert space.backbone.head_filters == 48


def test_multiples_that_give_the_same_count_once():
    space = space_of(**{"search.layers": [0.1, 0.5, 1.0]})
    assert space.choices["stage1.layers"] == (1, 2)
    assert space.size == 12 * 2 * 12 * 2 + 12 * 12 * 2  # stage2 has 1, 2 and 3


def test_a_point_in_blocks():
    point = {
        "stage1.operation": "fused",
        "stage1.kernel": 5,
        "stage1.expansion": 4,
        "stage1.layers": 1,
        "stage2.operation": "mbconv",
        "stage2.kernel": 3,
        "stage2.expansion": 6,
        "stage2.layers": 5,
    }
    space = space_of()
    blocks = ["r1_k5_s1_e4_i8_o12_c1", "r5_k3_s2_e6_i12_o20_se0.25"]
    assert space.overrides(point)["model.blocks_args"] == blocks
    assert space.text(point) == "F5e4r1 M3e6r5"
    with pytest.raises(KeyError, match=r"stage2\.layers"):
        space.architecture({k: v for k, v in point.items() if k != "stage2.layers"})


def test_the_default_is_around_b4():
    space = build_space(resolve("efficientnetv2-s", "imagenet2012"))
    b4 = scaled_architecture(resolve_model("efficientnet-b4"))
    assert space.backbone == b4
    assert [len(space.choices[f"stage{n}.layers"]) for n in range(1, 8)] == [4] * 7
    assert space.size == 48**7
    expected = "M3e1r2 M3e6r4 M5e6r4 M3e6r6 M5e6r6 M5e6r8 M3e6r2"
    assert architecture_text(space.backbone) == expected


@pytest.mark.parametrize("name", ["efficientnet-b4", "efficientnetv2-b3", "efficientnet-lite3"])
def test_the_backbone_itself_is_unchanged_by_the_way_through_a_configuration(name):
    config = resolve("efficientnetv2-s", "imagenet2012", {"search.backbone": [name]})
    space = build_space(config)
    again = with_overrides(config, space.backbone.overrides())
    assert scaled_architecture(again.model) == space.backbone
    assert space.backbone == scaled_architecture(resolve_model(name))


@pytest.mark.parametrize("backbone", ["efficientnet-b4", "own"])
def test_200_points_build_and_cost_something(backbone, seed):
    settings = {} if backbone == "own" else {"search.backbone": [backbone]}
    config = resolve("efficientnetv2-s", "digits", {**SMALL, **settings})
    space, generator = build_space(config), random.Random(seed)
    points = [space.draw(generator) for _ in range(200)]
    assert len({tuple(point.values()) for point in points}) > 120
    for point in points:
        architecture = scaled_architecture(with_overrides(config, space.overrides(point)).model)
        assert architecture == space.architecture(point)
        costs = cost(architecture, image_size=32, num_classes=10)
        assert costs.parameters > 0 and costs.multiply_adds > 0
        for stage, start in zip(architecture.stages, space.backbone.stages):
            assert (stage.strides, stage.output_filters) == (start.strides, start.output_filters)
            assert stage.se_ratio == (None if stage.conv_type == FUSED_MBCONV else 0.25)


@pytest.mark.slow
def test_points_are_built_by_keras_as_they_are_counted(seed):
    from efficientnetv2 import get_model

    space, generator = space_of(**{"search.feature_size": 16}), random.Random(seed)
    for _ in range(4):
        point = space.draw(generator)
        model = get_model("efficientnetv2-b0", overrides=space.overrides(point), num_classes=10)
        assert model.count_params() == parameters(space.architecture(point), num_classes=10)
        assert model.output_shape == (None, 10)


@pytest.mark.slow
def test_200_points_are_built_by_keras(seed):
    from tensorflow import keras

    from efficientnetv2 import get_model

    # One stage after a fixed count of layers: parameters add up over the stages.
    space = space_of(**{"search.backbone": ["r1_k3_s2_e4_i4_o8"], "search.feature_size": 8})
    generator = random.Random(seed)
    counts = {}
    for _ in range(200):
        point = space.draw(generator)
        architecture = space.architecture(point)
        if architecture not in counts:
            overrides = space.overrides(point)
            with keras.StatelessScope(initialize_variables=False):  # they are only counted
                model = get_model("efficientnetv2-b0", overrides=overrides, num_classes=10)
            counts[architecture] = model.count_params()
            keras.backend.clear_session(free_memory=False)
        assert counts[architecture] == parameters(architecture, num_classes=10)
    assert len(counts) == space.size  # every network of the space was drawn


def test_blocks_of_an_own_backbone_stay_as_they_are_written():
    space = space_of()
    assert [encode_block(stage) for stage in space.backbone.stages] == SMALL["search.backbone"]
    assert space.backbone.stem_filters == 8
