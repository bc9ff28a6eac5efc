"""A folder of images: what is in which split and class, and what may be wrong with a folder."""

import collections
import json
import os
import random

import pytest

from efficientnetv2.data.sources import folder_scan, folder_splits
from efficientnetv2.data.sources.image_splits import SPLITS, hold_out
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
        for split in SPLITS
        for image in splits.images[split]
    )
    return {name: tuple(counts[name, split] for split in SPLITS) for name in splits.class_names}


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
    together = [path for split in SPLITS for path in paths(splits, split)]
    everything = {str(p.relative_to(tmp_path).as_posix()) for p in tmp_path.rglob("*.jpg")}
    assert len(together) == 41 and set(together) == everything
    assert list(splits.class_names) == ["a", "b"]
    for split in SPLITS:
        for path, label, _ in splits.images[split]:
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
    splits = hold_out({"cat": cats}, ["test", "minival"])
    assert splits["test"]["cat"] == ["cat/8.jpg", "cat/3.jpg"]
    assert splits["minival"]["cat"] == ["cat/18.jpg", "cat/1.jpg"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".Png", ".bmp", ".GIF", ".webp"])
def test_suffixes_in_any_case_are_images(suffix, tmp_path):
    make(tmp_path, PAIR)
    (tmp_path / "cat" / f"x{suffix}").touch()
    assert len(folder_scan.scan_files(tmp_path).images) == 21


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
    assert len(folder_scan.scan_files(photos).images) == 30


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
    together = [path for split in SPLITS for path in paths(splits, split)]
    assert len(set(together)) == len(together) == 2 * sum(folders.values())
    for folder in set(folders) - {"train", "Train"}:
        inside = {split for split in SPLITS for p in paths(splits, split) if folder in p}
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


def make_splits(root, counts):
    """Makes ``counts[folder]`` images of each of two classes in the folders of splits."""
    return make(root, {f"{top}/{name}": n for top, n in counts.items() for name in ("cat", "dog")})


@pytest.mark.parametrize(
    ("train", "minival", "test"),
    [
        ("train", "valid", "test"),
        ("training", "validation", "testing"),
        ("training_set", "val_set", "test_set"),
        ("TRAIN_SET", "Dev", "HOLDOUT"),
        ("Train", "Validate", "hold-out"),
        ("train_data", "VAL-IMAGES", "Test Data"),
        ("train2017", "val2017", "test2017"),
        ("trainset", "devset", "evaluation"),
        ("images_train", "images_val", "images_test"),
        ("trainval", "minival", "eval"),
    ],
)
def test_splits_are_known_by_all_usual_names(train, minival, test, tmp_path):
    splits = folder_splits.scan_folder(make_splits(tmp_path, {train: 9, minival: 3, test: 4}))
    assert sizes(splits) == {"cat": (9, 3, 4), "dog": (9, 3, 4)}
    assert splits.notices == [
        f"folder '{tmp_path}': train is '{train}', minival is '{minival}', test is '{test}'"
    ]


@pytest.mark.parametrize("held_out", ["test_set", "validation", "valid", "dev", "holdout"])
def test_a_training_set_and_one_more_split_are_no_classes(held_out, tmp_path):
    splits = folder_splits.scan_folder(make_splits(tmp_path, {"training_set": 20, held_out: 6}))
    assert sizes(splits) == {"cat": (18, 2, 6), "dog": (18, 2, 6)}
    assert splits.notices == [
        f"folder '{tmp_path}': train is 'training_set', test is '{held_out}'; minival: a tenth of "
        "train"
    ]


@pytest.mark.parametrize(
    "names", [("valid", "invalid"), ("dev", "prod"), ("train", "bus"), ("unlabelled", "cat")]
)
def test_a_class_may_have_the_name_of_a_split(names, tmp_path):
    splits = folder_splits.scan_folder(make(tmp_path, dict.fromkeys(names, 10)))
    assert set(splits.class_names) == set(names)
    assert splits.notices == []


@pytest.mark.parametrize(
    "folder", ["test", "TEST_set", "test/images", "test/unknown", "test1/test1", "seg_pred"]
)
@pytest.mark.parametrize("with_val", [True, False])
def test_an_unlabelled_test_folder_is_left_to_predict(folder, with_val, tmp_path):
    make_splits(tmp_path, {"train": 20, **({"val": 5} if with_val else {})})
    make(tmp_path, {folder: 7})
    splits = folder_splits.scan_folder(tmp_path)
    expected = (18, 2, 5) if with_val else (16, 2, 2)
    assert sizes(splits) == {"cat": expected, "dog": expected}
    top = tmp_path / folder.split("/")[0]
    assert splits.notices[1:] == [
        f"folder '{top}': its 7 images without classes are not used; predict them with "
        f"--mode=infer --image_path={top}"
    ]


def test_splits_may_stand_in_a_folder_of_their_own_name(tmp_path):
    splits = folder_splits.scan_folder(
        make_splits(tmp_path, {"seg_train/seg_train": 20, "seg_test/seg_test": 6})
    )
    assert sizes(splits) == {"cat": (18, 2, 6), "dog": (18, 2, 6)}
    with_images = make_splits(tmp_path / "more", {"train/images": 20, "val/images": 6})
    assert sizes(folder_splits.scan_folder(with_images)) == sizes(splits)


def test_each_class_may_hold_its_own_splits(tmp_path):
    counts = {"train": 9, "Test": 4}
    make(tmp_path, {f"{name}/{split}": n for name in ("cat", "dog") for split, n in counts.items()})
    splits = folder_splits.scan_folder(tmp_path)
    assert sizes(splits) == {"cat": (8, 1, 4), "dog": (8, 1, 4)}
    assert all("/Test/" in path for path in paths(splits, "test"))
    assert splits.notices == [f"folder '{tmp_path}': each class has its own test, train"]
    make(tmp_path, {"eel/test": 3})
    with pytest.raises(DataError, match=r"class folder '.*/eel' holds no folder 'train' with"):
        folder_splits.scan_folder(tmp_path)


def test_folders_that_hold_the_same_sub_folders_are_splits(tmp_path):
    make_splits(tmp_path, {"part one": 5, "part two": 5})
    with pytest.raises(
        DataError, match=r"'part one' and 'part two' hold the same sub-folders, 'cat'"
    ) as error:
        folder_splits.scan_folder(tmp_path)
    assert "call them train, val and test" in str(error.value)
    make(tmp_path, {"part two/eel": 3})  # a class that one part lacks
    with pytest.raises(DataError, match="hold the same sub-folders"):
        folder_splits.scan_folder(tmp_path)


@pytest.mark.parametrize(
    "counts",
    [
        {
            "cat/indoors": 5,
            "cat/outdoors": 5,
            "dog/indoors": 5,
            "dog/outdoors": 5,
            "eel/indoors": 5,
            "eel/outdoors": 5,
        },
        {"cat/images": 5, "cat/masks": 5, "dog/images": 5, "dog/masks": 5, "eel/images": 10},
        {"cat/a": 10, "dog/a": 10, "eel/a": 10},
        {"cat/a": 5, "cat/b": 5, "dog": 10, "eel": 10},
    ],
)
def test_sub_folders_of_classes_stay_sub_folders(counts, tmp_path):
    splits = folder_splits.scan_folder(make(tmp_path, counts))
    assert sizes(splits) == dict.fromkeys(("cat", "dog", "eel"), (8, 1, 1))
    assert len(splits.notices) == ("cat/indoors" in counts)


@pytest.mark.parametrize(
    "name", [b"caf\xe9", b"two\nlines", b"two\rlines", b"tab\t", "a\u2028b".encode()]
)
@pytest.mark.parametrize("start", ["", "train/"])
def test_classes_whose_name_no_list_can_hold_are_refused(name, start, tmp_path):
    odd = f"{start}{os.fsdecode(name)}"
    make(
        tmp_path,
        {odd: 5, f"{start}cat": 5, f"{start}caf\u00e9 \u732b": 5},
    )
    with pytest.raises(
        DataError, match=r"class folder '.*': rename it; .* UTF-8 without line"
    ) as error:
        folder_splits.scan_folder(tmp_path)
    assert str(error.value).isprintable() and "\\" in str(error.value)


def test_images_outside_of_class_folders_are_counted(tmp_path):
    make(tmp_path, {"train/cat": 10, "train/dog": 10, "train": 2, ".": 3})
    splits = folder_splits.scan_folder(tmp_path)
    assert splits.notices[-1] == (
        f"folder '{tmp_path}': left out 5 images outside of the class folders"
    )


def test_a_single_folder_with_folders_is_named_as_the_one_to_give(tmp_path):
    make(tmp_path, {"archive/cat": 5, "archive/dog": 5})
    with pytest.raises(
        DataError, match=r"one class only, 'archive'; .*as in --data_dir=.*/archive$"
    ):
        folder_splits.scan_folder(tmp_path)


def test_a_class_of_files_that_cannot_be_read_is_named_with_them(tmp_path):
    make(tmp_path, {**PAIR, "eel": 0})
    (tmp_path / "eel" / "1.jp2").touch()
    with pytest.raises(DataError, match=r"eel' holds no image; left out 1 \.jp2 \(convert them"):
        folder_splits.scan_folder(tmp_path)


def test_folders_of_the_system_are_no_classes(tmp_path):
    make(tmp_path, {**PAIR, "__MACOSX/cat": 3, "lost+found": 0})
    assert sizes(folder_splits.scan_folder(tmp_path)) == {"cat": (8, 1, 1), "dog": (8, 1, 1)}
