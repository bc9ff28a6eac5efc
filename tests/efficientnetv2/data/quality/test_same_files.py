"""Tests the search for equal files in two splits, which a training makes when it begins."""

import pathlib

import pytest

from efficientnetv2.data.quality.same_files import leak_notice
from efficientnetv2.data.sources.image_splits import ImageFile, ImageSplits


@pytest.fixture
def splits(tmp_path):
    contents = {"a": b"1234", "b": b"1234", "c": b"1235", "d": b"99", "e": b"99", "f": b"1234"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    def make(**images):
        files = {
            split: [ImageFile(n, 0) for n in images.get(split, "")]
            for split in ("train", "minival", "test")
        }
        return ImageSplits(tmp_path, ["x"], files)

    return make


def notices(splits):
    return leak_notice(splits.root, splits.images)


def test_equal_files_in_two_splits_are_one_line(splits, tmp_path):
    (line,) = notices(splits(train="acd", minival="b", test="ef"))
    assert line == (
        f"'{tmp_path}': 3 files are in two splits ('a' and 'b'), so results look better than they "
        "are; --mode=check finds them all"
    )
    (line,) = notices(splits(train="d", test="e"))
    assert "a file is in two splits ('d' and 'e')" in line


def test_there_is_nothing_to_say_of_others(splits):
    assert notices(splits(train="abf", minival="c", test="de")) == []
    assert notices(splits()) == []


def test_files_of_other_sizes_and_missing_ones_are_not_read(splits, monkeypatch):
    read = []
    real = pathlib.Path.read_bytes
    monkeypatch.setattr(
        pathlib.Path, "read_bytes", lambda path: read.append(path.name) or real(path)
    )
    assert notices(splits(train="az", minival="d", test="z")) == []
    assert read == []
