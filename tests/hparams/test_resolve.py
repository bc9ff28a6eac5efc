"""Model, data set and overrides into one configuration: precedence, refusals, files."""

import re

import pytest
import yaml

from hparams import ConfigError, UserError, load_config, resolve, save_config
from hparams.datasets import DATASETS
from hparams.models import MODELS
from hparams.resolve import require_trainable


@pytest.fixture
def unusual():
    """Few keys, each with a value that is no default; test_base.py has all keys."""
    text = "train.epochs=11,train.lr_base=3e-5,data.crop_area=0.3|0.9,model.dropout_base=none"
    return resolve("efficientnetv2-m", "digits", text, "train.optimizer=lamb,data.flip=true")


def flat(config):
    return {
        f"{section}.{field}": list(value) if isinstance(value, tuple) else value
        for section, fields in config.to_dict().items()
        for field, value in fields.items()
    }


def exactly(message):
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize(
    ("dataset_cfg", "overrides", "key", "value"),
    [
        ("imagenet2012", (), "train.momentum", 0.9),  # base alone
        ("imagenet2012", (), "eval.isize", 480),  # base 384 < model
        ("digits", (), "eval.isize", 32),  # model 480 < data set
        ("digits", (), "data.mixup_alpha", 0.0),  # model 0.2 < data set
        (
            "digits",
            (),
            "train.epochs",
            DATASETS["digits"].recipe["train.epochs"],
        ),  # base 350 < data set
        ("digits", ("eval.isize=48",), "eval.isize", 48),
        ("digits", ("eval.isize=48", "eval.isize=64"), "eval.isize", 64),
        ("digits", ("eval.isize=48", None, {"eval": {"isize": 40}}), "eval.isize", 40),
        ("digits", ("eval.isize=48", "train.epochs=2"), "eval.isize", 48),
        ("imagenet2012", ("train.momentum=0.5",), "train.momentum", 0.5),
    ],
)
def test_precedence(dataset_cfg, overrides, key, value):
    assert flat(resolve("efficientnetv2-m", dataset_cfg, *overrides))[key] == value


def test_a_yaml_file_stands_in_line_with_other_overrides(tmp_path):
    path = tmp_path / "more.yaml"
    path.write_text("train: {epochs: 5, seed: 6}\n", encoding="utf-8")
    config = resolve("efficientnetv2-s", "digits", "train.epochs=4", str(path), "train.seed=7")
    assert (config.train.epochs, config.train.seed) == (5, 7)


def test_digits_is_the_data_set_where_none_is_named():
    assert resolve("efficientnetv2-s") == resolve("efficientnetv2-s", "digits")


def test_names_are_written_as_registered():
    config = resolve("EfficientNetV2-S", "Imagenet")
    assert (config.model.model_name, config.data.ds_name) == ("efficientnetv2-s", "imagenet2012")


def test_all_problems_are_in_one_message():
    problems = (
        "unknown model 'efficientnetv2-x'; did you mean 'efficientnetv2-xl'?",
        "unknown data set 'digit'; did you mean 'digits'?",
        "unknown key 'train.epoch'; did you mean 'train.epochs'?",
        "'nonsense' is not of the form key=value",
        "train.batch_size must be at least 1, got 0",
        "data.flip must be a bool, got 2",
    )
    with pytest.raises(ConfigError) as error:
        resolve(
            "efficientnetv2-x",
            "digit",
            "train.epoch=3,nonsense,train.batch_size=0",
            {"data.flip": 2},
        )
    assert sorted(error.value.problems) == sorted(problems)
    assert str(error.value) == "; ".join(error.value.problems)


def test_a_config_error_is_a_user_error():
    with pytest.raises(UserError, match=r"^unknown model 'x'; known: efficientnetv2-s, "):
        resolve("x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data.ibase=33", "data.ibase (33) must not exceed train.isize (32)"),
        ("train.isize=23", "data.ibase (28) must not exceed train.isize (23)"),
        ("data.crop_area=0.9|0.5", "data.crop_area must rise from above 0, got [0.9, 0.5]"),
        ("data.crop_area=0|1", "data.crop_area must rise from above 0, got [0.0, 1.0]"),
        ("data.crop_aspect=2|1", "data.crop_aspect must rise from above 0, got [2.0, 1.0]"),
        ("model.blocks_args=[]", "model.blocks_args must hold at least one block string"),
        (
            "model.blocks_args=r1_k4_s1_e1_i8_o8",
            "model.blocks_args: block 'r1_k4_s1_e1_i8_o8': kernel_size must be odd and at least 1, "
            "got 4",
        ),
        (
            "model.blocks_args=[r1_k3_s1_e1_i8_o16,r1_k3_s1_e1_i24_o32,r1_k3_s1_e1_i32_o32]",
            "model.blocks_args: 'r1_k3_s1_e1_i24_o32' takes 24 channels, but the stage before it "
            "gives 16",
        ),
        (
            "model.blocks_args=r1_k3_s1_e1_i8_o16|r1_k3_s1_e1_i8_o32",
            "model.blocks_args: 'r1_k3_s1_e1_i8_o32' takes 8 channels, but the stage before it "
            "gives 16",
        ),
    ],
)
def test_impossible_combinations(overrides, message):
    with pytest.raises(ConfigError, match=exactly(message)):
        resolve("efficientnetv2-s", "digits", overrides)


@pytest.mark.parametrize(
    "overrides", ["data.ibase=32", "data.crop_area=0.5|0.5", "data.crop_aspect=1|1"]
)
def test_the_edge_of_the_possible(overrides):
    name, value = overrides.split("=")
    expected = [float(part) for part in value.split("|")]
    found = flat(resolve("efficientnetv2-s", "digits", overrides))[name]
    assert found == (expected if len(expected) == 2 else expected[0])


def test_several_impossible_combinations_are_told_together():
    text = "data.ibase=64,data.crop_area=1|0.5,model.blocks_args=x|y"
    with pytest.raises(ConfigError) as error:
        resolve("efficientnetv2-s", "digits", text)
    starts = [problem.split(": unknown")[0] for problem in error.value.problems]
    assert starts == [
        "data.ibase (64) must not exceed train.isize (32)",
        "data.crop_area must rise from above 0, got [1.0, 0.5]",
        "model.blocks_args: block 'x'",
        "model.blocks_args: block 'y'",
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dataset_cfg", ["digits", "imagenet2012"])
def test_every_model_resolves_with_every_data_set(name, dataset_cfg):
    config = resolve(name, dataset_cfg)
    assert config.model.blocks_args == MODELS[name].blocks
    assert config.data.ibase <= config.train.isize


def test_the_result_cannot_be_changed(unusual):
    with pytest.raises(AttributeError, match="FrozenConfigDict is immutable"):
        unusual.train.epochs = 3
    with pytest.raises(AttributeError, match="FrozenConfigDict is immutable"):
        unusual.train = {}
    with pytest.raises(TypeError, match="does not support item assignment"):
        unusual.data.crop_area[0] = 0.5
    assert flat(unusual)["train.epochs"] == 11


@pytest.mark.parametrize("name", ["efficientnetv2-s", "efficientnet-b0", "efficientnet-lite4"])
def test_keys_that_are_not_set_are_saved_too(name, tmp_path):
    config = resolve(name, "imagenet2012", "model.dropout_base=none")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert load_config(tmp_path / "config.yaml").model.dropout_base is None


def test_the_saved_file_is_plain_yaml(unusual, tmp_path):
    save_config(unusual, tmp_path / "config.yaml")
    plain = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert set(plain) == {"model", "train", "eval", "data", "runtime"}
    assert plain["data"]["crop_area"] == [0.3, 0.9]
    assert plain["train"]["lr_base"] == 3e-5
    assert plain["model"]["dropout_base"] is None


def test_load_config_takes_overrides(unusual, tmp_path):
    save_config(unusual, tmp_path / "config.yaml")
    loaded = load_config(tmp_path / "config.yaml", "train.epochs=2", None, {"train.epochs": 5})
    assert flat(loaded) == {**flat(unusual), "train.epochs": 5}


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("train.epoch: 3\n", (), "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("train.epochs: x\n", (), "train.epochs must be an int, got 'x'"),
        ("train.epochs: 3\n", (), "model.blocks_args must hold at least one block string"),
        ("", (), "model.blocks_args must hold at least one block string"),
        ("- 3\n", (), "config file '{path}' must hold keys and values, got [3]"),
        (
            "train.epoch: 3\n",
            ("seed=1", "train.seed=x"),
            "unknown key 'train.epoch'; did you mean 'train.epochs'?; "
            "unknown key 'seed'; did you mean 'train.seed'?; train.seed must be an int, got 'x'",
        ),
    ],
)
def test_load_config_refuses(tmp_path, content, overrides, message):
    path = tmp_path / "config.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=exactly(message.format(path=path))):
        load_config(path, *overrides)


def test_load_config_needs_a_file(tmp_path):
    path = tmp_path / "none"
    message = exactly(f"cannot read config file '{path}': No such file or directory")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def refusals(dataset_cfg, overrides):
    with pytest.raises(ConfigError) as error:
        require_trainable(resolve("efficientnetv2-s", dataset_cfg, overrides))
    return error.value.problems


@pytest.mark.parametrize(
    ("dataset_cfg", "overrides"),
    [
        ("digits", None),
        ("digits", "train.batch_size=1257"),
        ("digits", "runtime.strategy=gpu"),
        ("imagenet2012", "data.augname=none"),
        ("imagenet2012", "data.augname=none,train.batch_size=1256167"),
    ],
)
def test_what_can_be_trained_is_let_through(dataset_cfg, overrides):
    assert require_trainable(resolve("efficientnetv2-s", dataset_cfg, overrides)) is None


TOO_LARGE = (
    "train.batch_size is {}, more than the {} images of the training split of {}; give at most {}"
)
NOT_YET = {
    "data.augname=autoaug": "data.augname=autoaug is not available yet; give data.augname=none",
    "data.augname=randaug": "data.augname=randaug is not available yet; give data.augname=none",
    "data.mixup_alpha=0.2": "data.mixup_alpha=0.2 is not available yet; give data.mixup_alpha=0",
    "data.cutmix_alpha=1": "data.cutmix_alpha=1.0 is not available yet; give data.cutmix_alpha=0",
    "runtime.strategy=tpu": "runtime.strategy=tpu is not available yet; give auto, none, cpu or "
    "gpu",
}


@pytest.mark.parametrize(("overrides", "problem"), NOT_YET.items())
def test_what_is_not_available_is_refused(overrides, problem):
    assert refusals("digits", overrides) == (problem,)


@pytest.mark.parametrize(
    ("dataset_cfg", "images", "given"), [("digits", 1257, 1258), ("imagenet2012", 1256167, 1256168)]
)
def test_a_batch_larger_than_the_training_split_is_refused(dataset_cfg, images, given):
    overrides = f"train.batch_size={given},data.augname=none"
    expected = TOO_LARGE.format(given, images, dataset_cfg, images)
    assert refusals(dataset_cfg, overrides) == (expected,)


def test_all_that_hinders_training_is_told_together():
    overrides = (
        "train.batch_size=2000,data.augname=randaug,data.mixup_alpha=0.2,data.cutmix_alpha=1,"
        "runtime.strategy=tpu"
    )
    problems = [NOT_YET[item] for item in overrides.split(",")[1:]]
    expected = (TOO_LARGE.format(2000, 1257, "digits", 1257), *problems)
    assert refusals("digits", overrides) == expected
