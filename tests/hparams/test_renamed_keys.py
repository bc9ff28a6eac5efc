"""Former names of config keys: read wherever settings are read, with the meaning that they had."""

import pytest

from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import resolve
from hparams.keys import KEYS
from hparams.overrides import ConfigError, checked
from hparams.renamed_keys import RENAMED_KEYS, current_setting
from hparams.resolve import load_config, save_config


@pytest.mark.parametrize("name", RENAMED_KEYS)
def test_every_former_value_has_a_valid_successor(name):
    row = RENAMED_KEYS[name]
    assert name not in KEYS
    for before, now in row.values.items():
        assert current_setting(name, before) == (row.key, now)
        assert checked(row.key, now) == now


def test_other_settings_stay():
    assert current_setting("train.epochs", 3) == ("train.epochs", 3)


@pytest.mark.parametrize(
    ("override", "resize"),
    [
        ("data.eval_crop=true", "published"),
        ("data.eval_crop=FALSE", "squash"),
        ({"data": {"eval_crop": False}}, "squash"),
        ({"data.eval_crop": True}, "published"),
    ],
)
def test_overrides_may_use_the_former_name(override, resize):
    assert resolve("efficientnetv2-s", "digits", override).data.resize == resize


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("data.eval_crop=maybe", "data.resize must be one of published, squash, crop, letterbox, "),
        ("data.eval_crop=true,data.resize=crop", r"'data.resize' is given twice \(its former name"),
        ("search.space=data.eval_crop:true|false", "'data.eval_crop'; it is data.resize now"),
    ],
)
def test_mistakes_name_the_key_of_now(override, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        resolve("efficientnetv2-s", "digits", override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("before", "now"), [("true", "published"), ("false", "squash")])
def test_an_old_run_directory_is_read_and_may_go_on(before, now, tmp_path):
    config = resolve("efficientnetv2-s", "digits", {"data.resize": now})
    run = RunDirectory(tmp_path)
    run.start(config, ["0"])
    run.append_metrics({"step": 1, "epoch": 1, "image_size": 32})
    save_config(config, run.config_file)
    text = run.config_file.read_text()
    assert f"resize: {now}" in text
    run.config_file.write_text(text.replace(f"resize: {now}", f"eval_crop: {before}"))
    assert load_config(run.config_file) == config
    assert run.config("data.resize=letterbox").data.resize == "letterbox"
    run.require_same(config)
    other = resolve("efficientnetv2-s", "digits", {"data.resize": "letterbox"})
    assert run.changes(other) == {"data.resize": (now, "letterbox")}
