"""Recipes by name: what each sets, and what they leave to the data set and to the user."""

import re

import pytest

from hparams.datasets import DATASETS
from hparams.facts import ImageFacts
from hparams.keys import KEYS
from hparams.models import MODELS
from hparams.presets import resolve_for_images
from hparams.recipes import OF_DATA, RECIPES
from hparams.resolve import ConfigError, flat, require_trainable, resolve

FOLDER = {"data.data_dir": "/photos"}
FILES = {"data.data_dir": "/d"}
WEIGHTS = {"train.ft_init_ckpt": "imagenet"}


def settings(*arguments):
    return flat(resolve(*arguments))


@pytest.mark.parametrize("model", ["efficientnetv2-s", "efficientnetv2-b0", "efficientnet-lite0"])
@pytest.mark.parametrize("name", ["folder", "mnist", "digits", "imagenet2012"])
def test_paper_has_the_defaults_and_the_model_s_row_whatever_the_data_set(model, name):
    overrides = {**(FOLDER if name == "folder" else {}), "train.recipe": "paper"}
    values = settings(model, name, overrides)
    row = MODELS[model].overrides()
    for key, value in values.items():
        is_set = key in DATASETS[name].recipe or key in row
        if key.startswith(("train.", "data.", "eval.")) and key not in OF_DATA and is_set:
            assert value == row.get(key, KEYS[key].default), key
    assert (values["train.epochs"], values["train.batch_size"]) == (350, 4096)
    assert values["train.optimizer"] == "rmsprop" and values["train.preset"] == "none"


def test_what_the_images_demand_stays():
    values = settings("efficientnetv2-b0", "mnist", {"train.recipe": "paper"})
    assert values["data.flip"] is False and values["data.resize"] == "squash"
    values = settings(
        "efficientnetv2-s", "imagenet21k_tfrecord", {**FILES, "train.recipe": "paper"}
    )
    assert values["data.multi_label"] and values["train.loss_type"] == "sigmoid"


@pytest.mark.parametrize("model", [name for name in MODELS if "v2" in name])
def test_official_is_the_recipe_of_the_official_data_set(model):
    expected = settings(model, "imagenet_official", FILES)
    values = settings(model, "imagenet_tfrecord", {**FILES, "train.recipe": "official"})
    differing = {key for key, value in values.items() if value != expected[key]}
    assert differing == {"train.recipe", "data.ds_name"}


def test_fast_is_the_preset_of_this_name():
    facts = ImageFacts(num_images=500, side=400)
    one, _ = resolve_for_images(
        "efficientnetv2-b0", "folder", FOLDER, {"train.recipe": "fast"}, facts=facts
    )
    other, _ = resolve_for_images(
        "efficientnetv2-b0", "folder", FOLDER, {"train.preset": "fast"}, facts=facts
    )
    differing = {key for key, value in flat(one).items() if value != flat(other)[key]}
    assert differing == {"train.recipe"}


def test_a_recipe_counts_less_than_what_is_given_and_more_than_a_preset():
    config, _ = resolve_for_images(
        "efficientnetv2-b0",
        "folder",
        FOLDER,
        {"train.recipe": "fixres", "train.lr_base": 0.02},
        WEIGHTS,
        facts=ImageFacts(num_images=10_000, side=28),
    )
    assert (config.train.epochs, config.train.lr_base) == (1, 0.02)
    assert config.train.optimizer == "momentum" and config.data.cutout == 0
    assert config.train.isize == 64 and config.train.preset == "auto"  # sizes are the preset's


def test_torchvision_has_the_published_numbers():
    config = resolve("efficientnetv2-s", "imagenet2012", {"train.recipe": "torchvision"})
    train, data = config.train, config.data
    assert train.lr_base * train.batch_size / 256 == 0.5
    update_every, epochs = 32, 600
    kept = 1 - (1 - 0.99998) * train.batch_size * update_every / epochs
    assert train.ema_decay == pytest.approx(kept ** (1 / update_every), abs=1e-6)
    assert (train.stages, train.isize, config.eval.isize) == (1, 300, 384)
    assert (data.augname, data.random_erasing, data.repeats) == ("trivialaugment", 0.1, 4)
    assert (data.mixup_alpha, data.cutmix_alpha, train.label_smoothing) == (0.2, 1.0, 0.1)
    assert config.model.survival_prob == 0.8 and config.model.dropout_rate == 0.2
    medium = resolve("efficientnetv2-m", "imagenet2012", {"train.recipe": "torchvision"})
    assert (medium.train.isize, medium.eval.isize, medium.model.dropout_rate) == (384, 480, 0.3)


def test_torchvision_decays_all_but_batch_norm():
    expression = RECIPES["torchvision"].settings["train.weight_decay_vars"]
    decayed = ["stem_conv/kernel", "block6a_se_reduce/bias", "predictions/bias"]
    assert all(re.search(expression, path) for path in decayed)
    assert not any(re.search(expression, path) for path in ["top_bn/beta", "stem_bn/gamma"])


def test_fixres_trains_classifier_and_batch_norm_alone():
    expression = RECIPES["fixres"].settings["train.varsexp"]
    trained = ["predictions/kernel", "predictions/bias", "block1a_project_bn/gamma", "top_bn/beta"]
    frozen = ["stem_conv/kernel", "block6a_se_reduce/bias", "top_conv/kernel"]
    assert all(re.search(expression, path) for path in trained)
    assert not any(re.search(expression, path) for path in frozen)


def test_a_recipe_that_fine_tunes_asks_for_weights():
    config = resolve("efficientnetv2-b0", "folder", {**FOLDER, "train.recipe": "fixres"})
    with pytest.raises(ConfigError, match="give --weights=RUN"):
        require_trainable(config)


@pytest.mark.parametrize("recipe", [name for name, row in RECIPES.items() if row.replaces])
def test_a_recipe_of_all_settings_and_a_preset_exclude_each_other(recipe):
    with pytest.raises(ConfigError, match="give one of them"):
        resolve(
            "efficientnetv2-b0", "folder", FOLDER, {"train.recipe": recipe, "train.preset": "auto"}
        )


def test_a_wrong_name_is_a_problem():
    with pytest.raises(ConfigError, match=r"train\.recipe must be one of"):
        resolve("efficientnetv2-b0", "digits", {"train.recipe": "papr"})


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_sets_keys_that_exist_to_values_that_fit(name):
    for model in MODELS:
        assert set(RECIPES[name].overrides(model)) <= set(KEYS)
        settings(model, "imagenet2012", {"train.recipe": name})
