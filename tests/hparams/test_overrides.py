"""Overrides as text, YAML and mappings: what they mean, and the errors for wrong ones."""

import re
import time

import pytest

from hparams import ConfigError, resolve
from hparams.errors import LONGEST_MESSAGE
from hparams.overrides import _split_items, checked, overrides_text, read_overrides
from hparams.resolve import flat


def resolved(overrides, key):
    section, field = key.split(".")
    return resolve("efficientnetv2-s", "digits", overrides)[section][field]


def refused(message, overrides):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        resolve("efficientnetv2-s", "digits", overrides)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.epochs=7", "train.epochs", 7),
        (" train.epochs = 7 ,", "train.epochs", 7),
        ("train.epochs=+7", "train.epochs", 7),
        ("train.lr_base=1e-3", "train.lr_base", 0.001),
        ("train.lr_base=2", "train.lr_base", 2.0),
        ("data.flip=true", "data.flip", True),
        ("data.flip=TRUE", "data.flip", True),
        ("data.eval_crop=False", "data.resize", "squash"),
        ("train.optimizer=lamb", "train.optimizer", "lamb"),
        ("data.crop_area=[0.25,0.5]", "data.crop_area", (0.25, 0.5)),
        ("data.crop_area=[ 0.25 , 1 ]", "data.crop_area", (0.25, 1.0)),
        ("data.crop_area=0.25|0.5", "data.crop_area", (0.25, 0.5)),
        ("data.color_jitter=0.4", "data.color_jitter", (0.4,)),
        ("data.color_jitter=[0.4,0,0.2]", "data.color_jitter", (0.4, 0.0, 0.2)),
        ("model.blocks_args=r1_k3_s1_e1_i8_o8", "model.blocks_args", ("r1_k3_s1_e1_i8_o8",)),
        ("data.data_dir=/a=b", "data.data_dir", "/a=b"),
    ],
)
def test_text_grammar(text, key, value):
    result = resolved(text, key)
    assert result == value
    assert type(result) is type(value)


def test_a_list_in_brackets_does_not_end_the_items():
    text = "train.epochs=3,data.crop_area=[0.5,0.75],data.crop_aspect=0.5|2,train.seed=4"
    assert read_overrides(text) == (
        {
            "train.epochs": "3",
            "data.crop_area": "[0.5,0.75]",
            "data.crop_aspect": "0.5|2",
            "train.seed": "4",
        },
        [],
    )


@pytest.mark.parametrize("nothing", [None, "", " , ,", {}])
def test_nothing_overrides_nothing(nothing):
    assert read_overrides(nothing) == ({}, [])


@pytest.mark.parametrize("word", ["none", "None", "null", ""])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dropout_base", 0.05),
        ("model.num_classes", 7),
        ("data.data_dir", "/data"),
        ("data.eval_split", "dev"),
    ],
)
def test_a_key_that_is_not_set_by_default_can_be_unset(word, key, value):
    section, field = key.split(".")
    first = {key: value}
    assert resolve("efficientnetv2-s", "digits", first)[section][field] == value
    config = resolve("efficientnetv2-s", "digits", first, f"{key}={word}")
    assert config[section][field] is None


NO_SETTINGS = (
    "settings are text such as 'train.epochs=3', the path of a .yaml file, or a mapping, got "
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("epochs=3", "unknown key 'epochs'; did you mean 'train.epochs'?"),
        ("data.epochs=3", "unknown key 'data.epochs'; did you mean 'train.epochs'?"),
        ("zzz.qqq=1", "unknown key 'zzz.qqq'; docs/hparams.md lists all keys"),
        ("train.epochs", "'train.epochs' is not of the form key=value"),
        ("=3", "'=3' is not of the form key=value"),
        ("train.seed=1,train.seed=2", "key 'train.seed' is given twice"),
        ({"train.seed": 1, "train": {"seed": 1}}, "key 'train.seed' is given twice"),
        (["train.seed=1"], f"{NO_SETTINGS}['train.seed=1']"),
        (5, f"{NO_SETTINGS}5"),
        ("x" * 70_000, "settings of 70000 characters; give at most 65536"),
        ("\0=1", r"unknown key '\x00'; docs/hparams.md lists all keys"),
    ],
)
def test_unknown_and_malformed_text(text, message):
    refused(message, text)


@pytest.mark.parametrize("overrides", ["train=3", {"train": 3}])
def test_a_section_is_no_key(overrides):
    with pytest.raises(ConfigError, match=r"^unknown key 'train'; did you mean 'train\.\w+'\?$"):
        resolve("efficientnetv2-s", "digits", overrides)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.epochs", "abc", "an int"),
        ("train.epochs", "3.5", "an int"),
        ("train.epochs", "True", "an int"),
        ("train.epochs", True, "an int"),
        ("train.epochs", 3.0, "an int"),
        ("train.epochs", "1_0", "an int"),
        ("train.epochs", "", "an int"),
        ("train.epochs", None, "an int"),
        ("train.epochs", [3], "an int"),
        ("train.lr_base", "fast", "a float"),
        ("train.lr_base", "nan", "a float"),
        ("train.lr_base", "inf", "a float"),
        ("train.lr_base", float("-inf"), "a float"),
        ("train.lr_base", True, "a float"),
        ("data.flip", "1", "a bool"),
        ("data.flip", 1, "a bool"),
        ("data.flip", "yes", "a bool"),
        ("data.data_dir", 7, "a str"),
        ("train.optimizer", False, "a str"),
        ("data.crop_area", 0.5, "a list"),
        ("data.color_jitter", {}, "a list"),
        ("data.color_jitter", True, "a float"),
    ],
)
def test_wrong_types(key, value, expected):
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{key} must be {expected}, got')} ") as e:
        checked(key, value)
    assert str(e.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.crop_area=[a,1]", "data.crop_area must be a float, got 'a'"),
        ("data.crop_area=[0.5]", "data.crop_area must have 2 items, got ['0.5']"),
        ("data.crop_area=0|0.5|1", "data.crop_area must have 2 items, got ['0', '0.5', '1']"),
        ("data.crop_area=0.5|2", "data.crop_area must be at most 1, got 2.0"),
        ("data.crop_aspect=0|2", "data.crop_aspect must be above 0, got 0.0"),
    ],
)
def test_wrong_lists(text, message):
    refused(message, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epochs=0", "train.epochs must be at least 1, got 0"),
        ("train.epochs=-3", "train.epochs must be at least 1, got -3"),
        ("train.lr_base=0", "train.lr_base must be above 0, got 0.0"),
        ("model.dropout_rate=1", "model.dropout_rate must be at most 0.99, got 1.0"),
        ("model.dropout_base=-0.1", "model.dropout_base must be at least 0, got -0.1"),
        ("model.survival_prob=1.01", "model.survival_prob must be at most 1, got 1.01"),
        ("train.size_steps=-1", "train.size_steps must be at least 0, got -1"),
        ("data.cache_mib=-1", "data.cache_mib must be at least 0, got -1"),
        ("data.service_streams=0", "data.service_streams must be at least 1, got 0"),
        ("data.randaug_layers=-1", "data.randaug_layers must be at least 0, got -1"),
        ("data.rotate=-1", "data.rotate must be at least 0, got -1.0"),
        ("data.rotate=181", "data.rotate must be at most 180, got 181.0"),
        ("data.color_jitter=1.1", "data.color_jitter must be at most 1, got 1.1"),
        ("data.color_jitter=[0.1,-1,0]", "data.color_jitter must be at least 0, got -1.0"),
        ("data.vertical_flip=0.5", "data.vertical_flip must be a bool, got '0.5'"),
        ("data.cutout=-0.1", "data.cutout must be at least 0, got -0.1"),
        ("data.cutout=1.1", "data.cutout must be at most 1, got 1.1"),
        ("data.mixup_base=-1", "data.mixup_base must be at least 0, got -1.0"),
        ("data.cutmix_base=-1", "data.cutmix_base must be at least 0, got -1.0"),
        ("data.multi_label=2", "data.multi_label must be a bool, got '2'"),
    ],
)
def test_out_of_range(text, message):
    refused(message, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data.augname=randaugg",
            "data.augname must be one of none, randaug, autoaug, trivialaugment, augmix, got "
            "'randaugg'; did you mean 'randaug'?",
        ),
        (
            "runtime.strategy=zzz",
            "runtime.strategy must be one of auto, none, cpu, gpu, multi_worker, tpu, got 'zzz'; "
            "known: auto, none, cpu, gpu, multi_worker, tpu",
        ),
    ],
)
def test_unknown_choices(text, message):
    refused(message, text)


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("train.size_schedule", ("progressive", "random", "fixed")),
        ("train.stage_rule", ("paper", "official")),
        ("train.loss_type", ("softmax", "sigmoid", "sigmoid_sum", "mse", "mae", "huber")),
        ("data.source", ("tfds", "folder", "tfrecord")),
        ("data.on_bad_image", ("error", "skip")),
        ("data.augment_ops", ("default", "official")),
    ],
)
def test_choices(key, choices):
    needed = "data.data_dir=/d,data.augname=randaug,train.label_smoothing=0"
    needed += ",data.source=folder" if key == "train.loss_type" else ""
    assert [resolved(f"{needed},{key}={choice}", key) for choice in choices] == [*choices]
    wrong = f"{key} must be one of {', '.join(choices)}, got 'x'; known: {', '.join(choices)}"
    refused(wrong, f"{key}=x")


@pytest.mark.parametrize(
    "mapping",
    [
        {"train.epochs": 7, "data.crop_area": [0.5, 1.0]},
        {"train": {"epochs": 7}, "data": {"crop_area": (0.5, 1)}},
        {"train": {"epochs": "7"}, "data.crop_area": "0.5|1"},
    ],
)
def test_mappings_are_flat_or_nested(mapping):
    config = resolve("efficientnetv2-s", "digits", mapping)
    assert (config.train.epochs, config.data.crop_area) == (7, (0.5, 1.0))


@pytest.mark.parametrize(
    "content",
    [
        "train.epochs: 7\ndata.crop_area: [0.5, 1]\ntrain.lr_base: 1e-3\n",
        "train:\n  epochs: 7\n  lr_base: 0.001\ndata: {crop_area: [0.5, 1.0]}\n",
        "train: {epochs: 7}\ntrain.lr_base: 1.0e-3\ndata.crop_area: 0.5|1\n",
    ],
)
@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_yaml_files_are_flat_or_nested(tmp_path, content, ending):
    path = tmp_path / f"more.{ending}"
    path.write_text(content, encoding="utf-8")
    config = resolve("efficientnetv2-s", "digits", str(path))
    assert (config.train.epochs, config.train.lr_base) == (7, 0.001)
    assert config.data.crop_area == (0.5, 1.0)


def test_yaml_null_unsets(tmp_path):
    path = tmp_path / "more.yaml"
    path.write_text("model.dropout_base: null\n", encoding="utf-8")
    assert resolved(str(path), "model.dropout_base") is None


@pytest.mark.parametrize("content", ["", "# a comment only\n", "{}\n"])
def test_an_empty_yaml_file_overrides_nothing(tmp_path, content):
    path = tmp_path / "more.yaml"
    path.write_text(content, encoding="utf-8")
    assert read_overrides(str(path)) == ({}, [])


def test_a_missing_yaml_file(tmp_path):
    path = tmp_path / "more.yaml"
    refused(f"cannot read config file '{path}': No such file or directory", str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [1, 2\n", "is not YAML: while parsing a flow sequence "),
        (b"\xff\xfe\x00", "is not YAML: 'utf-8' codec can't decode byte 0xff "),
        (b"- train.epochs\n", "must hold keys and values, got ['train.epochs']"),
        (b"train.epochs=3\n", "must hold keys and values, got 'train.epochs=3'"),
    ],
)
def test_yaml_files_that_hold_something_else(tmp_path, content, message):
    path = tmp_path / "more.yaml"
    path.write_bytes(content)
    start = re.escape(f"config file '{path}' {message}")
    with pytest.raises(ConfigError, match=f"^{start}[^\n]*$"):
        resolve("efficientnetv2-s", "digits", str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: {epoch: 3}\n", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("train: {epochs: {a: 3}}\n", "unknown key 'train.epochs.a'; did you mean 'train.epochs'?"),
        ("train: {epochs: true}\n", "train.epochs must be an int, got True"),
        ("data: {flip: 1}\n", "data.flip must be a bool, got 1"),
    ],
)
def test_keys_and_values_of_yaml_files_are_checked(tmp_path, content, message):
    path = tmp_path / "more.yaml"
    path.write_text(content, encoding="utf-8")
    refused(message, str(path))


def test_keys_may_leave_out_a_section_that_is_given():
    assert read_overrides("epochs=3,data.flip=true", section="train") == (
        {"train.epochs": "3", "data.flip": "true"},
        [],
    )


def test_a_path_needs_no_ending_where_a_path_is_meant(tmp_path):
    path = tmp_path / "config"
    path.write_text("train.epochs: 3\n", encoding="utf-8")
    assert read_overrides(str(path), is_path=True) == ({"train.epochs": 3}, [])


def test_a_path_object_is_a_yaml_file(tmp_path):
    path = tmp_path / "config"
    path.write_text("train.epochs: 3\n", encoding="utf-8")
    assert read_overrides(path) == ({"train.epochs": 3}, [])


@pytest.mark.parametrize("content", ["train.epochs: 3\ntrain: {epochs: 3}\n"])
def test_a_key_given_dotted_and_nested_is_given_twice(tmp_path, content):
    path = tmp_path / "more.yaml"
    path.write_text(content, encoding="utf-8")
    refused("key 'train.epochs' is given twice", str(path))


def test_a_key_given_with_and_without_its_section_is_given_twice():
    problems = ["key 'train.epochs' is given twice"]
    for overrides in ("epochs=3,train.epochs=4", {"epochs": 3, "train": {"epochs": 4}}):
        assert read_overrides(overrides, section="train")[1] == problems


def test_a_mapping_that_holds_itself():
    mapping = {}
    mapping["train"] = mapping
    refused("unknown key 'train.train.train'; did you mean 'train.quantise'?", mapping)


@pytest.mark.parametrize(
    "text", ["a," * 30_000, ",[" * 30_000, "[" * 60_000, ",".join(f"k{n}=1" for n in range(5000))]
)
def test_many_mistakes_are_told_at_once_and_in_short(text):
    start = time.process_time()
    with pytest.raises(ConfigError) as error:
        resolve("efficientnetv2-s", "digits", text)
    assert time.process_time() - start < 1
    assert len(str(error.value)) <= LONGEST_MESSAGE


def test_what_does_not_fit_into_a_message_is_counted():
    with pytest.raises(ConfigError, match=r"; and \d more problems$") as error:
        resolve("efficientnetv2-s", "digits", ",".join(f"nonsense{'x' * 50}{n}" for n in range(10)))
    assert len(error.value.problems) == 10
    assert len(str(error.value)) <= LONGEST_MESSAGE


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b", ["a", "b"]),
        ("a=[1,2],b", ["a=[1,2]", "b"]),
        ("a=[1,2", ["a=[1", "2"]),
        ("a=1],b", ["a=1]", "b"]),
        ("a,b],c[d,e", ["a", "b]", "c[d", "e"]),
        ("a=[stem:0.1,block[12]:0.3],b", ["a=[stem:0.1,block[12]:0.3]", "b"]),
        ("a=[block[12]:0.3,stem:0.1],b", ["a=[block[12]:0.3,stem:0.1]", "b"]),
        ("a=[x,[y,z]],b=[c", ["a=[x,[y,z]]", "b=[c"]),
        (",", ["", ""]),
        ("", [""]),
    ],
)
def test_commas_inside_brackets_do_not_split(text, items):
    assert _split_items(text) == items


@pytest.mark.parametrize("dataset", ["cifar10", "digits", "imagenet"])
def test_settings_as_text_are_the_same_settings(dataset):
    settings = flat(resolve("efficientnetv2-s", dataset))
    read, problems = read_overrides(overrides_text(settings))
    assert problems == []
    assert {key: checked(key, value) for key, value in read.items()} == settings
