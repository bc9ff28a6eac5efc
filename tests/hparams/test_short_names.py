"""Tests the short names of settings: what they stand for, and contradictions."""

import pytest

from hparams.errors import UserError
from hparams.keys import KEYS, default_config
from hparams.search_space import NOT_OF_TRIALS, trial_settings
from hparams.short_names import SHORT_NAMES, short_settings


def test_every_name_stands_for_keys():
    keys = {key for row in SHORT_NAMES.values() for keys in row.keys.values() for key in keys}
    assert keys <= set(KEYS)
    assert all("train" in row.keys for row in SHORT_NAMES.values())


def test_a_search_has_a_size_and_a_length_of_its_own():
    given = {"image_size": 64, "epochs": 3, "batch_size": 16}
    expected = {"search.isize": 64, "search.epochs": 3, "train.batch_size": 16}
    assert short_settings(given, {}, mode="search") == expected


def test_no_short_name_of_a_search_is_for_what_its_trials_do_not_use():
    keys = {key for row in SHORT_NAMES.values() for key in row.keys.get("search", ())}
    assert len(keys) > 5
    assert not keys & {*NOT_OF_TRIALS, *trial_settings(default_config().search)}


def test_the_first_stage_has_half_of_the_image_size():
    assert short_settings({"image_size": "97"}, {}) == {
        "train.isize": "97",
        "data.ibase": 48,
        "eval.isize": "97",
    }
    given = short_settings({"image_size": 96}, {"overrides": {"data.ibase": 80}})
    assert given == {"train.isize": 96, "eval.isize": 96}
    assert short_settings({"epochs": 3}, {}, mode="search") == {"search.epochs": 3}


def test_contradictions():
    same = short_settings({"epochs": "3"}, {"--hparam_str": "train.epochs=3"}, prefix="--")
    assert same == {"train.epochs": "3"}
    with pytest.raises(UserError, match=r"^--epochs=3 contradicts train\.epochs=4 of --sweeps; "):
        short_settings({"epochs": 3}, {"--sweeps": "train.epochs=4"}, prefix="--")
