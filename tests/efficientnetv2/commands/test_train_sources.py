"""Tests that every kind of data set trains end to end and evaluates each image once."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from efficientnetv2 import get_model
from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.sources import build_source
from efficientnetv2.evaluation.evaluator import build_evaluator
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.loop import Training
from hparams import resolve
from hparams.resolve import with_facts

SMALL = {
    "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
    "model.feature_size": 8,
    "train.epochs": 1,
    "train.stages": 1,
    "train.batch_size": 8,
    "train.isize": 32,
    "train.optimizer": "adam",
    "data.augname": "none",  # what comes after decoding is the same for all data sets
    "data.mixup_alpha": 0.0,
    "data.cutmix_alpha": 0.0,
    "eval.isize": 32,
    "eval.batch_size": 7,  # divides none of the splits
}
STAGED = {
    "train.epochs": 2,
    "train.stages": 2,
    "data.ibase": 16,
    "data.augname": "randaug",
    "data.mixup_alpha": 0.2,
    "data.cutmix_alpha": 1.0,
}


def train_and_count(name, folder, **settings):
    """Trains; returns the records and the images of the final evaluation."""
    config = resolve("efficientnetv2-s", name, {**SMALL, **settings})
    source = build_source(config)
    splits = dict(zip(("train", "minival", "eval"), source.default_splits))
    facts = {f"data.{part}_split": split for part, split in splits.items()}
    config = with_facts(config, {"model.num_classes": source.num_classes, **facts})
    run = RunDirectory(folder)
    run.start(config, source.class_names)
    training = Training(config, source, run=run)
    assert training.run() is None
    evaluator = build_evaluator(training.train_state.model, loss_type=config.train.loss_type)
    images = EvaluationInput(config, source, split=config.data.eval_split)
    result = evaluator(images.padded)
    assert result["images"] == source.num_images(config.data.eval_split)
    lines = run.metrics()
    assert len(lines) == config.train.epochs
    assert np.isfinite([line["loss"] for line in lines]).all()
    return lines, result


MOCKED = [
    "imagenet2012",
    "cifar10",
    "cifar100",
    "oxford_flowers102",
    "tf_flowers",
    "cars196",
    "fashion_mnist",
    "mnist",
    "tfds:caltech101",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MOCKED)
def test_a_data_set_of_tfds(name, tmp_path):
    # The real features of the data set with made-up images: the tests download nothing.
    with tfds.testing.mock_data(num_examples=20):
        _, result = train_and_count(name, tmp_path)
    assert result["images"] == 20


@pytest.mark.slow
def test_digits(tmp_path, data_dir):
    lines, result = train_and_count(
        "digits", tmp_path, **{**STAGED, "data.data_dir": data_dir, "train.batch_size": 64}
    )
    assert [line["image_size"] for line in lines] == [16, 32]
    assert (lines[-1]["step"], result["images"]) == (2 * 19, 360)


def photograph(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["classes", "splits"])
def test_a_folder_of_photographs(layout, tmp_path):
    photos = tmp_path / "photos"
    for number in range(60):
        part = {"classes": "", "splits": ("train", "val", "test")[number % 3]}[layout]
        photograph(photos / part / f"class{number % 2}" / f"{number}.jpg", number)
    _, result = train_and_count("folder", tmp_path / "run", **{"data.data_dir": str(photos)})
    assert result["images"] == {"classes": 6, "splits": 20}[layout]


JPEG = tf.io.encode_jpeg(np.full((40, 50, 3), 90, np.uint8)).numpy()


def write_shards(folder, *, split, shards, labels, multi_label, jpegs=(JPEG,)):
    image, label = ("image", "labels") if multi_label else ("image/encoded", "image/class/label")
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        path = folder / f"{split}-{shard:05}-of-{shards:05}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for values, jpeg in zip(labels, itertools.cycle(jpegs)):
                features = {
                    image: tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
                    label: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "labels", "multi_label"),
    [
        ("imagenet_tfrecord", [[1], [500], [1000]], False),
        ("imagenet_official", [[1], [500], [1000]], False),
        ("imagenet21k_tfrecord", [[0], [5, 21_840], [7, 8, 9]], True),
    ],
)
def test_tfrecord_files(name, labels, multi_label, tmp_path):
    place = tmp_path / "shards"
    options = {"labels": labels, "multi_label": multi_label}
    write_shards(place, split="train", shards=6, **options)
    write_shards(place, split="validation", shards=4, **options)
    official = name == "imagenet_official"
    mixed = {"data.mixup_alpha": 0.2, "data.cutmix_alpha": 1.0} if multi_label else {}
    settings = {"data.data_dir": str(place), **(STAGED if official else mixed)}
    lines, result = train_and_count(name, tmp_path / "run", **settings)
    assert result["images"] == 12
    assert [line["image_size"] for line in lines] == ([24, 32] if official else [32])


@pytest.mark.slow
def test_a_label_beyond_the_classes_is_named(tmp_path):
    place = tmp_path / "shards"
    write_shards(place, split="train", shards=4, labels=[[1], [0], [3]], multi_label=False)
    write_shards(place, split="validation", shards=1, labels=[[1]], multi_label=False)
    with pytest.raises(Exception, match=r"train-0000\d-of-00004.*label -1 is outside 0\.\.999"):
        train_and_count("imagenet_tfrecord", tmp_path / "run", **{"data.data_dir": str(place)})


@pytest.mark.slow
def test_with_skip_bad_images_are_counted_in_the_records(tmp_path):
    photos = tmp_path / "photos"
    for number in range(60):
        photograph(photos / f"class{number % 2}" / f"{number}.jpg", number)
    for number in (10, 11, 30, 31):
        (photos / f"class{number % 2}" / f"{number}.jpg").write_bytes(b"no image")
    config = resolve(
        "efficientnetv2-s",
        "folder",
        {**SMALL, "data.data_dir": str(photos), "data.on_bad_image": "skip"},
    )
    source = build_source(config)
    train_split = source.default_splits[0]
    config = with_facts(config, {"model.num_classes": 2, "data.train_split": train_split})
    run = RunDirectory(tmp_path / "run")
    run.start(config, source.class_names)
    assert Training(config, source, run=run).run() is None
    references = source.references(train_split, seed=None, buffer=1)
    names = {pathlib.Path(source.name(r).numpy().decode()).name for r in references}
    bad = {"10.jpg", "11.jpg", "30.jpg", "31.jpg"} & names
    last = run.metrics()[-1]
    assert last["bad_images"] == len(bad) >= 1
    assert {pathlib.Path(name).name for name in last["bad_image_names"]} == bad


def test_an_empty_minival_is_known_before_the_first_epoch(main_tf2, tmp_path):
    """Two images of each class: one to train on and one to test."""
    for number in range(4):
        photograph(tmp_path / "photos" / f"class{number % 2}" / f"{number}.jpg", number)
    settings = "model.blocks_args=[r1_k3_s2_e1_i8_o8_c1],model.feature_size=8"
    result = main_tf2(
        *("train", "photos", "--validate", "--model=efficientnetv2-b0", "--batch_size=2"),
        *("--epochs=1", "--model_dir=run", f"--hparam_str={settings}"),
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert "its split 'minival' would be empty" in result.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_weights_are_evaluated_where_a_record_cannot_be_read(main_tf2, tmp_path):
    """Its name goes to bad_images.txt in the folder of the results, which is new."""
    place = tmp_path / "shards"
    options = {"labels": [[1], [500], [1000]], "multi_label": False}
    write_shards(place, split="train", shards=2, **options)
    write_shards(place, split="validation", shards=2, jpegs=(JPEG, JPEG[:100], JPEG), **options)
    blocks = "model.blocks_args=[r1_k3_s2_e1_i8_o8_c1],model.feature_size=8"
    weights = get_model(
        "efficientnetv2-b0",
        overrides={"blocks_args": ["r1_k3_s2_e1_i8_o8_c1"], "feature_size": 8},
    )
    weights.save_weights(tmp_path / "tiny.weights.h5")
    result = main_tf2(
        *("eval", "--dataset_cfg=imagenet_tfrecord", "--data_dir=shards"),
        *("--model=efficientnetv2-b0", "--weights=tiny.weights.h5"),
        f"--hparam_str={blocks},data.on_bad_image=skip,eval.isize=32",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    (listed,) = tmp_path.glob("runs/*/bad_images.txt")
    assert "validation-00001-of-00002" in listed.read_text()
