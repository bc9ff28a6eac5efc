"""Values that only the opened data set knows, and the checks before training."""

import re

import pytest

from hparams import ConfigError, load_config, resolve, save_config
from hparams.resolve import require_full_batch, require_trainable, with_facts

FACTS = {
    "model.num_classes": 7,
    "data.train_split": "train",
    "data.minival_split": "train[:10%]",
    "data.eval_split": "val",
}


@pytest.fixture
def folder():
    return resolve("efficientnetv2-s", "folder", "data.data_dir=/d")


def flat(config):
    return {
        f"{s}.{key}": value for s, keys in config.to_dict().items() for key, value in keys.items()
    }


def test_facts_fill_what_is_not_set_and_nothing_else(folder):
    result = with_facts(folder, FACTS)
    assert flat(result) == {**flat(folder), **FACTS}
    assert flat(folder)["model.num_classes"] is None


@pytest.mark.parametrize("given", ["model.num_classes=3", "data.eval_split=test"])
def test_facts_leave_what_is_set(given):
    key, value = given.split("=")
    config = resolve("efficientnetv2-s", "folder", f"data.data_dir=/d,{given}")
    result = flat(with_facts(config, FACTS))
    assert result.pop(key) == (3 if value == "3" else value)
    assert result == {k: v for k, v in {**flat(config), **FACTS}.items() if k != key}


def test_facts_leave_a_registered_data_set_as_it_is():
    config = resolve("efficientnetv2-s", "digits")
    assert with_facts(config, FACTS) == config


def test_no_facts_change_nothing(folder):
    assert with_facts(folder, {}) == folder
    # Facts that are still unknown stay unset.
    assert with_facts(folder, dict.fromkeys(FACTS)) == folder


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ({"model.num_classes": "many"}, "model.num_classes must be an int, got 'many'"),
        ({"model.num_classes": 2.0}, "model.num_classes must be an int, got 2.0"),
        ({"model.num_classes": 0}, "model.num_classes must be at least 1, got 0"),
        ({"data.eval_split": 3}, "data.eval_split must be a str, got 3"),
    ],
)
def test_facts_are_checked(folder, fact, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        with_facts(folder, {**FACTS, **fact})


def test_the_result_cannot_be_changed_and_is_saved_with_its_facts(folder, tmp_path):
    result = with_facts(folder, FACTS)
    with pytest.raises(AttributeError, match="FrozenConfigDict is immutable"):
        result.model.num_classes = 3
    save_config(result, tmp_path / "config.yaml")
    loaded = load_config(tmp_path / "config.yaml")
    assert loaded == result
    # A restart keeps the facts of the first start, even if the folder has changed.
    assert with_facts(loaded, {**FACTS, "model.num_classes": 6}) == result


# ---------------------------------------------------------------------- what training needs


TOO_LARGE = (
    "train.batch_size is {}, more than the {} images of the training split of {}; give at most {}"
)
TPU_SIZES = (
    "a TPU compiles the network for each image size, so sizes cannot change within an epoch: "
    "give train.size_steps=0 (one size per epoch) with train.size_schedule=random"
)
TPU_RANDOM = "runtime.strategy=tpu,train.size_schedule=random"


def refusals(dataset_cfg, overrides):
    with pytest.raises(ConfigError) as error:
        require_trainable(resolve("efficientnetv2-s", dataset_cfg, overrides))
    return error.value.problems


@pytest.mark.parametrize(
    ("dataset_cfg", "overrides"),
    [
        ("digits", None),
        ("digits", "train.batch_size=1257"),
        ("digits", "runtime.strategy=gpu"),
        ("digits", "runtime.strategy=tpu"),
        ("digits", f"{TPU_RANDOM},train.size_steps=0"),
        ("digits", "data.augname=randaug,data.mixup_alpha=0.2,data.cutmix_alpha=1"),
        ("imagenet2012", None),
        ("imagenet2012", "train.batch_size=1256167"),
        # The number of images of these is known only once the files are opened.
        ("folder", "data.data_dir=/d,train.batch_size=1000000000"),
        ("imagenet_tfrecord", "data.data_dir=/d,train.batch_size=1000000000"),
        ("tfds:beans", "train.batch_size=1000000000"),
        ("digits", "data.train_split=train+test,train.batch_size=1500"),
    ],
)
def test_what_can_be_trained_is_let_through(dataset_cfg, overrides):
    assert require_trainable(resolve("efficientnetv2-s", dataset_cfg, overrides)) is None


@pytest.mark.parametrize(
    ("dataset_cfg", "images", "given"), [("digits", 1257, 1258), ("imagenet2012", 1256167, 1256168)]
)
def test_a_batch_larger_than_the_training_split_is_refused(dataset_cfg, images, given):
    expected = TOO_LARGE.format(given, images, dataset_cfg, images)
    assert refusals(dataset_cfg, f"train.batch_size={given}") == (expected,)


def test_sizes_that_change_within_an_epoch_are_refused_on_a_tpu():
    assert refusals("digits", TPU_RANDOM) == (TPU_SIZES,)


def test_all_that_hinders_training_is_told_together():
    expected = (TOO_LARGE.format(2000, 1257, "digits", 1257), TPU_SIZES)
    assert refusals("digits", f"train.batch_size=2000,{TPU_RANDOM}") == expected


@pytest.mark.parametrize("images", [48, 49])
def test_one_full_batch_is_enough(images):
    config = resolve("efficientnetv2-s", "folder", "data.data_dir=/d,train.batch_size=48")
    assert require_full_batch(config, num_images=images) is None


@pytest.mark.parametrize("images", [0, 47])
def test_an_opened_split_smaller_than_a_batch_is_refused(images):
    config = resolve("efficientnetv2-s", "folder", "data.data_dir=/d,train.batch_size=48")
    message = TOO_LARGE.format(48, images, "'/d'", images)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        require_full_batch(config, num_images=images)


TINY = "model.blocks_args=[r1_k3_s2_e1_i8_o8],train.stages=1"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            "train.isize=1,train.stages=1",
            "train.isize=1 is too small for efficientnetv2-s, which shrinks images by 32: give at "
            "least 8, or blocks with fewer strides of 2",
        ),
        ("train.isize=7,train.stages=1", "train.isize=7 is too small for efficientnetv2-s, "),
        ("data.ibase=7", "data.ibase=7 is too small for efficientnetv2-s, which shrinks"),
        (
            "data.ibase=1,train.size_schedule=random,train.stages=1",
            "data.ibase=1 is too small for efficientnetv2-s, which shrinks images by 32",
        ),
        (
            f"{TINY.replace(']', ',r1_k3_s2_e1_i8_o8]')},train.isize=1",
            "train.isize=1 is too small for efficientnetv2-s, which shrinks images by 8: give at "
            "least 2, or blocks",
        ),
        ("train.isize=8,train.stages=1", None),
        ("data.ibase=8", None),
        ("data.ibase=1,train.stages=1", None),  # not used
        (f"{TINY},train.isize=1", None),
        (
            "train.size_schedule=random,train.epochs=100000,train.batch_size=1",
            "train.size_steps=1 draws 125700000 image sizes, of which at most 10000000 fit",
        ),
        (
            "train.size_schedule=random,train.epochs=100000,train.batch_size=1,train.size_steps=13",
            None,
        ),
    ],
)
def test_sizes_that_a_network_cannot_be_trained_on(overrides, problem):
    config = resolve("efficientnetv2-s", "digits", overrides)
    if problem is None:
        require_trainable(config)
        return
    with pytest.raises(ConfigError) as error:
        require_trainable(config)
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(problem)


def test_a_resnet_shrinks_images_by_32():
    config = resolve("resnet50", "digits", "train.isize=4,train.stages=1")
    with pytest.raises(ConfigError, match=r"^train\.isize=4 is too small for resnet50, which"):
        require_trainable(config)
