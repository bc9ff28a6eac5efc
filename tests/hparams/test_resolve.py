"""Resolving a config: precedence of model, data set and overrides; errors; saving and loading."""

import re

import pytest
import yaml

from hparams import ConfigError, UserError, load_config, resolve, save_config
from hparams.datasets import DATASETS
from hparams.models import MODELS
from hparams.resolve import with_facts


@pytest.fixture
def unusual():
    """Returns a config with some non-default values; test_keys.py covers all keys."""
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
        ("imagenet2012", (), "train.momentum", 0.9),  # default of the key
        ("imagenet2012", (), "eval.isize", 480),  # default 384 < model 480
        ("digits", (), "eval.isize", 32),  # model 480 < data set 32
        ("digits", (), "data.mixup_alpha", 0.0),  # model 0.2 < data set 0.0
        (
            "digits",
            (),
            "train.epochs",
            DATASETS["digits"].recipe["train.epochs"],
        ),  # default 350 < data set
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
        "unknown data set 'digit'; did you mean 'digits'?; for any other set of TensorFlow "
        "Datasets give tfds:NAME",
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


NO_FOLDER = "{} needs the folder of its files: --data_dir=FOLDER"


@pytest.mark.parametrize(
    "name", ["folder", "imagenet_tfrecord", "imagenet_official", "imagenet21k_tfrecord"]
)
def test_a_data_set_of_files_needs_their_folder(name):
    with pytest.raises(ConfigError, match=exactly(NO_FOLDER.format(name))):
        resolve("efficientnetv2-s", name)
    assert resolve("efficientnetv2-s", name, "data.data_dir=/d").data.data_dir == "/d"


def test_another_source_needs_a_folder_too():
    with pytest.raises(ConfigError, match=exactly(NO_FOLDER.format("digits"))):
        resolve("efficientnetv2-s", "digits", "data.source=folder")


def test_what_a_folder_holds_is_not_set():
    config = resolve("efficientnetv2-s", "folder", "data.data_dir=/d")
    splits = (config.data.train_split, config.data.minival_split, config.data.eval_split)
    assert (config.data.source, config.model.num_classes, splits) == ("folder", None, (None,) * 3)


@pytest.mark.parametrize(("given", "name"), [("tfds:Beans", "Beans"), ("TFDS:a/b:2.*", "a/b:2.*")])
def test_any_set_of_tensorflow_datasets_can_be_named(given, name):
    config = resolve("efficientnetv2-s", given)
    assert (config.data.ds_name, config.data.tfds_name) == (f"tfds:{name}", name)
    facts = ("model.num_classes", "data.train_split", "data.minival_split", "data.eval_split")
    assert [flat(config)[key] for key in facts] == [None] * 4
    assert config.data.source == "tfds"
    assert config.train.epochs == DATASETS["folder"].recipe["train.epochs"]


def test_tfds_without_a_name_is_unknown():
    message = "unknown data set 'tfds:'; .*; for any other set of TensorFlow Datasets give tfds"
    with pytest.raises(ConfigError, match=f"^{message}"):
        resolve("efficientnetv2-s", "tfds:")


@pytest.mark.parametrize(
    "overrides", ["data.ibase=32", "data.crop_area=0.5|0.5", "data.crop_aspect=1|1"]
)
def test_the_edge_of_the_possible(overrides):
    name, value = overrides.split("=")
    expected = [float(part) for part in value.split("|")]
    result = flat(resolve("efficientnetv2-s", "digits", overrides))[name]
    assert result == (expected if len(expected) == 2 else expected[0])


def test_several_impossible_combinations_are_told_together():
    text = "data.ibase=64,data.crop_area=1|0.5,model.blocks_args=x|y"
    with pytest.raises(ConfigError) as error:
        resolve("efficientnetv2-s", "digits", text)
    starts = [problem.split(": unknown")[0] for problem in error.value.problems]
    assert starts == [
        "data.ibase (64) must not exceed train.isize (32)",
        "data.crop_area must be [smallest, largest] with both above 0, got [1.0, 0.5]",
        "model.blocks_args: block 'x'",
        "model.blocks_args: block 'y'",
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dataset_cfg", DATASETS)
def test_every_model_resolves_with_every_data_set(name, dataset_cfg):
    config = resolve(name, dataset_cfg, "data.data_dir=/d")
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
    assert set(plain) == {"model", "train", "eval", "data", "search", "runtime"}
    assert plain["data"]["crop_area"] == [0.3, 0.9]
    assert plain["train"]["lr_base"] == 3e-5
    assert plain["model"]["dropout_base"] is None


def test_load_config_takes_overrides(unusual, tmp_path):
    save_config(unusual, tmp_path / "config.yaml")
    loaded = load_config(tmp_path / "config.yaml", "train.epochs=2", None, {"train.epochs": 5})
    assert flat(loaded) == {**flat(unusual), "train.epochs": 5}


NAMES = "model.model_name: efficientnetv2-s\ndata.ds_name: digits\n"
EMPTY = "config file '{path}' is empty; restore it, or start over in another --model_dir"


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("train.epoch: 3\n", (), "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        (
            NAMES + "train.epochs: x\n",
            ("train.epochs=3",),
            "config file '{path}': train.epochs must be an int, got 'x'",
        ),
        (
            NAMES,
            (),
            "config file '{path}': model.blocks_args must hold at least one block string",
        ),
        (
            "train.epochs: 3\n",
            (),
            "config file '{path}' does not say model.model_name; "
            "config file '{path}' does not say data.ds_name",
        ),
        (
            NAMES.replace("-s", "-q"),
            (),
            "config file '{path}': unknown model 'efficientnetv2-q'; did you mean "
            "'efficientnetv2-s'?",
        ),
        (
            NAMES.replace("digits", "digit"),
            (),
            "config file '{path}': unknown data set 'digit'; did you mean 'digits'?; for any other "
            "set of TensorFlow Datasets give tfds:NAME",
        ),
        (
            NAMES.replace("digits", "7"),
            (),
            "config file '{path}': data.ds_name must be a str, got 7",
        ),
        ("", (), EMPTY),
        ("# nothing\n", (), EMPTY),
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


def test_there_may_be_more_classes_than_other_lists_have_items():
    config = resolve(
        "efficientnetv2-b0", "folder", {"data.data_dir": "x"}, "train.class_weights=balanced"
    )
    facts = {"model.num_classes": 1001, "train.class_counts": [5] * 1001}
    assert len(with_facts(config, facts).train.class_counts) == 1001
    with pytest.raises(ConfigError, match=r"train.lr_scales must have at most 1000 items"):
        resolve("efficientnetv2-b0", "digits", {"train.lr_scales": ["stem:0.1"] * 1001})


@pytest.mark.parametrize(
    ("overrides", "first", "last"),
    [
        ("model.dropout_rate=0", 0.0, 0.0),
        ({"model.dropout_rate": 0.05}, 0.05, 0.05),
        ("model.dropout_rate=0.4", 0.1, 0.4),
        ("model.dropout_rate=0.1,model.dropout_base=0.3", 0.3, 0.1),  # as the user wants it
        ("", 0.1, 0.2),
    ],
)
def test_regularisation_does_not_get_weaker_by_itself(overrides, first, last):
    model = resolve("efficientnetv2-b0", "digits", overrides).model
    assert (model.dropout_base, model.dropout_rate) == (first, last)
