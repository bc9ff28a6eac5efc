"""The split file of a folder: written once, read back, and what may be wrong with it."""

import os
import pathlib
import subprocess
import sys

import pytest

from efficientnetv2.data.sources import folder_splits
from efficientnetv2.runtime.atomic_write import WriteError
from hparams.errors import DataError

ROOT = pathlib.Path(__file__).parents[4]


def make(root, counts):
    """Makes ``counts[folder]`` empty images in each folder."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").touch()
    return root


def paths(splits, split):
    return [image.path for image in splits.images[split]]


@pytest.fixture
def photos(tmp_path):
    return make(tmp_path / "photos", {"cat": 20, "odd, name": 20})


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "split.csv"


def test_the_file_holds_split_label_class_and_path(photos, file):
    splits = folder_splits.open_folder_splits(photos, file)
    lines = file.read_text().splitlines()
    assert lines[0] == "split,label,class,path"
    assert len(lines) == 41
    assert f"test,0,cat,{paths(splits, 'test')[0]}" in lines
    assert f'test,1,"odd, name","{paths(splits, "test")[-1]}"' in lines
    assert [path.name for path in file.parent.iterdir()] == ["split.csv"]


def test_reading_the_file_gives_the_same_splits(photos, file):
    assert folder_splits.open_folder_splits(photos, file) == folder_splits.open_folder_splits(
        photos, file
    )


def test_names_may_be_any_bytes(photos, file):
    (photos / "cat" / "3.jpg").rename(photos / "cat" / os.fsdecode(b"\xff\n.jpg"))
    splits = folder_splits.open_folder_splits(photos, file)
    assert folder_splits.load_folder_splits(file, photos) == splits
    assert sum(len(images) for images in splits.images.values()) == 40


def test_images_added_later_move_none_and_are_not_used(photos, file):
    before = folder_splits.open_folder_splits(photos, file)
    make(photos, {"cat": 60, "eel": 9})
    assert folder_splits.open_folder_splits(photos, file) == before
    assert folder_splits.scan_folder(photos) != before


def test_the_folder_may_move(photos, file, tmp_path):
    before = folder_splits.open_folder_splits(photos, file)
    after = folder_splits.open_folder_splits(photos.rename(tmp_path / "moved"), file)
    assert after.images == before.images


def test_an_image_that_is_gone_is_named(photos, file):
    folder_splits.open_folder_splits(photos, file)
    (photos / "cat" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"photos' has no 'cat/7.jpg', which '.*split.csv' lists"):
        folder_splits.open_folder_splits(photos, file)
    (photos / "cat" / "8.jpg").unlink()
    with pytest.raises(DataError, match=r"no 'cat/7.jpg' and 1 more that '.*split.csv' lists"):
        folder_splits.open_folder_splits(photos, file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split,label", "label,split", "line 1 of '.*split.csv' is not a row of split,label,class"),
        ("0,cat,cat/1.jpg", "0,cat", "line [0-9]+ of '.*' is not a row"),
        ("0,cat,cat/1.jpg", "x,cat,cat/1.jpg", "line [0-9]+ of '.*' is not a row"),
        ("0,cat,cat/1.jpg", "0,dog,cat/1.jpg", "line [0-9]+ of '.*' is not a row"),
        ("test,0", "exam,0", "line [0-9]+ of '.*' is not a row"),
        (",1,", ",2,", "does not number its classes from 0 on"),
        ("cat/1.jpg", "cat/2.jpg", "lists an image twice"),
    ],
)
def test_a_damaged_file_is_named(old, new, message, photos, file):
    folder_splits.open_folder_splits(photos, file)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        folder_splits.open_folder_splits(photos, file)


def test_a_file_that_cannot_be_written_is_named(photos, tmp_path):
    (tmp_path / "blocked").touch()
    with pytest.raises(WriteError, match=r"cannot write '.*/blocked/split.csv': "):
        folder_splits.open_folder_splits(photos, tmp_path / "blocked" / "split.csv")


def test_no_tensorflow_is_imported():
    code = "from efficientnetv2.data.sources import folder_splits; import sys; "
    code += "assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
