"""The table of keys: defaults, limits, and a non-default value for each."""

import json
import pathlib
import re

import pytest

from hparams import ConfigError, load_config, resolve, save_config
from hparams.keys import KEYS, default_config
from hparams.overrides import checked

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "models.json").read_text(encoding="utf-8"))

# The first two are arguments of resolve, and a network cannot have the default of no blocks.
NOT_GIVEN_AS_DEFAULT = ("model.model_name", "data.ds_name", "model.blocks_args")

# Every key but the two names, each with a value that differs from default, model and data set.
NON_DEFAULT = {
    "model.family": "lite",
    "model.preprocess": "lite",
    "model.blocks_args": ["r1_k3_s1_e1_i16_o24_c1", "r2_k5_s2_e3_i24_o40_se0.125"],
    "model.width_coefficient": 1.3,
    "model.depth_coefficient": 1.7,
    "model.depth_divisor": 4,
    "model.min_depth": 12,
    "model.round_down_limit": 0.25,
    "model.fix_head_stem": True,
    "model.feature_size": 640,
    "model.act_fn": "gelu",
    "model.bn_momentum": 0.95,
    "model.bn_epsilon": 2e-5,
    "model.padding": "torch",
    "model.bn_type": "sync",
    "model.bn_mode": "frozen",
    "model.survival_prob": 0.7,
    "model.dropout_rate": 0.45,
    "model.dropout_base": 0.15,
    "model.num_classes": 37,
    "model.data_format": "channels_first",
    "model.channels": 1,
    "model.pixel_mean": [100.5],
    "model.pixel_deviation": [50.5],
    "model.target_mean": [1.5, -2.0],
    "model.target_deviation": [0.5, 3.0],
    "train.preset": "fast",
    "train.recipe": "fast",
    "train.epochs": 11,
    "train.batch_size": 48,
    "train.stages": 3,
    "train.isize": 160,
    "train.size_schedule": "random",
    "train.size_steps": 0,
    "train.stage_rule": "official",
    "train.adaptive_regularisation": False,
    "train.scale_batch_with_size": True,
    "train.loss_type": "sigmoid",
    "train.optimizer": "lamb",
    "train.momentum": 0.85,
    "train.rmsprop_decay": 0.8,
    "train.lr_base": 3e-5,
    "train.lr_scales": ["stem|block1:0.1", "block2:0.5"],
    "train.lr_layer_decay": 0.75,
    "train.lr_sched": "linear",
    "train.lr_decay_factor": 0.5,
    "train.lr_decay_epoch": 1.5,
    "train.lr_warmup_epoch": 0.5,
    "train.lr_min": 1e-7,
    "train.lr_decay_in_warmup": True,
    "train.ema_decay": 0.5,
    "train.ft_init_ckpt": "random",
    "train.weight_decay": 4e-5,
    "train.label_smoothing": 0.05,
    "train.class_weights": ["balanced"],
    "train.class_counts": [5, 7],
    "train.focal_gamma": 2.5,
    "train.logit_adjustment": 1.5,
    "train.best_metric": "top1",
    "train.min_precision": 0.9,
    "train.known_share": 0.9,
    "train.weight_decay_inc": 0.5,
    "train.weight_decay_vars": "gamma$",
    "train.varsexp": "predictions|top_",
    "train.min_steps": 1000,
    "train.accumulate": 4,
    "train.quantise": "int8",
    "train.teacher": "runs/big",
    "train.teacher_model": "efficientnetv2-l",
    "train.distill_temperature": 2.5,
    "train.distill_weight": 0.4,
    "train.gclip": 2.5,
    "train.gclip_per_variable": True,
    "train.precision": "bfloat16",
    "train.profile": [3, 9],
    "train.patience": 3,
    "train.seed": 2104,
    "eval.batch_size": 24,
    "eval.isize": 176,
    "eval.crop_pct": 0.9,
    "data.source": "folder",
    "data.leave_out": ["cat", "7"],
    "data.tfds_name": "null",
    "data.data_dir": "/data: 'räksmörgås', # 1e3",
    "data.multi_label": True,
    "data.path_column": "file name",
    "data.label_columns": ["cat", "dog"],
    "data.target_columns": ["age"],
    "data.split_column": "part",
    "data.group_column": "patient",
    "data.fold": "2/5",
    "data.weight_column": "importance",
    "data.sampling": "sqrt",
    "data.train_split": "train[10%:]",
    "data.minival_split": "train[:10%]",
    "data.eval_split": "1_000",
    "data.on_bad_image": "skip",
    "data.cache_mib": 0,
    "data.service": "grpc://10.0.0.2:5000",
    "data.service_streams": 3,
    "data.ibase": 96,
    "data.crop_area": [0.3, 0.9],
    "data.crop_aspect": [0.5, 2.0],
    "data.flip": False,
    "data.vertical_flip": True,
    "data.quarter_turns": True,
    "data.rotate": 12.5,
    "data.color_jitter": [0.4, 0.3, 0.2, 0.1],
    "data.resize": "letterbox",
    "data.augname": "autoaug",
    "data.augment_ops": "official",
    "data.randaug_layers": 4,
    "data.cutout": 0.25,
    "data.random_erasing": 0.1,
    "data.repeats": 3,
    "data.ram": 7.5,
    "data.ram_base": 2.5,
    "data.mixup_base": 0.3,
    "data.mixup_alpha": 0.4,
    "data.cutmix_base": 0.7,
    "data.cutmix_alpha": 0.6,
    "data.shuffle_buffer": 99,
    "search.backbone": ["r1_k3_s1_e1_i8_o8", "r2_k5_s2_e4_i8_o16"],
    "search.feature_size": 64,
    "search.operations": ["fused"],
    "search.kernels": [3, 5, 7],
    "search.expansions": [2],
    "search.layers": [0.25, 1.0],
    "search.trials": 3,
    "search.epochs": 2,
    "search.isize": 48,
    "search.w": -0.1,
    "search.v": 0.0,
    "search.space": ["train.lr_base:0.001..0.1:log", "data.flip:true|false"],
    "search.sampler": "tpe",
    "search.seed": 4,
    "search.prune": False,
    "search.prune_trials": 9,
    "search.prune_epochs": 0,
    "search.timed_steps": 7,
    "search.max_spread": 0.3,
    "search.storage": "journal:study.log",
    "search.study_name": "mine",
    "search.keep_weights": True,
    "runtime.strategy": "cpu",
    "runtime.xla": True,
    "runtime.steps_per_loop": 5,
    "runtime.worker_timeout_seconds": 9,
    "runtime.tpu": "my-tpu",
    "runtime.tpu_zone": "here",
    "runtime.gcp_project": "mine",
    "runtime.tpu_job_name": "job",
    "runtime.keep_checkpoint_max": 7,
    "runtime.save_checkpoint_epochs": 3,
}
RANDAUGMENT_KEYS = ("data.randaug_layers", "data.ram", "data.ram_base")
# Keys to leave out, because their non-default values exclude each other: size_schedule and
# scale_batch_with_size, bn_type and xla, augname and the keys of RandAugment, several labels or a
# teacher and the settings for rare classes or classes left out, grey images and a service or hues.
BALANCE_KEYS = (
    *("train.class_weights", "train.focal_gamma", "train.logit_adjustment", "data.sampling"),
)
CHANNEL_KEYS = ("model.channels", "model.pixel_mean", "model.pixel_deviation")
EXCLUSIVE = (
    (
        *("train.size_schedule", "model.bn_type", "data.augname", "eval.crop_pct"),
        "data.leave_out",
        *(*BALANCE_KEYS, *CHANNEL_KEYS),
    ),
    (
        *("train.scale_batch_with_size", "runtime.xla", *RANDAUGMENT_KEYS),
        *("data.multi_label", "train.loss_type", "train.teacher", "train.teacher_model"),
        "train.quantise",  # learns from a float run, with the teacher's losses only
        *("train.distill_temperature", "train.distill_weight", "train.min_precision"),
        *("data.service", "data.color_jitter", "data.resize"),
    ),
)


def non_default(left_out):
    return {name: value for name, value in NON_DEFAULT.items() if name not in left_out}


def spelled(default):
    """Returns a default the way a user would type it."""
    if isinstance(default, list):
        return f"[{','.join(str(item) for item in default)}]"
    return "none" if default is None else str(default)


def flat(config):
    return {
        f"{section}.{field}": list(value) if isinstance(value, tuple) else value
        for section, fields in config.to_dict().items()
        for field, value in fields.items()
    }


@pytest.mark.parametrize("name", KEYS)
def test_the_default_passes_its_own_check(name):
    assert checked(name, spelled(KEYS[name].default)) == KEYS[name].default
    assert checked(name, KEYS[name].default) == KEYS[name].default


@pytest.mark.parametrize("name", [name for name in KEYS if name not in NOT_GIVEN_AS_DEFAULT])
def test_the_default_can_be_given(name):
    default = KEYS[name].default
    config = resolve("efficientnetv2-s", "imagenet2012", f"{name}={spelled(default)}")
    section, field = name.split(".")
    assert config[section][field] == (tuple(default) if isinstance(default, list) else default)


@pytest.mark.parametrize("name", KEYS)
def test_the_default_configuration_holds_the_default(name):
    section, field = name.split(".")
    value = default_config()[section][field]
    assert value == KEYS[name].default
    assert KEYS[name].default is None or type(value) is KEYS[name].kind


def test_the_default_configuration_holds_nothing_else():
    assert set(flat(default_config())) == set(KEYS)


def test_each_default_configuration_is_fresh():
    default_config().data.crop_area.append(2.0)
    assert default_config().data.crop_area == [0.08, 1.0]


LIMITS = [
    (name, words, limit, limit + step)
    for name, key in KEYS.items()
    for words, limit, step in (
        ("at least", key.low, -1),
        ("above", key.above, 0),
        ("at most", key.high, 1),
    )
    if limit is not None
]


@pytest.mark.parametrize(("name", "words", "limit", "value"), LIMITS)
def test_values_beyond_a_limit_are_refused(name, words, limit, value):
    key = KEYS[name]
    given = [value] * (key.length or 1) if key.kind is list else value
    plain = f"{limit:g}" if isinstance(limit, float) else str(limit)
    shown = repr(float(value)) if float in (key.kind, key.item) else repr(value)
    message = f"^{re.escape(f'{name} must be {words} {plain}, got {shown}')}$"
    with pytest.raises(ConfigError, match=message):
        checked(name, given)


@pytest.mark.parametrize("left_out", EXCLUSIVE)
def test_every_key_can_be_overridden(left_out):
    plain = flat(resolve("efficientnetv2-m", "imagenet2012"))
    names = {key: plain[key] for key in ("model.model_name", "data.ds_name", *left_out)}
    expected = {**NON_DEFAULT, **names}
    assert flat(resolve("efficientnetv2-m", "imagenet2012", non_default(left_out))) == expected
    assert set(expected) == set(KEYS)
    assert not [key for key, v in NON_DEFAULT.items() if v in (plain[key], KEYS[key].default)]


@pytest.mark.parametrize("left_out", EXCLUSIVE)
def test_every_key_is_saved_and_read_back(tmp_path, left_out):
    config = resolve("efficientnetv2-m", "imagenet2012", non_default(left_out))
    save_config(config, tmp_path / "config")
    loaded = load_config(tmp_path / "config")
    assert loaded == config
    assert flat(loaded) == flat(config)


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.low is not None])
def test_the_lowest_value_is_allowed(name):
    key = KEYS[name]
    given = [key.low] * (key.length or 1) if key.kind is list else key.kind(key.low)
    assert checked(name, given) == given


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.high is not None])
def test_the_highest_value_is_allowed(name):
    key = KEYS[name]
    given = [key.high] * (key.length or 1) if key.kind is list else key.kind(key.high)
    assert checked(name, given) == given


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.choices])
def test_every_choice_is_allowed_and_no_other(name):
    choices = KEYS[name].choices
    is_list = KEYS[name].kind is list
    given = [[choice] if is_list else choice for choice in choices]
    assert [checked(name, choice) for choice in given] == given
    with pytest.raises(ConfigError, match=f"^{name} must be one of {', '.join(choices)}, got 'x'"):
        checked(name, "x")


@pytest.mark.parametrize(
    "name",
    [
        "train.epochs",
        "train.batch_size",
        "train.stages",
        "train.isize",
        "train.optimizer",
        "train.lr_base",
        "train.lr_sched",
        "train.lr_decay_factor",
        "train.lr_decay_epoch",
        "train.lr_warmup_epoch",
        "train.lr_min",
        "train.ema_decay",
        "train.weight_decay",
        "train.label_smoothing",
        "data.ibase",
        "eval.isize",
        "model.survival_prob",
        "model.bn_epsilon",
        "model.feature_size",
    ],
)
def test_defaults_are_the_official_ones_for_v2_s(name):
    section, field = name.split(".")
    assert KEYS[name].default == GOLDEN["efficientnetv2-s"]["hparams"][section][field]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.bn_momentum", 0.99),
        ("train.momentum", 0.9),
        ("train.rmsprop_decay", 0.9),
        ("train.lr_decay_in_warmup", False),
    ],
)
def test_defaults_are_the_papers_where_the_official_code_differs_or_has_no_key(name, value):
    assert KEYS[name].default == value


def test_home_is_where_the_tilde_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for key in (key for key, row in KEYS.items() if row.is_path):
        settings = {"data.data_dir": "x", key: "~/a/b"}
        assert flat(resolve("efficientnetv2-s", "folder", settings))[key] == "/home/me/a/b"
        settings[key] = "a~/b"
        assert flat(resolve("efficientnetv2-s", "folder", settings))[key] == "a~/b"
