"""What the scanner of folders finds, what it leaves out, and that it ends."""

import os
import random

import pytest

from efficientnetv2.data.sources import image_suffixes
from efficientnetv2.data.sources.folder_scan import left_out_notice, scan_files
from hparams.errors import DataError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_hidden_files_and_those_of_the_system_are_counted_not_read(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/._1.jpg", ".git/2.jpg", "__MACOSX/a/3.jpg", "a/@eaDir/4.jpg")
    found = scan_files(tmp_path)
    assert found.images == ["a/1.jpg"] and found.folders == ["a"]
    assert found.left_out == {"hidden": 4}


def test_three_folders_that_link_to_each_other_end_and_give_each_image_once(tmp_path):
    names = ("a", "b", "c")
    touch(tmp_path, *(f"{name}/{name}.jpg" for name in names))
    for name in names:
        for other in names:
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    found = scan_files(tmp_path)
    assert sorted(found.images) == ["a/a.jpg", "b/b.jpg", "c/c.jpg"]
    assert found.left_out == {"link to a folder that is read already": 9}


def test_of_two_links_to_one_folder_the_first_counts_and_a_folder_itself_before_both(tmp_path):
    photos = touch(tmp_path / "photos", "z/1.jpg")
    elsewhere = touch(tmp_path / "elsewhere", "2.jpg")
    links = ["b", "a", "c"]
    random.Random(1).shuffle(links)
    for name in links:
        (photos / name).symlink_to(elsewhere)
    (photos / "alias").symlink_to(photos / "z")
    found = scan_files(photos)
    assert sorted(found.images) == ["a/2.jpg", "z/1.jpg"]
    assert sorted(found.folders) == ["a", "z"]
    assert found.left_out == {"link to a folder that is read already": 3}


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    photos = touch(tmp_path / "photos", "a/1.jpg")
    touch(tmp_path, "private/2.jpg")
    (photos / "a" / "up").symlink_to(tmp_path)
    assert scan_files(photos).images == ["a/1.jpg"]


def test_links_to_files_are_followed_and_broken_ones_counted(tmp_path):
    photos = touch(tmp_path / "photos", "a/1.jpg")
    touch(tmp_path, "elsewhere/2.jpg")
    (photos / "a" / "2.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    (photos / "a" / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    (photos / "a" / "self.jpg").symlink_to("self.jpg")
    found = scan_files(photos)
    assert sorted(found.images) == ["a/1.jpg", "a/2.jpg"]
    assert found.left_out == {"broken link": 2}


def test_fifos_and_devices_are_left_out(tmp_path):
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "null.png").symlink_to("/dev/null")
    found = scan_files(tmp_path)
    assert found.images == ["a/1.jpg"]
    assert found.left_out == {"FIFO, socket or device": 2}


def test_the_line_names_first_the_images_that_could_be_converted(tmp_path):
    counts = {".txt": 3, "hidden": 1, ".jp2": 9, ".heic": 4, "broken link": 2}
    assert left_out_notice(tmp_path, counts) == [
        f"folder '{tmp_path}': left out 9 .jp2, 4 .heic (convert them to JPEG or PNG), 3 .txt, "
        "2 broken links, 1 hidden"
    ]
    assert left_out_notice(tmp_path, {"hidden": 0}) == []
    many = {f".{letter}": 1 for letter in "abcdefghij"}
    assert left_out_notice(tmp_path, many)[0].endswith("1 .e, 1 .f, 4 others")


def test_every_file_is_an_image_or_counted(tmp_path):
    touch(
        tmp_path,
        "1.jpg",
        "2.JFIF",
        "3.Tif",
        "4.heic",
        "5.cr2",
        "README",
        "6.a longer ending",
        "x.csv",
    )
    found = scan_files(tmp_path)
    assert len(found.images) + sum(found.left_out.values()) == 8
    assert {"1.jpg", "2.JFIF"} <= set(found.images)
    assert found.left_out[".cr2"] == found.left_out["without a suffix"] == 1
    assert found.left_out["other files"] == found.left_out[".csv"] == 1


@pytest.mark.parametrize("with_pillow", [True, False])
def test_tiff_is_an_image_where_pillow_is_there(with_pillow, tmp_path, monkeypatch):
    monkeypatch.setattr(image_suffixes, "pillow_reads", lambda name: with_pillow and name == "TIFF")
    touch(tmp_path, "a/1.jpg", "a/2.tif", "a/3.TIFF", "a/4.avif")
    found = scan_files(tmp_path)
    assert len(found.images) == (3 if with_pillow else 1)
    assert found.left_out == ({".avif": 1} if with_pillow else {".tif": 1, ".tiff": 1, ".avif": 1})
    assert (".tif" in image_suffixes.readable_suffixes()) == with_pillow


def test_a_folder_whose_name_is_not_utf8_is_named_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"caf\\xe9' does not exist"):
        scan_files(tmp_path / os.fsdecode(b"caf\xe9"))
