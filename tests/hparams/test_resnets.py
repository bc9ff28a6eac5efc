"""The ResNets for comparison: built as in Keras, trained like EfficientNetV2-S."""

import dataclasses

import pytest

from hparams import ConfigError
from hparams.keys import KEYS
from hparams.models import MODELS
from hparams.resolve import resolve, resolve_model

RESNET = ["resnet50", "resnet152"]


@pytest.mark.parametrize("name", RESNET)
def test_resnets_train_like_s_on_smaller_images(name):
    config, s = resolve(name, "imagenet2012"), resolve("efficientnetv2-s", "imagenet2012")
    assert (config.data.ibase, config.train.isize, config.eval.isize) == (128, 224, 224)
    assert dict(config.train) == {**s.train, "isize": 224}
    assert config.data == s.data
    for key in ("dropout_base", "dropout_rate", "bn_momentum", "num_classes"):
        assert config.model[key] == s.model[key]


# keras.applications: no stochastic depth, ReLU, and Caffe's epsilon.
@pytest.mark.parametrize("name", RESNET)
def test_the_configuration_tells_how_keras_builds_resnets(name):
    model = resolve_model(name)
    assert (model.act_fn, model.bn_epsilon, model.survival_prob) == ("relu", 1.001e-5, 1.0)
    assert model.blocks_args == ()


def test_published_numbers_of_resnets_say_at_which_size():
    rows = [dataclasses.astuple(MODELS[name].published) for name in RESNET]
    source = "EfficientNetV2 paper, Table 12, at {} pixels; FLOPs as counted here, at 224"
    assert rows == [
        (25.6, 3.9, 78.1, source.format(224)),
        (60.4, 11.3, 82.4, source.format(380)),
    ]


FIXED_FOR_RESNETS = {
    "act_fn": "silu",
    "bn_epsilon": 0.001,
    "padding": "torch",
    "survival_prob": 0.8,
    "width_coefficient": 1.1,
    "depth_coefficient": 1.1,
    "depth_divisor": 16,
    "min_depth": 16,
    "round_down_limit": 0.1,
    "fix_head_stem": True,
    "feature_size": 640,
    "data_format": "channels_first",
    "blocks_args": ["r1_k3_s1_e1_i8_o8"],
    "family": "v2",
}
FREE_FOR_RESNETS = {
    "preprocess": "v2",
    "bn_momentum": 0.9,
    "bn_type": "sync",
    "bn_mode": "frozen",
    "dropout_rate": 0.4,
    "dropout_base": 0.2,
    "num_classes": 5,
    "channels": 4,
    "pixel_mean": (1.0, 2.0, 3.0, 4.0),
    "pixel_deviation": (5.0, 6.0, 7.0, 8.0),
    "target_mean": (1.0,),
    "target_deviation": (2.0,),
}


@pytest.mark.parametrize("name", RESNET)
@pytest.mark.parametrize(("key", "value"), FIXED_FOR_RESNETS.items())
def test_keys_without_effect_on_resnets_are_refused(name, key, value):
    message = f"^model.{key} cannot be changed for {name}$"
    with pytest.raises(ConfigError, match=message):
        resolve_model(name, {key: value})
    with pytest.raises(ConfigError, match=message):
        resolve(name, "digits", {f"model.{key}": value})
    as_it_is = resolve_model(name)[key]
    assert resolve_model(name, {key: as_it_is}) == resolve_model(name)


def test_other_keys_of_resnets_can_be_changed():
    plain = resolve_model("resnet50")
    assert not [key for key, value in FREE_FOR_RESNETS.items() if plain[key] == value]
    assert dict(resolve_model("resnet50", FREE_FOR_RESNETS)) == {**plain, **FREE_FOR_RESNETS}
    keys = {name.partition(".")[2] for name in KEYS if name.startswith("model.")}
    assert {*FREE_FOR_RESNETS, *FIXED_FOR_RESNETS, "model_name"} == keys
