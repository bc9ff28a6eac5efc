"""The table of data sets: disjoint splits whose sizes add up, classes, and training recipes."""

import itertools
import re

import pytest

from hparams.datasets import DATASETS, find_dataset
from hparams.keys import KEYS
from hparams.registry import UnknownNameError
from hparams.resolve import ConfigError, resolve

# images in each split of TensorFlow Datasets, before slicing
WHOLE_SPLITS = {
    "digits": {"train": 1257, "minival": 180, "test": 360},
    "imagenet2012": {"train": 1_281_167, "validation": 50_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
    "cars196": {"train": 8_144, "test": 8_041},
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "mnist": {"train": 60_000, "test": 10_000},
    "tf_flowers": {"train": 3_670},
}
# name -> source and splits of the data sets whose number of images only the files tell
IN_FILES = {
    "folder": ("folder", (None, None, None)),
    "imagenet_tfrecord": ("tfrecord", ("train", "minival", "validation")),
    "imagenet_official": ("tfrecord", ("train", "minival", "validation")),
    "imagenet21k_tfrecord": ("tfrecord", ("train", "minival", "validation")),
}
CLASSES = {
    "digits": 10,
    "imagenet2012": 1000,
    "imagenet_tfrecord": 1000,
    "imagenet_official": 1000,
    "imagenet21k_tfrecord": 21_841,
    "folder": None,
    "cifar10": 10,
    "cifar100": 100,
    "oxford_flowers102": 102,
    "cars196": 196,
    "fashion_mnist": 10,
    "mnist": 10,
    "tf_flowers": 5,
}
# fine-tuning recipe -> the data set that it is for
FINE_TUNING = {
    "imagenetft": "imagenet2012",
    "cifar10ft": "cifar10",
    "cifar100ft": "cifar100",
    "flowersft": "oxford_flowers102",
    "tfflowersft": "tf_flowers",
    "carsft": "cars196",
    "ft": "folder",
}
CLASSES.update({name: CLASSES[base] for name, base in FINE_TUNING.items()})
SPLITS = ("train", "minival", "eval")
EACH_SPLIT = [(name, split) for name in WHOLE_SPLITS for split in SPLITS]


def images(notation, whole):
    """Reads ``train``, ``train[25000:]`` or ``train+validation[102:]``.

    Returns {base name: range of image indices}; each base name may occur once.
    """
    ranges = {}
    for term in notation.split("+"):
        name, start, stop = re.fullmatch(r"(\w+)(?:\[(\d*):(\d*)\])?", term).groups()
        assert name not in ranges
        ranges[name] = range(whole[name])[int(start or 0) : int(stop) if stop else None]
    return ranges


def overlap(first, second, whole):
    ours, theirs = images(first, whole), images(second, whole)
    return sum(
        len(
            range(
                max(ours[name].start, theirs[name].start), min(ours[name].stop, theirs[name].stop)
            )
        )
        for name in set(ours) & set(theirs)
    )


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ("train", "train[90:]", 10),
        ("train[:60]", "train[40:]", 20),
        ("train[10:20]", "train[19:30]", 1),
        ("train[:50]", "train[50:]", 0),
        ("train", "test", 0),
        ("train+test[10:]", "test[:10]", 0),
        ("train+test[10:]", "test[:12]", 2),
        ("train+test[10:]", "train[:7]+test[:11]", 8),
    ],
)
def test_the_split_arithmetic_of_this_file_sees_overlap(first, second, common):
    assert overlap(first, second, {"train": 100, "test": 100}) == common


def test_registered_names():
    assert set(DATASETS) == {*WHOLE_SPLITS, *IN_FILES, *FINE_TUNING}
    assert set(CLASSES) == set(DATASETS)
    assert DATASETS.canonical("Imagenet") == "imagenet2012"
    assert DATASETS.canonical("imagenet21k") == "imagenet21k_tfrecord"


@pytest.mark.parametrize("name", WHOLE_SPLITS)
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SPLITS, 2)))
def test_splits_are_disjoint(name, first, second):
    row = DATASETS[name]
    notations = getattr(row, first).name, getattr(row, second).name
    assert overlap(*notations, WHOLE_SPLITS[name]) == 0


@pytest.mark.parametrize(("name", "split"), EACH_SPLIT)
def test_split_sizes_are_those_of_the_notation(name, split):
    row = getattr(DATASETS[name], split)
    expected = sum(len(indices) for indices in images(row.name, WHOLE_SPLITS[name]).values())
    assert row.num_images == expected > 0


@pytest.mark.parametrize("name", WHOLE_SPLITS)
def test_no_image_is_left_out(name):
    used = sum(getattr(DATASETS[name], split).num_images for split in SPLITS)
    assert used == sum(WHOLE_SPLITS[name].values())


@pytest.mark.parametrize("name", WHOLE_SPLITS)
def test_most_images_are_to_train_on_where_the_split_is_ours(name):
    row = DATASETS[name]
    if set(images(row.eval.name, WHOLE_SPLITS[name])) <= set(
        images(row.train.name, WHOLE_SPLITS[name])
    ):
        assert row.eval.num_images <= 0.2 * WHOLE_SPLITS[name]["train"]
    assert row.minival.num_images <= 0.15 * row.train.num_images


@pytest.mark.parametrize("name", IN_FILES)
def test_what_only_the_files_tell_is_not_set(name):
    row = DATASETS[name]
    source, names = IN_FILES[name]
    splits = [getattr(row, split) for split in SPLITS]
    assert row.source == source
    assert tuple(split and split.name for split in splits) == names
    assert len(set(names)) == 3 or names == (None, None, None)
    assert {split and split.num_images for split in splits} == {None}


@pytest.mark.parametrize("name", WHOLE_SPLITS)
def test_sets_of_tensorflow_datasets_go_by_their_own_names(name):
    row = DATASETS[name]
    assert (row.source, row.tfds_name) == ("tfds", name)


@pytest.mark.parametrize("name", DATASETS)
def test_facts_reach_the_configuration(name):
    row = DATASETS[name]
    config = resolve("efficientnetv2-s", name, {"data.data_dir": "/data"})
    assert config.data.ds_name == name
    assert (config.data.source, config.data.tfds_name) == (row.source, row.tfds_name)
    assert config.model.num_classes == row.num_classes == CLASSES[name]
    for split in SPLITS:
        expected = getattr(row, split)
        assert config.data[f"{split}_split"] == (None if expected is None else expected.name)


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_is_on_the_same_data(name):
    row, base = DATASETS[name], DATASETS[FINE_TUNING[name]]
    for field in ("source", "tfds_name", "num_classes", "train", "minival", "eval"):
        assert getattr(row, field) == getattr(base, field)


@pytest.mark.parametrize("model", ["efficientnetv2-s", "efficientnetv2-b0", "efficientnet-lite4"])
@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_is_the_papers(model, name):
    """Paper sections 5.2 and 5.3."""
    config = resolve(model, name, {"data.data_dir": "/data"})
    train = config.train
    assert train.lr_base * train.batch_size / 256 == pytest.approx(0.001)
    assert (train.lr_sched, train.weight_decay, train.ema_decay) == ("cosine", 0.0, 0.9996)
    assert (train.stages, train.isize) == (1, config.eval.isize)
    assert (config.data.cutout, config.data.augname) == (0.5, "none")
    assert (config.data.mixup_alpha, config.data.cutmix_alpha) == (0, 0)
    assert config.model.dropout_base is None
    expected = {"imagenetft": (15, 0), "ft": (20, 500)}.get(name, (1, 10_000))
    assert (train.epochs, train.min_steps) == expected
    assert train.batch_size == (32 if name == "ft" else 512)


@pytest.mark.parametrize("name", [*IN_FILES, "ft"])
def test_files_need_a_folder(name):
    with pytest.raises(ConfigError, match=rf"{name} needs the folder of its files: --data_dir="):
        resolve("efficientnetv2-s", name)


@pytest.mark.parametrize("name", DATASETS)
def test_recipes_hold_known_keys_and_no_facts(name):
    row = DATASETS[name]
    for recipe in (row.recipe, *row.model_recipes.values()):
        assert set(recipe) <= set(KEYS)
        facts = {key for key in recipe if key in {"model.num_classes", "model.model_name"}}
        assert not facts | {key for key in recipe if key.endswith(("_split", "source", "_name"))}


@pytest.mark.parametrize("model", ["efficientnetv2-m", "efficientnetv2-b0"])
@pytest.mark.parametrize("name", DATASETS)
def test_a_recipe_wins_over_any_model(model, name):
    config = resolve(model, name, {"data.data_dir": "/data"})
    row = DATASETS[name]
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


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_mirrored_digit_is_another_sign(name):
    assert not resolve("efficientnetv2-s", name).data.flip
    assert resolve("efficientnetv2-s", "cifar10").data.flip


def test_several_labels_are_told_apart_by_a_sigmoid():
    config = resolve("efficientnetv2-s", "imagenet21k", {"data.data_dir": "/data"})
    assert config.data.multi_label
    assert config.train.loss_type == "sigmoid"


@pytest.mark.parametrize(
    ("argument", "name", "tfds_name"),
    [
        ("tfds:food101", "tfds:food101", "food101"),
        ("TFDS:Food101", "tfds:Food101", "Food101"),
        ("tfds:imagenet_resized/32x32", "tfds:imagenet_resized/32x32", "imagenet_resized/32x32"),
    ],
)
def test_any_set_of_tensorflow_datasets_has_a_row(argument, name, tfds_name):
    canonical, row = find_dataset(argument)
    assert (canonical, row.source, row.tfds_name) == (name, "tfds", tfds_name)
    assert (row.num_classes, row.train, row.minival, row.eval) == (None, None, None, None)
    config = resolve("efficientnetv2-b0", argument)
    assert (config.data.ds_name, config.data.tfds_name) == (name, tfds_name)
    assert config.data.train_split is None and config.model.num_classes is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar01", "unknown data set 'cifar01'; did you mean 'cifar10.*'"),
        ("food101", "'food101'.*; for any other set of TensorFlow Datasets give tfds:NAME"),
        ("tfds:", "'tfds:'.* give tfds:NAME"),
    ],
)
def test_an_unknown_name_is_answered_with_what_there_is(name, message):
    with pytest.raises(UnknownNameError, match=message):
        find_dataset(name)
