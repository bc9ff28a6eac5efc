"""The split file of a folder: written once, read back, and what may be wrong with it."""

import os
import pathlib
import subprocess
import sys

import pytest

from efficientnetv2.data.sources import folder_splits
from efficientnetv2.data.sources.image_splits import SPLITS
from efficientnetv2.data.sources.own_images import open_images
from efficientnetv2.runtime.atomic_write import WriteError
from hparams import resolve
from hparams.errors import DataError

ROOT = pathlib.Path(__file__).parents[4]


def make(root, counts):
    """Makes ``counts[folder]`` empty images in each folder."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.jpg").touch()
    return root


def open_folder(folder, file, *, may_be_missing=False):
    settings = {
        "data.data_dir": os.fspath(folder),
        "data.on_bad_image": "skip" if may_be_missing else "error",
    }
    return open_images(resolve("efficientnetv2-b0", "folder", settings), file, writes=True)


def paths(splits, split):
    return [image.path for image in splits.images[split]]


@pytest.fixture
def photos(tmp_path):
    return make(tmp_path / "photos", {"cat": 20, "odd, name": 20})


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "split.csv"


def test_the_file_holds_split_label_class_and_path(photos, file):
    splits = open_folder(photos, file)
    lines = file.read_text().splitlines()
    assert lines[0] == "split,label,class,path"
    assert len(lines) == 41
    assert f"test,0,cat,{paths(splits, 'test')[0]}" in lines
    assert f'test,1,"odd, name","{paths(splits, "test")[-1]}"' in lines
    assert [path.name for path in file.parent.iterdir()] == ["split.csv"]


def test_reading_the_file_gives_the_same_splits(photos, file):
    assert open_folder(photos, file) == open_folder(photos, file)


def test_names_may_be_any_bytes(photos, file):
    (photos / "cat" / "3.jpg").rename(photos / "cat" / os.fsdecode(b"\xff\n.jpg"))
    splits = open_folder(photos, file)
    assert folder_splits.load_folder_splits(file, photos) == splits
    assert sum(len(images) for images in splits.images.values()) == 40


def test_images_added_later_move_none_and_are_not_used(photos, file):
    before = open_folder(photos, file)
    make(photos, {"cat": 60, "eel": 9})
    assert open_folder(photos, file) == before
    assert folder_splits.scan_folder(photos) != before


def test_the_folder_may_move(photos, file, tmp_path):
    before = open_folder(photos, file)
    after = open_folder(photos.rename(tmp_path / "moved"), file)
    assert after.images == before.images


def test_an_image_that_is_gone_is_named(photos, file):
    open_folder(photos, file)
    (photos / "cat" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"photos' has no 'cat/7.jpg', which '.*split.csv' lists"):
        open_folder(photos, file)
    (photos / "cat" / "8.jpg").unlink()
    with pytest.raises(DataError, match=r"no 'cat/7.jpg' and 1 more that '.*split.csv' lists"):
        open_folder(photos, file)


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
    open_folder(photos, file)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        open_folder(photos, file)


def test_a_file_that_cannot_be_written_is_named(photos, tmp_path):
    (tmp_path / "blocked").touch()
    with pytest.raises(WriteError, match=r"cannot write '.*/blocked/split.csv': "):
        open_folder(photos, tmp_path / "blocked" / "split.csv")


def test_no_tensorflow_is_imported():
    code = "from efficientnetv2.data.sources import folder_splits; import sys; "
    code += "assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_byte_of_a_file_name_comes_back(photos, file):
    for number in {*range(1, 256)} - {ord("/")}:
        (photos / "cat" / os.fsdecode(b"x" + bytes([number, 65, number]) + b".jpg")).touch()
    splits = open_folder(photos, file)
    assert sum(len(images) for images in splits.images.values()) == 40 + 254
    assert folder_splits.load_folder_splits(file, photos).images == splits.images


def test_a_line_may_be_taken_out_to_drop_an_image(photos, file):
    before = open_folder(photos, file)
    (photos / "cat" / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"put it back, or take its line out of that file$"):
        open_folder(photos, file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.endswith(",cat/7.jpg\n")))
    after = open_folder(photos, file)
    for split in SPLITS:
        assert paths(after, split) == [p for p in paths(before, split) if p != "cat/7.jpg"]


def test_images_that_are_gone_keep_their_places_where_they_may_be_missing(photos, file):
    before = open_folder(photos, file)
    (photos / "cat" / "7.jpg").unlink()
    after = open_folder(photos, file, may_be_missing=True)
    assert after == before
    assert after.notices == [
        f"folder '{photos}': 1 images that '{file}' lists are gone, for example 'cat/7.jpg'"
    ]


def test_new_images_and_classes_are_said(photos, file):
    assert open_folder(photos, file).notices == []
    assert open_folder(photos, file).notices == []
    make(photos, {"cat": 23, "eel": 2, "fox": 1})
    (photos / "cat" / "notes.txt").touch()
    assert open_folder(photos, file).notices == [
        f"folder '{photos}': 6 new images and 2 new classes ('eel', 'fox') are not in '{file}' and "
        "not used; another --model_dir divides the folder anew",
        f"folder '{photos}': left out 1 .txt",
    ]


def test_an_unlabelled_test_folder_is_not_new(tmp_path, file):
    photos = make(tmp_path / "photos", {"train/a": 9, "train/b": 9, "test": 4})
    open_folder(photos, file)
    assert open_folder(photos, file).notices == []


def test_a_folder_whose_layout_is_no_longer_known_still_goes_on(photos, file):
    before = open_folder(photos, file)
    make(photos, {"test/cat": 3, "empty": 0})
    after = open_folder(photos, file)
    assert after == before
    assert after.notices[0].startswith(f"folder '{photos}': 3 new images are not in")


def test_an_image_that_the_scanner_comes_to_by_another_path_is_not_missing(photos, file):
    before = open_folder(photos, file)
    (photos / "cat").rename(photos / "animals")
    (photos / "cat").symlink_to(photos / "animals")
    assert open_folder(photos, file) == before


def test_class_names_of_an_old_file_are_checked(photos, file):
    open_folder(photos, file)
    file.write_bytes(file.read_bytes().replace(b"0,cat,", b"0,c\xe9t,"))
    with pytest.raises(DataError, match=r"class folder '.*c\\xe9t': rename it"):
        open_folder(photos, file)
