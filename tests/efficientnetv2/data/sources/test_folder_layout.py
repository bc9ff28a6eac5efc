"""A folder of images: what is in which split and class, and what may be wrong with a folder."""

import collections
import json
import os
import random

import pytest

from efficientnetv2.data.sources import folder_layout, folder_splits, image_files
from hparams.errors import DataError

PAIR = {"cat": 10, "dog": 10}


def make(root, counts):
    """Makes ``counts[folder]`` empty images in each folder, in no particular order."""
    files = [
        root / folder / f"{number}.jpg" for folder in counts for number in range(counts[folder])
    ]
    random.Random(len(files)).shuffle(files)
    for folder in counts:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for file in files:
        file.touch()
    return root


def sizes(splits):
    """{class: (train, minival, test)}."""
    counts = collections.Counter(
        (splits.class_names[image.label], split)
        for split in folder_splits.SPLITS
        for image in splits.images[split]
    )
    return {
        name: tuple(counts[name, split] for split in folder_splits.SPLITS)
        for name in splits.class_names
    }


def paths(splits, split):
    return [image.path for image in splits.images[split]]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (5, (3, 1, 1)),
        (10, (8, 1, 1)),
        (14, (12, 1, 1)),
        (15, (11, 2, 2)),
        (100, (80, 10, 10)),
    ],
)
def test_each_class_is_cut_80_10_10_and_keeps_one_to_train_on(images, expected, tmp_path):
    splits = folder_splits.scan_folder(make(tmp_path, {"many": 40, "some": images}))
    assert sizes(splits) == {"many": (32, 4, 4), "some": expected}


def test_each_image_is_in_one_split_under_the_class_of_its_folder(tmp_path):
    make(tmp_path, {"b": 7, "a": 25, "a/deep/er": 9})
    splits = folder_splits.scan_folder(tmp_path)
    together = [path for split in folder_splits.SPLITS for path in paths(splits, split)]
    everything = {str(p.relative_to(tmp_path).as_posix()) for p in tmp_path.rglob("*.jpg")}
    assert len(together) == 41 and set(together) == everything
    assert list(splits.class_names) == ["a", "b"]
    for split in folder_splits.SPLITS:
        for path, label in splits.images[split]:
            assert label == ("a", "b").index(path.split("/")[0])


def test_the_cut_does_not_depend_on_the_file_systems_order(tmp_path, monkeypatch):
    make(tmp_path, PAIR)
    forwards = folder_splits.scan_folder(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self):
            return sorted(self.entries, key=lambda entry: entry.name, reverse=True)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    assert folder_splits.scan_folder(tmp_path) == forwards


def test_the_cut_is_not_alphabetical(tmp_path):
    splits = folder_splits.scan_folder(make(tmp_path, {"a": 100, "b": 100}))
    numbers = [int(path[2:-4]) for path in paths(splits, "test") if path.startswith("a")]
    assert len(numbers) == 10 and max(numbers) - min(numbers) > 40


def test_the_cut_stays_as_it_is():
    # A change here would put images that old checkpoints were trained on into the test split.
    cats = [f"cat/{n}.jpg" for n in range(20)]
    splits = folder_layout._hold_out({"cat": cats}, ["test", "minival"])
    assert splits["test"]["cat"] == ["cat/8.jpg", "cat/3.jpg"]
    assert splits["minival"]["cat"] == ["cat/18.jpg", "cat/1.jpg"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".Png", ".bmp", ".GIF", ".webp"])
def test_suffixes_in_any_case_are_images(suffix, tmp_path):
    make(tmp_path, PAIR)
    (tmp_path / "cat" / f"x{suffix}").touch()
    assert len(image_files.image_paths(tmp_path)) == 21


@pytest.mark.parametrize(
    "name", ["cat/notes.txt", "cat/.9.jpg", ".git/a.jpg", "Thumbs.db", "a.jpg"]
)
def test_other_and_hidden_files_are_ignored(name, tmp_path):
    make(tmp_path, PAIR)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert sizes(folder_splits.scan_folder(tmp_path)) == {"cat": (8, 1, 1), "dog": (8, 1, 1)}


def test_links_are_followed_but_not_in_circles(tmp_path):
    elsewhere = make(tmp_path / "elsewhere", {"birds": 10})
    photos = make(tmp_path / "photos", PAIR)
    (photos / "owl").symlink_to(elsewhere / "birds")
    (photos / "cat" / "circle").symlink_to(photos)
    assert sizes(folder_splits.scan_folder(photos))["owl"] == (8, 1, 1)
    assert len(image_files.image_paths(photos)) == 30


@pytest.mark.parametrize(
    ("folders", "cat"),
    [
        ({"train": 20, "val": 5, "test": 6}, (20, 5, 6)),
        ({"Train": 20, "validation": 5, "eval": 6}, (20, 5, 6)),
        ({"train": 20, "minival": 5, "test": 6}, (20, 5, 6)),
        ({"train": 20, "test": 6}, (18, 2, 6)),
        ({"train": 20, "val": 6}, (18, 2, 6)),
        ({"train": 20}, (16, 2, 2)),
    ],
)
def test_folders_of_splits_are_kept_and_what_is_missing_is_cut_from_train(folders, cat, tmp_path):
    make(
        tmp_path, {f"{split}/{name}": n for split, n in folders.items() for name in ("cat", "dog")}
    )
    splits = folder_splits.scan_folder(tmp_path)
    assert sizes(splits) == {"cat": cat, "dog": cat}
    together = [path for split in folder_splits.SPLITS for path in paths(splits, split)]
    assert len(set(together)) == len(together) == 2 * sum(folders.values())
    for folder in set(folders) - {"train", "Train"}:
        inside = {
            split for split in folder_splits.SPLITS for p in paths(splits, split) if folder in p
        }
        assert len(inside) == 1


def test_a_class_may_be_called_train(tmp_path):
    splits = folder_splits.scan_folder(make(tmp_path, {"bus": 10, "train": 10, "tram": 10}))
    assert list(splits.class_names) == ["bus", "train", "tram"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({".": 0}, r"folder '.*/photos' holds no image \(\.jpg, \.jpeg"),
        ({".": 3}, "photos' holds images, but no class; each class must be a sub-folder"),
        ({"cat": 3}, "holds images of one class only, 'cat'; each class must be a sub-folder"),
        ({"train/cat": 3, "test/cat": 3}, "photos/train' holds images of one class only, 'cat'"),
        ({"train": 3, "test": 3}, "photos/train' holds images, but no class"),
        ({**PAIR, "eel": 0}, "class folder '.*/photos/eel' holds no image"),
        ({"train/a": 3, "train/b": 3, "train/c": 0}, "class folder '.*/train/c' holds no image"),
        (
            {"train/a": 3, "train/b": 3, "test/a": 1, "test/c": 1},
            "class folder '.*/photos/test/c' has no folder of the same name in '.*/photos/train'",
        ),
        ({"test/a": 3, "test/b": 3}, "holds 'test', but no 'train' beside it"),
        ({**PAIR, "test": 3}, "holds 'test' beside 'cat'; its sub-folders must be either all"),
        ({"train/a": 3, "train/b": 3, "more": 3}, "holds 'train' beside 'more'"),
        (
            {"train/a": 3, "train/b": 3, "val/a": 3, "validation/a": 3},
            "holds a split twice: train, val, validation",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_in_one_line(counts, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        folder_splits.scan_folder(make(tmp_path / "photos", counts))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_named(tmp_path):
    with pytest.raises(DataError, match=r"folder '.*/nowhere' does not exist"):
        folder_splits.scan_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"'.*/file' is a file; give the folder"):
        folder_splits.scan_folder(tmp_path / "file")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, PAIR)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read '.*/dog': Permission denied"):
        folder_splits.scan_folder(tmp_path)


@pytest.mark.parametrize(("name", "flag"), [("cifar10", "cifar10"), ("food101", "tfds:food101")])
def test_data_of_tensorflow_datasets_are_recognised(name, flag, tmp_path):
    make(tmp_path, {f"{name}/1.0.0": 0, "downloads/a": 3, "downloads/b": 3})
    (tmp_path / name / "1.0.0" / "dataset_info.json").write_text(json.dumps({"name": name}))
    with pytest.raises(DataError, match=f"TensorFlow Datasets.*--dataset_cfg={flag}$"):
        folder_splits.scan_folder(tmp_path)
