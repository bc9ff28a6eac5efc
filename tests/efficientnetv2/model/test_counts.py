"""Tests parameters and multiply-adds of every model against official and published counts."""

import json
import math

import pytest

from efficientnetv2 import get_model, list_models
from efficientnetv2.model.complexity import multiply_adds
from hparams.models import MODELS

pytestmark = pytest.mark.usefixtures("without_weights")

LITE_TRAINABLE = {  # EfficientNet-Lite release notes; timm counts the same
    "efficientnet-lite0": 4_652_008,
    "efficientnet-lite1": 5_416_680,
    "efficientnet-lite2": 6_092_072,
    "efficientnet-lite3": 8_197_096,
    "efficientnet-lite4": 13_006_568,
}
LARGE = (  # slow to build
    *(f"efficientnet-{name}" for name in ("b6", "b7", "b8", "l2")),
    *(f"efficientnetv2-{name}" for name in ("m", "l", "xl")),
)
RESNETS = {  # keras.applications: parameters; multiply-adds in billions at 224 pixels
    "resnet50": (25_636_712, 3.858),
    "resnet152": (60_419_944, 11.282),
}
FUSED = {name for name in list_models() if "fused" in name}  # tests/hparams/test_fused_b4.py
GOLDEN_NAMES = [n for n in list_models() if n not in {*LITE_TRAINABLE, *RESNETS, *FUSED}]


def trainable(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


@pytest.fixture(scope="module")
def official(golden):
    return json.loads((golden / "models.json").read_text())


def test_every_golden_model_is_registered(official):
    assert set(official) == set(GOLDEN_NAMES)


def parametrize_models():
    marks = dict.fromkeys(LARGE, pytest.mark.slow)
    return [pytest.param(name, marks=marks.get(name, ())) for name in GOLDEN_NAMES]


@pytest.mark.parametrize("name", parametrize_models())
def test_official_counts(name, official):
    entry = official[name]
    size = entry["eval_isize"]
    model = get_model(name, input_shape=(size, size, 3))
    assert model.count_params() == entry["include_top"]["params_total"]
    assert trainable(model) == entry["include_top"]["params_trainable"]
    assert multiply_adds(model) == entry["include_top"]["macs_conv_dense"]
    classifier = model.get_layer("predictions").count_params()
    assert model.count_params() - classifier == entry["no_top"]["params_total"]


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnetv2-s", "efficientnet-b2"])
def test_counts_without_top(name, official):
    size = official[name]["eval_isize"]
    model = get_model(name, include_top=False, pooling="avg", input_shape=(size, size, 3))
    assert model.count_params() == official[name]["no_top"]["params_total"]
    assert multiply_adds(model) == official[name]["no_top"]["macs_conv_dense"]
    assert model.output_shape[1:] == tuple(official[name]["no_top"]["output_shape"][1:])


@pytest.mark.parametrize(("name", "count"), LITE_TRAINABLE.items())
def test_lite_counts(name, count):
    assert trainable(get_model(name)) == count


@pytest.mark.parametrize(("name", "counts"), RESNETS.items())
def test_resnet_counts(name, counts):
    model = get_model(name, input_shape=(224, 224, 3))
    published = MODELS[name].published
    assert model.count_params() == counts[0]
    assert published.params_m == pytest.approx(counts[0] / 1e6, abs=0.05)
    assert multiply_adds(model) / 1e9 == pytest.approx(counts[1], abs=0.001)
    assert published.flops_b == pytest.approx(counts[1], abs=0.05)
    # By hand, the stem has 112 x 112 positions of 7 x 7 x 3 x 64.
    stem = model.get_layer("conv1_conv")
    assert math.prod(stem.output.shape[1:3]) * math.prod(stem.kernel.shape) == 118_013_952


def test_b3_of_the_released_v1_weights_needs_the_rounding_limit():
    # Stage 1 has 24 channels in the released weights, 16 in the EfficientNetV2 code.
    released = get_model("efficientnet-b3", overrides={"round_down_limit": 0.1})
    assert released.count_params() == 12_320_528


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnet-lite0"])
def test_multiply_adds_needs_a_fixed_size(name):
    with pytest.raises(ValueError, match="fixed input size"):
        multiply_adds(get_model(name))


def test_multiply_adds_by_hand():
    # 8x8 image, stem stride 2: 4x4 positions. Stem 3x3x3x8, block 3x3x8x8, head 8x16, top 16x10.
    overrides = {"blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "feature_size": 16}
    model = get_model(
        "efficientnetv2-s", num_classes=10, input_shape=(8, 8, 3), overrides=overrides
    )
    assert multiply_adds(model) == 16 * (27 * 8 + 72 * 8 + 8 * 16) + 160
