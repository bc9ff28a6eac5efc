"""Tests that predictions survive a kill and are used by the same command only."""

import errno

import numpy as np
import pytest

from efficientnetv2.data.sources.image_list import ImageList
from efficientnetv2.reporting.prediction_journal import PredictionJournal, weights_checksum
from efficientnetv2.reporting.row_layout import ClassRows, Row
from hparams import UserError

SETTINGS = {"weights": "ab", "top_k": 2}
REASON = "it is broken"

LAYOUT = ClassRows(["a", "b"], 2)


@pytest.fixture
def images(tmp_path):
    """Six image files; the third cannot be read."""
    files = [tmp_path / f"ü {number}.png" for number in range(6)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (number + 1))
    return ImageList.of(files)


@pytest.fixture
def opened(tmp_path, images):
    """Opens a journal of the images, and closes it after the test."""
    journals = []

    def opened(settings=SETTINGS, images=images, name="a.csv"):
        path = tmp_path / "deeper" / name
        journals.append(PredictionJournal(path, images, settings, layout=LAYOUT))
        return journals[-1]

    yield opened
    for journal in journals:
        journal.close()


def row(images, index):
    return Row(images.name(index), [("cat", 0.1 + index), ("dog", 1 / 3)], "cat")


def add(journal, images, *, until):
    """Adds parts of two images, up to a number of images."""
    for start in range(journal.tally.images, until, 2):
        part = [REASON if n == 2 else row(images, n) for n in (start, start + 1)]
        features = [np.array([n, 1 / 3], np.float32) for n in (start, start + 1) if n != 2]
        journal.add(part, features)


def whole(opened, images, folder, name):
    """Returns what an unbroken command writes, as bytes."""
    journal = opened(name=name)
    assert journal.tally.images == 0
    add(journal, images, until=6)
    return finished(journal, folder / name)


def finished(journal, path):
    journal.finish(path, path.with_suffix(".npz"))
    content = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.stem}.npz"}
    path.unlink()
    path.with_suffix(".npz").unlink()
    return content


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("damage", [b"", b'{"image": "half', b"[]\n", b"no json\n", b'{"a": 1}\n'])
def test_the_same_command_goes_on(name, damage, opened, images, tmp_path):
    folder = tmp_path / "deeper"
    expected = whole(opened, images, folder, name)
    first = opened(name=name)
    add(first, images, until=4)
    first.close()
    for ending in ("state", "partial", "features"):  # a killed process did not finish them
        with (folder / f".{name}.{ending}").open("ab") as file:
            file.write(damage)
    second = opened(name=name)
    assert (second.tally.images, second.tally.predictions) == (4, 3)
    assert second.tally.unreadable == [(2, REASON)]
    assert second.tally.rows == [row(images, n) for n in (0, 1, 3)] == first.tally.rows
    add(second, images, until=6)
    assert finished(second, folder / name) == expected


@pytest.mark.parametrize("ending", ["state", "partial", "features"])
@pytest.mark.parametrize("length", [0, 30, -1])
def test_a_part_that_is_not_whole_is_made_anew(ending, length, opened, images, tmp_path):
    folder = tmp_path / "deeper"
    expected = whole(opened, images, folder, "a.csv")
    first = opened()
    add(first, images, until=6)
    first.close()
    file = folder / f".a.csv.{ending}"
    file.write_bytes(file.read_bytes()[:length])
    second = opened()
    # 30 bytes of features are those of the first three images; the part of the third has another.
    done = {-1: 4, 30: 4 if ending == "features" else 0, 0: 0}[length]
    assert second.tally.images == done
    add(second, images, until=6)
    assert finished(second, folder / "a.csv") == expected


def test_a_changed_byte_is_seen(opened, images, tmp_path):
    first = opened()
    add(first, images, until=6)
    first.close()
    file = tmp_path / "deeper" / ".a.csv.partial"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert opened().tally.images == 4


@pytest.mark.parametrize("settings", [{**SETTINGS, "top_k": 3}, {**SETTINGS, "weights": "ac"}, {}])
def test_other_settings_begin_anew(settings, opened, images):
    first = opened()
    add(first, images, until=4)
    first.close()
    second = opened(settings)
    assert (second.tally.images, second.tally.rows) == (0, [])
    second.close()
    assert opened().tally.images == 0


def test_what_comes_behind_a_change_is_made_anew(opened, images, tmp_path):
    first = opened()
    add(first, images, until=6)
    first.close()
    longer = ImageList.of([*images, tmp_path / "new.png"])
    second = opened(images=longer)  # an image at the end changes nothing
    assert second.tally.images == 6
    second.close()
    images[3].write_bytes(b"other")
    third = opened()
    assert third.tally.images == 2
    add(third, images, until=6)
    third.close()
    assert opened(images=ImageList.of([images[0], *images])).tally.images == 0


def test_an_image_that_comes_back_is_read(opened, images):
    images[2].unlink()
    first = opened()
    add(first, images, until=6)
    first.close()
    images[2].write_bytes(b"new")
    assert opened().tally.images == 2


def test_an_image_counts_as_often_as_it_is_listed(opened, images, tmp_path):
    twice = ImageList.of([images.name(0)] * 4)
    journal = opened(images=twice)
    add(journal, twice, until=2)
    journal.add([row(twice, 2), row(twice, 3)], [np.zeros(2, np.float32)] * 2)
    text, _ = finished(journal, tmp_path / "deeper" / "a.csv")
    assert text.count(twice.name(0).encode()) == 4


def test_memory_does_not_grow_with_the_images(opened, images):
    many = ImageList.of([images.name(0)] * 1000)
    journal = opened(images=many)
    journal.add([row(many, index) for index in range(1000)])
    assert len(journal.tally.rows) == 200 and journal.tally.predictions == 1000
    journal.close()
    assert opened(images=many).tally == journal.tally


def test_two_processes_do_not_mix(opened, images):
    first = opened()
    with pytest.raises(UserError, match=r"another process is predicting into '.*a\.csv\.partial'"):
        opened()
    add(first, images, until=2)
    first.close()
    assert opened().tally.images == 2


def test_a_file_system_without_locks_is_a_warning(opened, images, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    add(opened(), images, until=2)
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_other_weights_have_another_checksum():
    ones = [np.ones([2, 3], np.float32), np.ones([1])]
    assert weights_checksum(ones) == weights_checksum([array.copy() for array in ones])
    assert weights_checksum(ones) != weights_checksum([2 * ones[0], ones[1]])
