"""The recipe ``imagenet_official`` gives the same config as the official code."""

import json
import pathlib

import pytest

from hparams import resolve
from hparams.keys import KEYS

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "models.json").read_text(encoding="utf-8"))

RENAMED = {"data.ra_num_layers": "data.randaug_layers"}
# Keys of both configs that hold names and paths, or say the same thing in another way.
OTHER_WORDS = {
    "model.blocks_args",  # compared in test_models.py
    "model.bn_type",  # not set in the official code, which means per replica
    "data.augname",  # compared below
    "data.resize",  # a resize before cropping, not set in the official code
    "data.ds_name",
    "data.data_dir",
    "data.tfds_name",
    "train.loss_type",  # not set in the official code, which means softmax
    "eval.batch_size",
    "runtime.strategy",
}
# V1 trains in one stage with AutoAugment, so that the official code does not read these.
NOT_READ_FOR_V1 = {"train.stages", "data.ibase", "data.ram"}


def official_values(name):
    entry = GOLDEN[name]
    values = {
        RENAMED.get(f"{section}.{key}", f"{section}.{key}"): value
        for section, keys in entry["hparams"].items()
        for key, value in keys.items()
    }
    # For some models the official code gives these as a share of the evaluation size.
    values.update({"train.isize": entry["train_isize"], "eval.isize": entry["eval_isize"]})
    ignored = OTHER_WORDS | (set() if "v2" in name else NOT_READ_FOR_V1)
    return {key: v for key, v in values.items() if key in KEYS and key not in ignored}


@pytest.mark.parametrize("name", GOLDEN)
def test_every_key_has_the_official_value(name):
    config = resolve(name, "imagenet_official", "data.data_dir=/d").to_dict()
    expected = official_values(name)
    ours = {key: config[key.split(".")[0]][key.split(".")[1]] for key in expected}
    assert ours == expected
    assert len(expected) > 30


@pytest.mark.parametrize("name", GOLDEN)
def test_what_the_official_configuration_says_in_other_words(name):
    config = resolve(name, "imagenet_official", "data.data_dir=/d")
    official = GOLDEN[name]["augname"].replace("effnetv1_autoaug", "autoaug")
    assert config.data.augname == official
    assert config.train.loss_type == "softmax"
    assert config.train.stages == max(1, GOLDEN[name]["train_stages"])


@pytest.mark.parametrize("name", GOLDEN)
def test_what_the_official_code_does_without_a_key_for_it(name):
    config = resolve(name, "imagenet_official", "data.data_dir=/d")
    # Sizes begin one increment above ibase, dropout is constant, mixing begins at 0, the learning
    # rate decays from step 0, and the operations are those of the golden images.
    assert (config.train.stage_rule, config.data.augment_ops) == ("official", "official")
    assert config.model.dropout_base is None
    assert (config.data.mixup_base, config.data.cutmix_base) == (0, 0)
    assert config.train.lr_decay_in_warmup
    assert config.train.adaptive_regularisation
    assert not config.train.scale_batch_with_size
    assert (config.train.size_schedule, config.train.optimizer) == ("progressive", "rmsprop")
    assert (config.data.cutout, config.data.crop_area) == (0, (0.08, 1.0))


@pytest.mark.parametrize("size", ["s", "m", "l", "xl"])
def test_randaugment_begins_at_5(size):
    config = resolve(f"efficientnetv2-{size}", "imagenet_official", "data.data_dir=/d")
    assert config.data.ram_base == 5
