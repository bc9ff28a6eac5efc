"""scikit-learn's digits as a source: the right images, split without overlap."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets

from efficientnetv2.data.sources.digits import split_indices
from efficientnetv2.data.sources.tfds import TfdsSource
from efficientnetv2.data.sources.tfds_builders import open_builder

SPLITS = {"train": 1257, "minival": 180, "test": 360}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return TfdsSource(open_builder("digits", data_dir=str(tmp_path_factory.mktemp("tfds"))))


def load(source, split):
    references = source.references(split, seed=None, buffer=1)
    loaded = references.map(source.load).as_numpy_iterator()
    return [(name.decode(), image, int(label)) for name, image, label in loaded]


@pytest.fixture(scope="module")
def examples(source):
    """Split -> list of (8x8 grey levels, label)."""
    return {
        split: [
            (tf.io.decode_png(image).numpy()[..., 0], label)
            for _, image, label in load(source, split)
        ]
        for split in SPLITS
    }


def test_sizes_of_digits(source, examples):
    assert {split: source.num_images(split) for split in SPLITS} == SPLITS
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


def test_splits_of_digits_are_disjoint_and_stratified():
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


def test_names_and_classes_of_digits(source):
    assert source.class_names == [str(digit) for digit in range(10)]
    names = [name for name, _, _ in load(source, "train[10:13]+test[:2]")]
    assert names == [f"digits train[10:13]+test[:2], example {index}" for index in range(5)]


def test_parts_of_splits_hold_what_their_notation_says(source):
    whole = [example[1:] for example in load(source, "train")]
    assert [e[1:] for e in load(source, "train[:10%]")] == whole[:126]
    both = [example[1:] for example in load(source, "train[:10%]+train[1250:]")]
    assert sorted(both) == sorted(whole[:126] + whole[1250:])
    assert source.num_images("train[:10%]+train[1250:]") == 133
