"""Tests that get_model takes what it says, and answers everything else with one sentence."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import efficientnetv2
from efficientnetv2.checkpoints.model_arguments import check_input_shape, check_outputs
from hparams.keys import KEYS

TINY = {"blocks_args": ["r1_k3_s2_e1_i8_o8"], "feature_size": 8}


def get_model(name="efficientnetv2-b0", **options):
    return efficientnetv2.get_model(name, **{"overrides": TINY, **options})


def assert_refused(kind, message, **options):
    with pytest.raises(kind) as error:
        get_model(**options)
    assert str(error.value).startswith(message)
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize("name", [None, 5, b"efficientnetv2-b0", ["efficientnetv2-b0"], True])
def test_names_are_text(name):
    assert_refused(ValueError, "the name of a model is text such as 'efficientnetv2-s'", name=name)


@pytest.mark.parametrize("name", ["", "x" * 5000, "efficientnetv2-b0\0", "\u0661"])
def test_unknown_names(name):
    assert_refused(ValueError, "unknown model '", name=name)


@pytest.mark.parametrize(
    "count", ["10", "", 10.0, True, np.float32(7), np.array([7]), [7], "\u0661"]
)
def test_the_number_of_classes_is_a_whole_number(count):
    assert_refused(TypeError, "num_classes must be a whole number, got ", num_classes=count)


@pytest.mark.parametrize("count", [0, -1, 1_000_001, 10**30])
def test_the_number_of_classes_has_limits(count):
    assert_refused(ValueError, "num_classes must be at ", num_classes=count)


@pytest.mark.parametrize("count", [7, np.int64(7), np.array(7)])
def test_numpy_counts_are_fine(count):
    assert get_model(num_classes=count).output_shape == (None, 7)


@pytest.mark.parametrize("overrides", [["act_fn=relu"], [("act_fn", "relu")], 5, True, {"act_fn"}])
def test_overrides_are_text_a_path_or_a_mapping(overrides):
    message = "settings are text such as 'train.epochs=3', the path of a .yaml file, or a mapping"
    assert_refused(ValueError, message, overrides=overrides)


def test_overrides_may_be_a_path(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("blocks_args: [r1_k3_s2_e1_i8_o8]\nmodel: {feature_size: 24}\n")
    for given in (path, str(path)):
        model = get_model(overrides=given, include_top=False, pooling="avg")
        assert model.output_shape == (None, 24)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("act_fn=relu,act_fn=relu", "key 'model.act_fn' is given twice"),
        ({"act_fn": "relu", "model.act_fn": "relu"}, "key 'model.act_fn' is given twice"),
        ({"act_fn": "relu", "model": {"act_fn": "silu"}}, "key 'model.act_fn' is given twice"),
        ({"train.epochs": 3}, "'train.epochs' is not a model key"),
        ({"feature_size": 10**5000}, "model.feature_size must be at most 65536, got a number of"),
        ("nowhere.yaml", "cannot read config file 'nowhere.yaml': No such file or directory"),
        (pathlib.Path("nowhere"), "cannot read config file 'nowhere': No such file or directory"),
        ({"bn_mode": "frozen"}, "overrides of get_model: bn_mode='frozen' is for a training by"),
        ("bn_mode=frozen", "overrides of get_model: bn_mode='frozen' is for a training by"),
        ({"bn_type": "sync"}, "overrides of get_model: bn_type='sync' joins the devices of a "),
        ({"dropout_base": 0.1}, "overrides of get_model: dropout_base=0.1 is the first stage of"),
        ({"dropout_base": 0.3}, "overrides of get_model: dropout_base=0.3 is the first stage of"),
        ({"preprocess": "lite"}, "overrides of get_model: preprocess='lite' is the normalisation"),
        ({"model_name": "resnet50"}, "model.model_name is efficientnetv2-b0, chosen by"),
    ],
)
def test_overrides_without_an_effect_are_refused(overrides, message):
    assert_refused(ValueError, message, overrides=overrides)


def test_overrides_that_say_what_the_model_is_anyway():
    same = {"bn_mode": "train", "bn_type": "per_replica", "dropout_base": None, "preprocess": "v1"}
    assert get_model(overrides={**TINY, **same}).output_shape == (None, 1000)


# What makes each key matter, so that its effect can be seen; and a value that has one.
SCALED = {"width_coefficient": 1.3, "depth_coefficient": 1.3}
EFFECTS = {
    "family": ({}, "lite"),
    "preprocess": ({}, "lite"),
    "blocks_args": ({}, ["r1_k5_s2_e1_i8_o8"]),
    "width_coefficient": ({}, 2.0),
    "depth_coefficient": ({}, 2.0),
    "depth_divisor": (SCALED, 3),
    "min_depth": ({}, 24),
    "round_down_limit": ({**SCALED, "depth_divisor": 16, "feature_size": 50}, 0.01),
    "fix_head_stem": (SCALED, True),
    "feature_size": ({}, 24),
    "act_fn": ({}, "relu"),
    "bn_momentum": ({}, 0.5),
    "bn_epsilon": ({}, 0.5),
    "padding": ({}, "torch"),
    "survival_prob": ({"blocks_args": ["r3_k3_s1_e1_i8_o8"]}, 0.5),
    "dropout_rate": ({}, 0.75),
    "num_classes": ({}, 7),
    "data_format": ({}, "channels_first"),
}
REFUSED = (
    *("model_name", "bn_type", "bn_mode", "dropout_base"),
    *("target_mean", "target_deviation", "channels", "pixel_mean", "pixel_deviation"),
)


def described(overrides):
    model = get_model(overrides=overrides, include_preprocessing=True)
    return [layer.get_config() | {"built": None} for layer in model.layers[1:]]


@pytest.mark.parametrize("key", EFFECTS)
def test_every_other_key_changes_the_model(key):
    others, value = EFFECTS[key]
    if key == "family":  # of MBConv blocks only the depthwise layer's name differs
        others = {"blocks_args": ["r1_k3_s1_e2_i8_o8"]}
    tf.keras.backend.clear_session(free_memory=False)
    before = described({**TINY, **others})
    tf.keras.backend.clear_session(free_memory=False)
    assert described({**TINY, **others, key: value}) != before


def test_no_key_is_forgotten():
    keys = [name.removeprefix("model.") for name in KEYS if name.startswith("model.")]
    assert sorted([*EFFECTS, *REFUSED]) == sorted(keys)


@pytest.mark.parametrize("weights", [5, True, b"imagenet", ["imagenet"], {}])
def test_weights_are_a_name_or_a_path(weights):
    assert_refused(TypeError, "weights must be None, a name or a path, got ", weights=weights)


@pytest.mark.parametrize(
    "weights", ["", "x" * 300, pathlib.Path("x" * 300), "a\0b", "imagenet21k-ft2k", "/x" * 3000]
)
def test_weights_that_are_nowhere(weights):
    assert_refused(ValueError, "there are no weights '", weights=weights)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (None, TypeError, "input_shape must be (height, width, channels), got None"),
        (32, TypeError, "input_shape must be (height, width, channels), got 32"),
        ("abc", TypeError, "input_shape must be (height, width, channels), got 'abc'"),
        ({32, 31, 3}, TypeError, "input_shape must be (height, width, channels), got {3, 31, 32}"),
        ((), ValueError, "input_shape must have 3 entries, got ()"),
        ((32, 32), ValueError, "input_shape must have 3 entries, got (32, 32)"),
        ((1, 2, 3, 4), ValueError, "input_shape must have 3 entries, got (1, 2, 3, 4)"),
        (tf.TensorShape(None), ValueError, "input_shape must have 3 entries, got ()"),
        ((32.0, 32, 3), TypeError, "each entry of input_shape must be a whole number, got 32.0"),
        ((True, 32, 3), TypeError, "each entry of input_shape must be a whole number, got True"),
        (("32", 32, 3), TypeError, "each entry of input_shape must be a whole number, got '32'"),
        ((-1, 32, 3), ValueError, "each entry of input_shape must be at least 1, got -1"),
        ((32, 0, 3), ValueError, "each entry of input_shape must be at least 1, got 0"),
        ((10**12, 32, 3), ValueError, "each entry of input_shape must be at most 65536, got 10000"),
        ((None, None, None), ValueError, "input_shape must give the number of channels, got"),
    ],
)
def test_wrong_shapes(shape, kind, message):
    assert_refused(kind, message, input_shape=shape)


@pytest.mark.parametrize(
    "shape",
    [
        (32, 16, 3),
        [32, 16, 3],
        np.array([32, 16, 3]),
        tf.TensorShape([32, 16, 3]),
        (np.int8(32), 16, 3),
    ],
)
def test_shapes_come_in_any_sequence(shape):
    result = check_input_shape(shape)
    assert result == (32, 16, 3)
    assert {type(entry) for entry in result} == {int}


NO_POOLING = {"include_top": False, "features_only": False}


@pytest.mark.parametrize("pooling", ["sum", "", 5, True, ["avg"], np.array(["avg", "max"])])
@pytest.mark.parametrize("include_top", [True, False])
def test_unknown_poolings(pooling, include_top):
    message = "pooling must be None, 'avg' or 'max', got "
    assert_refused(ValueError, message, pooling=pooling, include_top=include_top)


@pytest.mark.parametrize("activation", ["nosuch", "", 5, True, {"class_name": "ReLU"}, [None]])
def test_unknown_activations(activation):
    message = "classifier_activation must be None or an activation of Keras such as 'softmax', got"
    assert_refused(ValueError, message, classifier_activation=activation)


@pytest.mark.parametrize("activation", ["softmax", "linear", tf.nn.softmax])
def test_known_activations(activation):
    outputs = {"include_top": True, "features_only": False, "pooling": None}
    assert check_outputs(classifier_activation=activation, **outputs) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features_only": True, "pooling": "avg"}, "features_only returns the features of each"),
        (
            {"features_only": True, "pooling": "max", "include_top": False},
            "features_only returns the features of each size, without pooling",
        ),
        ({"pooling": "avg"}, "pooling='avg' needs include_top=False: a classifier has its own"),
        (
            {"include_top": False, "classifier_activation": "softmax"},
            "classifier_activation='softmax' needs a classifier, so include_top=True",
        ),
        (
            {"features_only": True, "classifier_activation": "softmax"},
            "classifier_activation='softmax' needs a classifier, so include_top=True",
        ),
    ],
)
def test_arguments_for_a_part_that_is_left_out(options, message):
    assert_refused(ValueError, message, **options)


@pytest.mark.parametrize("name", ["include_top", "include_preprocessing", "features_only"])
@pytest.mark.parametrize("value", [None, 1, 0, "no", [True]])
def test_flags_are_true_or_false(name, value):
    assert_refused(TypeError, f"{name} must be True or False, got ", **{name: value})


def test_numpy_flags_are_fine():
    assert get_model(include_top=np.bool_(False)).output_shape == (None, None, None, 8)
