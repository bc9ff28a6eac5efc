"""Lists of images: how they are read, kept in little memory, and shared out to shards."""

import io
import os
import pathlib
import sys
import tracemalloc

import pytest

from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.data.sources.image_list import ImageList, read_image_list
from hparams.errors import UserError


def names(images):
    return [images.name(index) for index in range(len(images))]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 64])
def test_shards_share_out_all_images_evenly(count):
    paths = [f"photos/{number}.png" for number in range(10)]
    shards = []
    for number in range(1, count + 1):
        shard = ImageList(shard=(number, count))
        for path in paths:
            shard.add(path)
        assert names(shard) == [path for k, path in enumerate(paths) if k % count + 1 == number]
        assert [paths[shard.number(index) - 1] for index in range(len(shard))] == names(shard)
        assert shard.total == 10
        shards.append(names(shard))
    assert sorted(path for shard in shards for path in shard) == paths
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_paths_are_kept_as_they_are():
    paths = ["./a b.png", "ä//é.png", "", "a", "a"]
    images = ImageList.of(paths)
    assert names(images) == paths
    assert list(images) == [pathlib.Path(path) for path in paths]
    assert images[1:3] == [pathlib.Path("ä/é.png"), pathlib.Path()]
    assert images[-1] == pathlib.Path("a") and images.place(0) == ""
    with pytest.raises(IndexError):
        images[5]


def test_a_path_takes_little_more_than_its_letters():
    tracemalloc.start()
    images = ImageList()
    for number in range(50_000):
        images.add(f"photos/a folder of some class/{number:012}.jpeg")
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(images) == 50_000
    assert used / len(images) < (len(images.name(0)) + 8) * 1.2  # both grow by an eighth at a time


LISTS = {
    b"a.png\nb c.png\n": ["a.png", "b c.png"],
    b"a.png\r\n\r\n  \n b.png \r\nc.png": ["a.png", " b.png ", "c.png"],
    b"\xef\xbb\xbfa.png\na.png\n": ["a.png", "a.png"],
    "é.png\n空.png\n".encode(): ["é.png", "空.png"],
    "é.png\r\nb.png\r\n".encode("utf-16"): ["é.png", "b.png"],
    b"a.png\0b\r.png\0"[:6] + b"b.png\0": ["a.png", "b.png"],
    b"./a.png\n/b/../a.png\n#.png\n": ["./a.png", "/b/../a.png", "#.png"],
}


@pytest.mark.parametrize(("encoded", "expected"), LISTS.items())
def test_a_list_is_read(encoded, expected):
    assert names(read_image_list(encoded, origin="a list")) == expected


def test_a_place_is_the_line_of_the_list():
    encoded = b"a.png\n\nb.png\r\nc.png\n"
    images = read_image_list(encoded, origin="'l.txt'")
    assert [images.place(k) for k in range(3)] == [f"'l.txt' line {n}: " for n in (1, 3, 4)]
    (second,) = [read_image_list(encoded, origin="'l.txt'", shard=(2, 3))]
    assert (names(second), second.place(0)) == (["b.png"], "'l.txt' line 3: ")


BAD = {
    b"a.png\ncaf\xe9.png\n": r"a list line 2: 'caf\\xe9.png' is not the path of an image",
    b"a.png\rb.png\r": r"a list line 1: 'a.png\\rb.png' is not the path",
    b"a.png\0b\n.png\0": r"a list line 2: 'b\\n.png' is not the path",
    b"\x89PNG\r\n\x1a\n\x00\x00": r"a list line 1: '\\x89PNG",
    b"\n \r\n": "a list names no image",
    b"": "a list names no image",
}


@pytest.mark.parametrize(("encoded", "message"), BAD.items())
def test_what_is_no_path_is_named(encoded, message):
    for shard in ((1, 1), (2, 2)):  # whoever has the other part sees it, too
        with pytest.raises(UserError, match=message) as caught:
            read_image_list(encoded, origin="a list", shard=shard)
        assert str(caught.value).isprintable()


def test_a_list_is_relative_to_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "photos/2.png"):
        (tmp_path / name).touch()
    (tmp_path / "photos" / "all.txt").write_text("photos/2.png\n1.png\ngone.png\n")
    monkeypatch.chdir(tmp_path)
    images = find_images(pathlib.Path("photos/all.txt"))
    assert names(images) == ["photos/2.png", "1.png", "gone.png"]
    assert images.place(2) == "'photos/all.txt' line 3: "
    (tmp_path / "photos" / "wrong.TXT").write_text("2.png\n")
    with pytest.raises(UserError, match=r"'2.png' is not there but in .* go to 'photos' first"):
        find_images(pathlib.Path("photos/wrong.TXT"))


def test_a_list_comes_from_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b.png\0a\xc3\xa4.png\0")))
    images = find_images(pathlib.Path("-"), shard=(2, 2))
    assert (names(images), images.place(0)) == (["aä.png"], "standard input line 2: ")
    with pytest.raises(UserError, match="standard input names no image"):
        find_images(pathlib.Path("-"))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="nothing is piped into standard input"):
        find_images(pathlib.Path("-"))


def test_a_terminal_is_no_list(monkeypatch):
    leader, follower = os.openpty()
    with os.fdopen(leader, "wb"), os.fdopen(follower) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(UserError, match=r"find photos -name '\*.jpg' \| efficientnetv2"):
            find_images(pathlib.Path("-"))


def test_the_files_of_a_folder_stay_together(tmp_path):
    files = ["a/1.png", "a/b/2.png", "a-/3.png", "a.png", "a b/4.png", "ä/5.png", "A/6.png"]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).touch()
    expected = sorted(tmp_path / file for file in files)
    assert list(find_images(tmp_path)) == expected
    assert list(find_images(tmp_path / "**" / "*.png")) == expected
    first, second = (list(find_images(tmp_path, shard=(number, 2))) for number in (1, 2))
    assert (first, second) == (expected[::2], expected[1::2])


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "two\nlines.jpg"])
def test_paths_that_no_list_of_predictions_can_hold(name):
    with pytest.raises(UserError, match=r"is not the path of an image: it must be UTF-8 without"):
        ImageList.of([name])
