"""The data sets' facts: disjoint splits whose sizes add up, in TensorFlow Datasets' notation."""

import itertools
import re

import pytest

from hparams import base
from hparams.datasets import DATASETS
from hparams.resolve import resolve

# images in each split as TensorFlow Datasets has it, before slicing
WHOLE_SPLITS = {
    "digits": {"train": 1257, "minival": 180, "test": 360},
    "imagenet2012": {"train": 1_281_167, "validation": 50_000},
}
SPLITS = ("train", "minival", "eval")
EACH_SPLIT = [(name, split) for name in DATASETS for split in SPLITS]


def images(notation, whole):
    """Returns the base name and the indices of ``train``, ``train[25000:]``, ``train[:25000]``."""
    name, start, stop = re.fullmatch(r"(\w+)(?:\[(\d*):(\d*)\])?", notation).groups()
    window = slice(int(start) if start else None, int(stop) if stop else None)
    return name, range(whole[name])[window]


def overlap(first, second, whole):
    (first_name, ours), (second_name, theirs) = images(first, whole), images(second, whole)
    common = range(max(ours.start, theirs.start), min(ours.stop, theirs.stop))
    return len(common) if first_name == second_name else 0


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ("train", "train[90:]", 10),
        ("train[:60]", "train[40:]", 20),
        ("train[10:20]", "train[19:30]", 1),
        ("train[:50]", "train[50:]", 0),
        ("train", "test", 0),
    ],
)
def test_the_split_arithmetic_of_this_file_sees_overlap(first, second, common):
    assert overlap(first, second, {"train": 100, "test": 100}) == common


def test_registered_names():
    assert set(DATASETS) == set(WHOLE_SPLITS)
    assert DATASETS.canonical("Imagenet") == "imagenet2012"


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SPLITS, 2)))
def test_splits_are_disjoint(name, first, second):
    row = DATASETS[name]
    notations = getattr(row, first).tfds, getattr(row, second).tfds
    assert overlap(*notations, WHOLE_SPLITS[name]) == 0


@pytest.mark.parametrize(("name", "split"), EACH_SPLIT)
def test_split_sizes_are_those_of_the_notation(name, split):
    part = getattr(DATASETS[name], split)
    assert part.num_images == len(images(part.tfds, WHOLE_SPLITS[name])[1])


@pytest.mark.parametrize(
    ("name", "parts", "total"),
    [
        ("digits", ("train", "minival", "eval"), 1797),
        ("imagenet2012", ("train", "minival"), 1_281_167),
        ("imagenet2012", ("eval",), 50_000),
    ],
)
def test_split_sizes_add_up(name, parts, total):
    assert sum(getattr(DATASETS[name], part).num_images for part in parts) == total


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "digits",
            {"tfds_name": "digits", "train": "train", "minival": "minival", "eval": "test"},
        ),
        (
            "imagenet",
            {
                "tfds_name": "imagenet2012",
                "train": "train[25000:]",
                "minival": "train[:25000]",
                "eval": "validation",
            },
        ),
    ],
)
def test_facts_reach_the_configuration(name, facts):
    data = resolve("efficientnetv2-s", name).data
    assert data.tfds_name == facts["tfds_name"]
    assert data.ds_name == DATASETS.canonical(name)
    assert {split: data[f"{split}_split"] for split in SPLITS} == {
        split: facts[split] for split in SPLITS
    }


@pytest.mark.parametrize(("name", "classes"), [("digits", 10), ("imagenet2012", 1000)])
def test_the_number_of_classes_reaches_the_model(name, classes):
    assert resolve("efficientnetv2-s", name).model.num_classes == classes


@pytest.mark.parametrize("name", DATASETS)
def test_recipes_hold_known_keys_and_no_facts(name):
    recipe = DATASETS[name].recipe
    assert set(recipe) <= set(base.KEYS)
    assert not {"model.num_classes", "model.model_name"} & set(recipe)


@pytest.mark.parametrize("model", ["efficientnetv2-m", "efficientnetv2-b0"])
def test_the_digits_recipe_wins_over_any_model(model):
    config = resolve(model, "digits")
    row = DATASETS["digits"]
    recipe = {**row.recipe, **row.model_recipes.get(model, {})}
    plain = {f"{s}.{k}": v for s, keys in config.to_dict().items() for k, v in keys.items()}
    listed = {key: tuple(v) if isinstance(v, list) else v for key, v in recipe.items()}
    assert {key: plain[key] for key in recipe} == listed


def test_a_models_own_recipe_is_for_that_model_alone():
    batch_sizes = {
        name: resolve(name, "digits").train.batch_size
        for name in ("efficientnetv2-b0", "efficientnetv2-b1")
    }
    assert batch_sizes == {"efficientnetv2-b0": 32, "efficientnetv2-b1": 64}


def test_imagenet_takes_the_papers_training():
    train = resolve("efficientnetv2-s", "imagenet2012").train
    assert (train.epochs, train.batch_size, train.optimizer) == (350, 4096, "rmsprop")
