"""The table of networks against the official code, the paper's Table 6 and the released names."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import pytest

from hparams import ConfigError
from hparams.block_strings import decode_block
from hparams.choices import NORMALISATIONS
from hparams.models import MODELS
from hparams.resolve import resolve, resolve_model

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "models.json").read_text(encoding="utf-8"))

V2_PAPER = [f"efficientnetv2-{size}" for size in ("s", "m", "l", "xl")]
V2_BASE = [f"efficientnetv2-b{size}" for size in range(4)]
V1 = [f"efficientnet-b{size}" for size in range(9)] + ["efficientnet-l2"]
LITE = [f"efficientnet-lite{size}" for size in range(5)]
RESNET = ["resnet50", "resnet152"]
FUSED = [f"efficientnet-b4-fused-1-{last}" for last in (3, 5, 7)]
EFFICIENT = V2_PAPER + V2_BASE + V1 + LITE


def test_all_names_are_there():
    assert sorted(MODELS) == sorted(EFFICIENT + RESNET + FUSED)
    assert len(MODELS) == 28


def test_golden_data_has_every_efficientnet_but_lite():
    assert set(GOLDEN) == set(EFFICIENT) - set(LITE)


@pytest.mark.parametrize("name", GOLDEN)
def test_block_strings_are_the_official_ones(name):
    blocks = [dataclasses.asdict(decode_block(text)) for text in MODELS[name].blocks]
    assert blocks == GOLDEN[name]["hparams"]["model"]["blocks_args"]


@pytest.mark.parametrize("name", GOLDEN)
def test_coefficients_are_the_official_ones(name):
    row, model = MODELS[name], GOLDEN[name]["hparams"]["model"]
    assert row.width == model["width_coefficient"]
    assert row.depth == model["depth_coefficient"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_evaluation_size_is_the_official_one(name):
    assert MODELS[name].eval_size == GOLDEN[name]["eval_isize"]


@pytest.mark.parametrize("name", V1 + V2_BASE)
def test_training_size_and_dropout_are_the_official_ones_where_the_paper_has_none(name):
    assert MODELS[name].train_size == GOLDEN[name]["train_isize"]
    assert MODELS[name].dropout == GOLDEN[name]["dropout_rate"]


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(
    "key",
    [
        "feature_size",
        "depth_divisor",
        "min_depth",
        "act_fn",
        "bn_epsilon",
        "survival_prob",
        "data_format",
        "num_classes",
    ],
)
def test_the_resolved_model_has_the_official_settings(name, key):
    assert resolve_model(name)[key] == GOLDEN[name]["hparams"]["model"][key]


# Lite release notes: width, depth, dropout, evaluation size
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficientnet-lite0", (1.0, 1.0, 0.2, 224)),
        ("efficientnet-lite1", (1.0, 1.1, 0.2, 240)),
        ("efficientnet-lite2", (1.1, 1.2, 0.3, 260)),
        ("efficientnet-lite3", (1.2, 1.4, 0.3, 280)),
        ("efficientnet-lite4", (1.4, 1.8, 0.3, 300)),
    ],
)
def test_lite_coefficients(name, expected):
    row = MODELS[name]
    assert (row.width, row.depth, row.dropout, row.eval_size) == expected


@pytest.mark.parametrize("name", LITE)
def test_lite_is_v1_without_squeeze_and_excitation(name):
    v1 = [decode_block(text) for text in MODELS["efficientnet-b0"].blocks]
    lite = [decode_block(text) for text in MODELS[name].blocks]
    assert lite == [dataclasses.replace(block, se_ratio=None) for block in v1]


@pytest.mark.parametrize("name", EFFICIENT)
def test_lites_settings_are_lites_alone(name):
    model = resolve_model(name)
    settings = (model.act_fn, model.fix_head_stem, model.round_down_limit)
    assert settings == (("relu6", True, 0.1) if name in LITE else ("silu", False, 1.0))


@pytest.mark.parametrize(
    ("names", "family", "preprocess"),
    [
        (V2_PAPER, "v2", "v2"),
        (V2_BASE, "v2", "v1"),
        (V1 + FUSED, "v1", "v1"),
        (LITE, "lite", "lite"),
        (RESNET, "resnet", "v1"),
    ],
)
def test_family_and_preprocessing(names, family, preprocess):
    pairs = {(resolve_model(name).family, resolve_model(name).preprocess) for name in names}
    assert pairs == {(family, preprocess)}


@pytest.mark.parametrize(
    ("preprocess", "black", "white"),
    [
        ("v1", (-2.1179039, -2.0357143, -1.8044444), (2.2489083, 2.4285714, 2.64)),
        ("v2", (-1.0,) * 3, (0.9921875,) * 3),
        ("lite", (-0.9921875,) * 3, (1.0,) * 3),
    ],
)
def test_normalisation_of_black_and_white(preprocess, black, white):
    row = NORMALISATIONS[preprocess]
    for pixel, expected in ((0.0, black), (255.0, white)):
        channels = [(pixel - m) / d for m, d in zip(row.mean, row.deviation)]
        assert channels == pytest.approx(expected, abs=1e-6)


# Paper, Table 6: first and last stage. XL has no row there and uses L's.
TABLE_6 = {
    "efficientnetv2-s": ((128, 300), (5, 15), 0.0, (0.1, 0.3)),
    "efficientnetv2-m": ((128, 380), (5, 20), 0.2, (0.1, 0.4)),
    "efficientnetv2-l": ((128, 380), (5, 25), 0.5, (0.1, 0.5)),
    "efficientnetv2-xl": ((128, 380), (5, 25), 0.5, (0.1, 0.5)),
}


@pytest.mark.parametrize(("name", "expected"), TABLE_6.items())
def test_progressive_learning_is_table_6(name, expected):
    config = resolve(name, "imagenet2012")
    sizes, magnitudes, mixup_alpha, dropout = expected
    assert (config.data.ibase, config.train.isize) == sizes
    assert (config.data.ram_base, config.data.ram) == magnitudes
    assert config.data.mixup_alpha == mixup_alpha
    assert (config.model.dropout_base, config.model.dropout_rate) == dropout


@pytest.mark.parametrize("name", TABLE_6)
def test_table_6_trains_in_four_stages_with_randaugment_and_without_cutmix(name):
    config = resolve(name, "imagenet2012")
    assert (config.train.stages, config.data.augname) == (4, "randaug")
    assert config.data.cutmix_alpha == 0.0


@pytest.mark.parametrize(
    ("name", "sizes", "dropout"),
    [
        ("efficientnetv2-b0", (128, 192), (0.1, 0.2)),
        ("efficientnetv2-b1", (128, 192), (0.1, 0.2)),
        ("efficientnetv2-b2", (128, 208), (0.15, 0.3)),
        ("efficientnetv2-b3", (128, 240), (0.15, 0.3)),
    ],
)
def test_v2_base_models_grow_from_128(name, sizes, dropout):
    config = resolve(name, "imagenet2012")
    assert (config.data.ibase, config.train.isize) == sizes
    assert (config.model.dropout_base, config.model.dropout_rate) == dropout
    assert (config.train.stages, config.data.augname) == (4, "autoaug")


@pytest.mark.parametrize("name", V1 + LITE)
def test_v1_and_lite_train_at_one_size(name):
    config = resolve(name, "imagenet2012")
    assert config.train.stages == 1
    assert config.train.isize == MODELS[name].train_size


@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith("efficientnet-")])
def test_one_setting_turns_progressive_learning_on_for_v1_and_lite(name):
    config = resolve(name, "imagenet2012", "train.stages=4")
    assert (config.data.ibase, config.train.isize) == (128, MODELS[name].train_size)
    assert config.model.dropout_base == config.model.dropout_rate / 2
    assert (config.data.ram_base, config.data.ram) == (5, 10)


def test_the_first_size_does_not_matter_where_there_is_one_stage():
    assert resolve("efficientnet-b0", "imagenet2012", "train.isize=96").data.ibase == 128


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_published_numbers_and_their_source(name):
    published = MODELS[name].published
    assert published.params_m > 0
    assert published.flops_b > 0
    assert 70 < published.top1 < 95
    assert len(published.source) > 10


@pytest.mark.parametrize("name", GOLDEN)
def test_published_parameters_are_those_counted_to_three_percent(name):
    counted = GOLDEN[name]["include_top"]["params_total"] / 1e6
    assert MODELS[name].published.params_m == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(
    "overrides",
    [
        "num_classes=37,act_fn=gelu",
        "model.num_classes=37,act_fn=gelu",
        {"num_classes": 37, "act_fn": "gelu"},
        {"model": {"num_classes": 37}, "act_fn": "gelu"},
    ],
)
def test_resolve_model_takes_keys_without_their_section(overrides):
    model = resolve_model("EfficientNetV2-B0", overrides)
    assert (model.num_classes, model.act_fn) == (37, "gelu")
    assert model.model_name == "efficientnetv2-b0"


def test_resolve_model_knows_no_data_set():
    model = resolve_model("efficientnetv2-s")
    assert (model.num_classes, model.bn_momentum, model.dropout_rate) == (1000, 0.99, 0.3)
    with pytest.raises(AttributeError, match="FrozenConfigDict is immutable"):
        model.num_classes = 10


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("efficientnet-b9", None, "unknown model 'efficientnet-b9'; did you mean "),
        ("efficientnetv2-s", "num_clases=3", "unknown key 'num_clases'; did you mean 'model.num_"),
        ("efficientnetv2-s", "epochs=3", "unknown key 'epochs'; did you mean 'train.epochs'?"),
        ("efficientnetv2-s", "num_classes=0", "model.num_classes must be at least 1, got 0"),
        ("efficientnetv2-s", "blocks_args=[]", "model.blocks_args must hold at least one block"),
        ("efficientnetv2-s", "train.epochs=3", "'train.epochs' is not a model key"),
        ("efficientnetv2-s", "family=resnet", "model.family=resnet is only for resnet50"),
        (
            "efficientnetv2-s",
            "model_name=efficientnetv2-m",
            "model.model_name is efficientnetv2-s, chosen by --model_name; it cannot be overridden "
            "with 'efficientnetv2-m'",
        ),
    ],
)
def test_resolve_model_refuses(name, overrides, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        resolve_model(name, overrides)


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("import hparams, hparams.models as m; print(len(m.MODELS))", "28"),
        ("from efficientnetv2 import list_models; print(list_models()[-1])", FUSED[-1]),
    ],
)
def test_tensorflow_is_not_imported(statement, answer):
    code = f"import sys; {statement}; print('tensorflow' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == [answer, "False"]
