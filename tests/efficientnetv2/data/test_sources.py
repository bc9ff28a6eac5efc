"""The digits are scikit-learn's, split without overlap; data that is not there is named."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets

from efficientnetv2.data.digits import split_indices
from efficientnetv2.data.sources import DataError, open_source

SPLITS = {"train": 1257, "minival": 180, "test": 360}


@pytest.fixture(scope="module")
def examples(digits):
    """Split -> list of (8x8 grey levels, label)."""
    return {
        split: [
            (tf.io.decode_png(image).numpy()[..., 0], int(label))
            for image, label in digits.examples(split)
        ]
        for split in SPLITS
    }


def test_sizes(digits, examples):
    assert {split: digits.num_images(split) for split in SPLITS} == SPLITS
    assert {split: len(images) for split, images in examples.items()} == SPLITS


def test_together_they_are_scikit_learns_digits_each_once(examples):
    sklearn_digits = datasets.load_digits()
    grey = np.rint(sklearn_digits.images * 255 / 16).astype(np.uint8)
    expected = collections.Counter(
        (image.tobytes(), label) for image, label in zip(grey, sklearn_digits.target)
    )
    ours = collections.Counter(
        (image.tobytes(), label) for split in examples.values() for image, label in split
    )
    assert ours == expected


def test_splits_are_disjoint_and_stratified():
    labels = datasets.load_digits().target
    indices = split_indices(labels)
    together = np.concatenate(list(indices.values()))
    assert sorted(together) == list(range(len(labels)))
    for split, chosen in indices.items():
        share = np.bincount(labels[chosen], minlength=10) / np.bincount(labels)
        np.testing.assert_allclose(share, SPLITS[split] / 1797, atol=0.01)


def test_split_indices_stay_as_they_are():
    # A change here would put images that old checkpoints were trained on into the test split.
    indices = split_indices(datasets.load_digits().target)
    assert indices["test"][:5].tolist() == FIRST_TEST_INDICES


FIRST_TEST_INDICES = [0, 7, 13, 20, 28]


def test_order_is_always_the_same(digits):
    first, second = (list(digits.examples("test").as_numpy_iterator()) for _ in range(2))
    assert first == second


def test_class_names(digits):
    assert digits.class_names == [str(digit) for digit in range(10)]


def test_a_second_start_reuses_the_files(digits, data_dir, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("prepared twice")

    monkeypatch.setattr(type(digits.builder), "download_and_prepare", refuse)
    assert open_source("digits", data_dir=data_dir).num_images("test") == 360


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet2012", "'imagenet2012' is not prepared in .*tfds build imagenet2012 --data_dir="),
        ("nonesuch", "TensorFlow Datasets knows no data set 'nonesuch'"),
    ],
)
def test_missing_data_is_named(name, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_source(name, data_dir=str(tmp_path))


def test_unwritable_folder_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(DataError, match=f"cannot prepare 'digits' in '{blocked}'"):
        open_source("digits", data_dir=str(blocked))
