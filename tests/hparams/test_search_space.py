"""Tests what search.space takes and refuses, and the numbers of a range."""

import math

import pytest

from hparams import resolve
from hparams.overrides import ConfigError
from hparams.resolve import load_config, require_searchable, save_config
from hparams.search_space import Range, read_space

ITEMS = [
    "train.lr_base:0.001..0.1:log",
    "train.optimizer:adamw|lion|rmsprop",
    "model.dropout_rate:0..0.5",
    "train.batch_size:16..128:log",
    "data.flip:true|false",
    "data.mixup_alpha:0|0.2|0.5",
    "data.color_jitter:0..0.4",
    "data.rotate:0|15|180",
    "data.vertical_flip:true|false",
]


def config_of(*items, **more):
    return resolve("efficientnetv2-b0", "digits", {"search.space": list(items)}, more)


def test_each_kind_of_values():
    space = read_space(ITEMS)
    assert list(space.values()) == [
        Range(0.001, 0.1, is_log=True),
        ("adamw", "lion", "rmsprop"),
        Range(0.0, 0.5),
        Range(16, 128, is_log=True),
        (True, False),
        (0.0, 0.2, 0.5),
        Range(0.0, 0.4),
        (0.0, 15.0, 180.0),
        (True, False),
    ]
    assert [type(space["model.dropout_rate"].low), type(space["train.batch_size"].low)] == [
        float,
        int,
    ]


def test_the_command_line_and_a_file_take_the_same_text(tmp_path):
    text = f"train.epochs=3,search.space=[{','.join(ITEMS)}],search.trials=7"
    config = resolve("efficientnetv2-b0", "digits", text)
    assert list(config.search.space) == ITEMS and config.search.trials == 7
    (tmp_path / "by_hand.yaml").write_text(f"search.space: [{', '.join(ITEMS)}]\n")
    by_hand = resolve("efficientnetv2-b0", "digits", str(tmp_path / "by_hand.yaml"))
    assert by_hand.search.space == config.search.space
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        (Range(0.0, 0.5), 0.25, 0.125),
        (Range(0.001, 0.1, is_log=True), 0.75, 0.03162),  # 10^-1.5, in four digits
        (Range(0.00012344, 0.1, is_log=True), 0.0, 0.00012344),  # not rounded below the range
        (Range(1, 4), 0.0, 1),
        (Range(1, 4), 0.2499, 1),
        (Range(1, 4), 0.25, 2),
        (Range(1, 4), 0.9999, 4),
        (Range(1, 7, is_log=True), 0.34, 2),  # 8^0.34 = 2.03
    ],
)
def test_numbers_of_a_range(values, share, expected):
    assert values.at(share) == expected and type(values.at(share)) is type(values.low)


def test_a_logarithmic_range_gives_each_decade_its_share():
    numbers = [Range(0.001, 1.0, is_log=True).at((i + 0.5) / 300) for i in range(300)]
    counts = [sum(math.floor(math.log10(n)) == decade for n in numbers) for decade in (-3, -2, -1)]
    assert counts == [100, 100, 100]


REFUSED = {
    "train.lr:1..2": "unknown key 'train.lr'; did you mean",
    "train.lr_base": "an item is key:low..high, key:low..high:log or key:value|value, got 'train.l",
    "train.lr_base:1..1": "the range 1..1 is empty; give a smaller number first",
    "train.lr_base:2..1:log": "the range 2..1 is empty",
    "train.lr_base:0..1": "train.lr_base must be above 0, got 0.0",
    "model.dropout_rate:0..1": "model.dropout_rate must be at most 0.99, got 1.0",
    "model.dropout_rate:0..0.5:log": "a range with :log begins above 0, got '0..0.5'",
    "train.lr_base:1..2:ln": "after a range there is nothing or :log, got 'ln'",
    "train.batch_size:16..64.5": "train.batch_size must be an int, got '64.5'",
    "train.batch_size:16..4096": "more than the 1257 images of the training split of digits",
    "data.color_jitter:0..1.5": "data.color_jitter must be at most 1, got 1.5",
    "data.color_jitter:0.2|0.2": "data.color_jitter must not repeat a value",
    "data.color_jitter:0..a": "data.color_jitter must be a float, got 'a'",
    "data.crop_area:0..1": "is neither a number",
    "data.flip:0..1": "data.flip is no number; give its values as data.flip:value|value",
    "train.optimizer:adamw|adm": "train.optimizer must be one of",
    "train.optimizer:adamw": "has one value, 'adamw'; give it as train.optimizer=adamw instead",
    "train.optimizer:adamw|adamw": "must not repeat a value, got 'adamw|adamw'",
    "train.epochs:1..3": "train.epochs is search.epochs in all trials",
    "train.patience:1..3": "train.patience is off in all trials",
    "train.seed:1..3": "is no setting that makes a training better",
    "train.preset:fast|best": "chooses other settings",
    "train.profile:1..2": "is neither a number, nor one of some names, nor true or false",
    "train.varsexp:a|b": "is neither a number, nor one of some names",
    "data.ibase:8..16": "has no effect: the images of a trial have one size",
    "data.data_dir:a|b": "says which images there are",
    "data.service_streams:1..2": "is not about how well a network learns",
    "eval.batch_size:1..2": "changes the evaluation, not the training",
    "search.seed:1..2": "is a setting of the search itself",
    "runtime.steps_per_loop:1..2": "is not about how well",
    "model.width_coefficient:1..2": "is part of the network, which stays",
    "data.ram:1..10": "data.ram has no effect with data.augname=none",
    "train.momentum:0.5..0.9": "train.momentum has no effect with train.optimizer=adamw",
    "train.lr_decay_factor:0.9|0.97": "has no effect with train.lr_sched=cosine",
    "train.gclip_per_variable:true|false": "has no effect with train.gclip=0.0",
    "train.accumulate:1..3": "train.batch_size (32) must be divisible by train.accumulate (3)",
    "train.lr_min:0.0..0.5": "must not exceed the peak learning rate",
}


@pytest.mark.parametrize("item", REFUSED)
def test_what_is_refused_in_one_line(item):
    with pytest.raises(ConfigError) as caught:
        require_searchable(config_of(item))
    assert REFUSED[item] in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("search.space: ")


@pytest.mark.parametrize(
    "items",
    [
        ["data.ram:1..10", "data.augname:none|randaug"],
        ["data.ram:1..10", "data.augname:none|augmix"],
        ["data.color_jitter:0|0.2|0.4"],
        ["train.momentum:0.5..0.9", "train.optimizer:adamw|momentum"],
        ["train.gclip_per_variable:true|false", "train.gclip:0..5"],
    ],
)
def test_a_key_that_has_an_effect_with_some_values_of_another(items):
    require_searchable(config_of(*items))


def test_problems_of_several_items_come_together():
    with pytest.raises(ConfigError) as caught:
        config_of("train.optimizer:adamw", "lion", "train.lr_base:1..2", "train.lr_base:1..2")
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [
        "search.space: train.optimizer has one value, 'adamw'",
        "search.space: an item is key:low..high, key:low..high:log or key:value|value, got 'lion'",
        "search.space: train.lr_base is there twice",
    ]


def test_the_policy_of_networks_is_refused():
    with pytest.raises(ConfigError, match=r"search\.sampler=rl chooses networks; with"):
        config_of(ITEMS[0], **{"search.sampler": "rl"})


def test_the_image_size_of_trials_must_fit_the_network_not_the_backbone():
    with pytest.raises(ConfigError, match=r"too small for efficientnetv2-b0"):
        require_searchable(config_of(ITEMS[0], **{"search.isize": 4}))
    blocks = {"model.blocks_args": ["r1_k3_s1_e1_i8_o8"], "search.isize": 4}
    require_searchable(config_of(ITEMS[0], **blocks))
