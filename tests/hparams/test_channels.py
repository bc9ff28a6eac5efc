"""The number of channels of images: what it excludes, and how images are normalised."""

import pytest

from hparams import UserError, resolve
from hparams.channels import normalisation_of, require_files
from hparams.errors import DataError
from hparams.facts import ImageFacts
from hparams.overrides import ConfigError
from hparams.presets import resolve_for_images

OWN = {"data.data_dir": "/d"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.channels": 17}, "model.channels must be at most 16, got 17"),
        ({"model.channels": 0}, "model.channels must be at least 1, got 0"),
        (
            {"model.channels": 4, "data.augname": "randaug"},
            "data.augname=randaug changes colours, so it is for images of 1 or 3 channels, not for "
            "model.channels=4; give none",
        ),
        (
            {"model.channels": 2, "data.color_jitter": 0.1},
            "data.color_jitter is for images of 1 or 3 channels, not for model.channels=2; give 0",
        ),
        (
            {"model.channels": 1, "data.color_jitter": [0.1, 0.1, 0.1, 0.1]},
            "data.color_jitter: grey images (model.channels=1) have no hue; give three numbers",
        ),
        (
            {"model.channels": 1, "data.service": "grpc://h:1"},
            "data.service reads images of 3 channels only, not model.channels=1; do without one of "
            "them",
        ),
        (
            {"model.channels": 4, "model.pixel_mean": [1, 2], "model.pixel_deviation": [1, 2]},
            "model.pixel_mean and model.pixel_deviation must have a number for each of the 4 "
            "channels, got 2 and 2",
        ),
        (
            {"model.pixel_deviation": [1, 2, 0]},
            "model.pixel_deviation",
        ),
    ],
)
def test_what_does_not_fit_the_channels_is_one_line(settings, message):
    with pytest.raises(ConfigError) as error:
        resolve("efficientnetv2-s", "folder", OWN, settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_augmentations_for_colours_are_not_chosen_for_others():
    assert resolve("efficientnetv2-s", "folder", OWN).data.augname == "randaug"
    for channels in (1, 2, 13):
        four = resolve("efficientnetv2-s", "folder", OWN, f"model.channels={channels}")
        assert four.data.augname == "none"
    chosen = {"model.channels": 1, "data.augname": "autoaug"}
    assert resolve("efficientnetv2-s", "folder", OWN, chosen).data.augname == "autoaug"
    recipe = {"model.channels": 4, "train.recipe": "torchvision", "train.preset": "none"}
    assert resolve("efficientnetv2-s", "folder", OWN, recipe).data.augname == "none"


def test_presets_say_why_there_is_no_augmentation():
    facts = ImageFacts(num_images=2_000, side=300)
    given = {**OWN, "model.channels": 4, "train.epochs": 60}
    config, reasons = resolve_for_images("efficientnetv2-s", "folder", given, facts=facts)
    assert (config.model.channels, config.data.augname) == (4, "none")
    assert "no AutoAugment or RandAugment: they are for colour photos" in reasons


def test_images_are_normalised_as_the_model_or_the_data_says():
    assert normalisation_of(resolve("efficientnetv2-s").model).mean == (128.0,) * 3
    own = {"model.pixel_mean": [1, 2, 3], "model.pixel_deviation": [4, 5, 6]}
    row = normalisation_of(resolve("efficientnetv2-s", "digits", own).model)
    assert (row.mean, row.deviation, row.channels) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 3)
    with pytest.raises(UserError, match=r"^images of 1 channel are normalised by the mean"):
        normalisation_of(resolve("efficientnetv2-s", "digits", "model.channels=1").model)


def test_several_channels_come_from_own_files():
    require_files(resolve("efficientnetv2-s", "digits", "model.channels=1"))
    require_files(resolve("efficientnetv2-s", "folder", OWN, "model.channels=4"))
    with pytest.raises(DataError, match=r"not for the data set digits, whose images have 3$"):
        require_files(resolve("efficientnetv2-s", "digits", "model.channels=4"))
