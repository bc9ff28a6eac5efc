"""The fused networks of the paper's Table 3: their eight published counts, and their layers."""

import math

import pytest

from efficientnetv2 import get_model, list_models
from hparams import resolve
from hparams.architecture import cost, scaled_architecture
from hparams.block_strings import decode_block
from hparams.models import MODELS
from hparams.resolve import resolve_model

# last fused stage -> published million parameters, billion FLOPs (arXiv 2104.00298, Table 3)
TABLE_3 = {0: (19.3, 4.5), 3: (20.0, 7.5), 5: (43.4, 21.3), 7: (132.0, 34.4)}
TRAINABLE = {0: 19_341_616, 3: 19_990_168, 5: 43_201_192, 7: 131_794_672}  # as Keras counts


def name(last):
    return f"efficientnet-b4-fused-1-{last}" if last else "efficientnet-b4"


class Count:
    """Counts trainable parameters, and half of all operations per image (elementwise ones, too)."""

    def __init__(self, architecture, image_size):
        self.parameters = self.operations = 0
        side = math.ceil(image_size / 2)
        self.conv(27, architecture.stem_filters, side, active=True)
        for stage in architecture.stages:
            for repeat in range(stage.num_repeat):
                filters = stage.output_filters if repeat else stage.input_filters
                strides = 1 if repeat else stage.strides
                after = math.ceil(side / strides)
                self.block(stage, filters, side, after)
                if strides == 1 and filters == stage.output_filters:
                    self.operations += 0.5 * filters * side**2  # the sum
                side = after
        head = architecture.head_filters
        self.conv(architecture.stages[-1].output_filters, head, side, active=True)
        self.operations += 0.5 * head * side**2 + 1000 * head  # mean, classifier
        self.parameters += 1000 * head + 1000

    def conv(self, weights, filters, side, *, active):
        """Takes ``weights`` per filter; BatchNorm is a multiply-add, SiLU's product half of one."""
        self.parameters += (weights + 2) * filters
        self.operations += (weights + 1 + 0.5 * active) * filters * side**2

    def block(self, stage, filters, side, after):
        inner, area = filters * stage.expand_ratio, stage.kernel_size**2
        if stage.conv_type and stage.expand_ratio > 1:
            self.conv(area * filters, inner, after, active=True)
        elif not stage.conv_type:
            if stage.expand_ratio > 1:
                self.conv(filters, inner, side, active=True)
            self.conv(area, inner, after, active=True)
        if stage.se_ratio:
            squeezed = int(filters * stage.se_ratio)
            self.parameters += 2 * inner * squeezed + inner + squeezed
            self.operations += 2 * inner * squeezed + inner * after**2  # its mean and product
        plain = bool(stage.conv_type) and stage.expand_ratio == 1
        self.conv(inner * (area if plain else 1), stage.output_filters, after, active=plain)


@pytest.fixture(scope="module", params=TABLE_3)
def counted(request):
    architecture = scaled_architecture(resolve_model(name(request.param)))
    return request.param, Count(architecture, 384), cost(architecture, image_size=380)


def test_trainable_parameters(counted):
    last, count, all_variables = counted
    assert count.parameters == TRAINABLE[last]
    # The difference is BatchNorm's moving means and variances.
    assert 0 < all_variables.parameters - count.parameters < 130_000


def test_none_and_1_to_3_have_the_published_counts_to_the_rounding(counted):
    last, count, _ = counted
    if last <= 3:
        published = (f"{count.parameters / 1e6:.1f}", f"{count.operations / 1e9:.1f}")
        assert published == tuple(f"{number:.1f}" for number in TABLE_3[last])


def test_the_others_are_half_a_percent_of_parameters_and_2_5_of_operations_short(counted):
    last, count, _ = counted
    parameters, operations = TABLE_3[last]
    assert 0.9945 * parameters < count.parameters / 1e6 < parameters + 0.05
    assert 0.975 * operations < count.operations / 1e9 < operations + 0.05


def test_stages_6_and_7_have_the_published_difference():
    five, seven = (
        Count(scaled_architecture(resolve_model(name(last))), 384).__dict__ for last in (5, 7)
    )
    assert (seven["parameters"] - five["parameters"]) / 1e6 == pytest.approx(88.6, abs=0.05)
    assert (seven["operations"] - five["operations"]) / 1e9 == pytest.approx(13.1, abs=0.1)


# As printed in docs/recipes.md
MULTIPLY_ADDS = {0: 4_393_771_024, 3: 7_340_966_944, 5: 20_688_564_256, 7: 33_737_984_032}


def test_multiply_adds_at_380_px(counted):
    last, _, all_variables = counted
    assert all_variables.multiply_adds == MULTIPLY_ADDS[last]


def test_they_are_listed_and_trained_as_b4():
    plain = resolve("efficientnet-b4", "imagenet2012")
    for last in (3, 5, 7):
        assert name(last) in list_models()
        config = resolve(name(last), "imagenet2012")
        assert (config.train, config.data, config.eval) == (plain.train, plain.data, plain.eval)
        assert (MODELS[name(last)].published.params_m, MODELS[name(last)].published.flops_b) == (
            TABLE_3[last]
        )


def test_what_is_fused():
    for last in (3, 5, 7):
        row = [decode_block(text) for text in MODELS[name(last)].blocks]
        assert [block.conv_type for block in row] == [1] * last + [0] * (7 - last)
    assert [block.kernel_size for block in row] == [3, 3, 3, 3, 5, 5, 3]
    assert [block.se_ratio for block in row] == [0.25] * 5 + [None] * 2


@pytest.mark.parametrize("last", [5, 7])
def test_they_build_as_they_are_counted(last):
    small = {"width_coefficient": 0.25, "depth_coefficient": 0.3, "feature_size": 32}
    model = get_model(name(last), overrides=small, input_shape=(64, 64, 3), num_classes=3)
    architecture = scaled_architecture(resolve_model(name(last), small))
    expected = cost(architecture, image_size=64, num_classes=3)
    assert model.count_params() == expected.parameters
    depthwise = [layer.name for layer in model.layers if "dwconv" in layer.name]
    assert depthwise == (
        [] if last == 7 else ["block6a_dwconv", "block6b_dwconv", "block7a_dwconv"]
    )
    assert model.get_layer("block1a_project_conv").kernel_size == (3, 3)
    assert model.get_layer("block5a_expand_conv").kernel_size == (5, 5)
