"""Tests that files are replaced as a whole, even on a full disk."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from efficientnetv2.runtime.atomic_write import (
    WriteError,
    append_line,
    copy_as_next_version,
    draft_of,
    remove_all_drafts,
    replace_text,
)

Limit = Callable[[int], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_text_takes_the_place_of_another(tmp_path: pathlib.Path, old: str | None) -> None:
    path = tmp_path / "a.json"
    if old is not None:
        path.write_text(old)
    replace_text(path, "Übermut\n")
    assert path.read_bytes() == "Übermut\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_text_that_does_not_fit_leaves_the_old_one(
    tmp_path: pathlib.Path, old: str | None, files_no_larger_than: Limit
) -> None:
    path = tmp_path / "a.json"
    if old is not None:
        path.write_text(old)
    with files_no_larger_than(1000):
        replace_text(path.with_name("b"), "x" * 1000)
        with pytest.raises(WriteError, match=r"^cannot write '.*a\.json': File too large$"):
            replace_text(path, "x" * 1001)
    assert (path.read_text() if path.exists() else None) == old
    assert {file.name for file in tmp_path.iterdir()} <= {"a.json", "b"}


def test_lines_are_added_until_the_disk_is_full(
    tmp_path: pathlib.Path, files_no_larger_than: Limit
) -> None:
    path = tmp_path / "a.jsonl"
    with files_no_larger_than(10):
        append_line(path, "one")
        append_line(path, "two")
        with pytest.raises(WriteError, match=r"cannot write '.*a\.jsonl': File too large"):
            append_line(path, "three")
    assert path.read_text() == "one\ntwo\nth"


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
    for write in (replace_text, append_line):
        with pytest.raises(WriteError, match=r"'.*nowhere/a': No such file or directory"):
            write(tmp_path / "nowhere" / "a", "x")


@pytest.mark.parametrize("name", ["a", "a" * 255, "ü" * 127, "model.weights.h5"])
def test_a_draft_has_a_name_that_the_file_system_takes(tmp_path: pathlib.Path, name: str) -> None:
    with draft_of(tmp_path / name) as draft:
        draft.write_text("new")
        assert draft.name.endswith(name[-16:]) and draft.name.startswith(".efficientnetv2-")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("is_folder", [False, True])
def test_many_writers_of_one_path_all_succeed(tmp_path: pathlib.Path, is_folder: bool) -> None:
    path, failures, start = tmp_path / "a", [], threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        try:
            for _ in range(20):
                with draft_of(path) as draft:
                    if is_folder:
                        draft.mkdir()
                    (draft / "b" if is_folder else draft).write_text(str(number) * 1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and list(tmp_path.iterdir()) == [path]
    text = (path / "b" if is_folder else path).read_text()
    assert text == text[0] * 1000


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_folder_stays_as_it_was_if_its_successor_fails(
    tmp_path: pathlib.Path, error: BaseException
) -> None:
    old = tmp_path / "a" / "old"
    old.parent.mkdir()
    old.write_text("old")
    with pytest.raises((WriteError, KeyboardInterrupt)), draft_of(old.parent) as draft:
        draft.mkdir()
        raise error
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old.parent]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(WriteError, match="Is a directory"):
        replace_text(tmp_path / "a", "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_only_drafts_of_processes_that_are_gone_are_removed(tmp_path: pathlib.Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    young, left = f".efficientnetv2-{gone.pid}-0-a", f".efficientnetv2-{gone.pid}-1-b"
    of_others = ["a.tmp", ".efficientnetv2-a", ".efficientnetv2", "b"]
    running = f".efficientnetv2-{os.getpid()}-0-a"
    for name in [*of_others, young, left, running]:
        (tmp_path / name).write_text("x")
    for name in [*of_others, left, running]:
        os.utime(tmp_path / name, (0, 0))
    replace_text(tmp_path / "b", "y")
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {*of_others, young, running}  # the young one may be another machine's
    remove_all_drafts(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(of_others)
    remove_all_drafts(tmp_path / "nowhere")


FILES = {"saved_model.pb": "x" * 1000, "variables/variables.index": "y", "assets/labels.txt": "z"}


@pytest.fixture
def saved_model(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "saved"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def versions(folder: pathlib.Path) -> list[str]:
    """What a server sees: the folders whose names are numbers; each must be complete."""
    found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.exists() else []
    for path in found:
        assert {name: (path / name).read_text() for name in FILES} == FILES
    return sorted((path.name for path in found), key=int)


def test_versions_are_counted(tmp_path: pathlib.Path, saved_model: pathlib.Path) -> None:
    folder = tmp_path / "models" / "photos"
    assert [copy_as_next_version(saved_model, folder).name for _ in range(2)] == ["1", "2"]
    (folder / "2").rename(folder / "00000009")
    (folder / "12.old").mkdir()
    assert copy_as_next_version(saved_model, folder) == folder / "10"
    assert versions(folder) == ["1", "00000009", "10"]


def test_a_server_never_sees_half_a_version(
    tmp_path: pathlib.Path, saved_model: pathlib.Path, killer
) -> None:
    folder = tmp_path / "photos"
    seen = []
    for touch in range(100):
        if killer.survives(lambda: copy_as_next_version(saved_model, folder), touch=touch):
            break
        seen.append(versions(folder))
    assert touch > 10 and seen[0] == [] and seen[-1] == ["1"]
    drafts = [path.name for path in folder.iterdir() if not path.name.isdecimal()]
    assert drafts and all(name.startswith(".") for name in drafts)


def test_several_exports_at_once_get_their_own_numbers(
    tmp_path: pathlib.Path, saved_model: pathlib.Path
) -> None:
    folder, start = tmp_path / "photos", threading.Barrier(6)

    def copy() -> None:
        start.wait()
        for _ in range(5):
            copy_as_next_version(saved_model, folder)

    threads = [threading.Thread(target=copy) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions(folder) == [str(number) for number in range(1, 31)]
    assert len(list(folder.iterdir())) == 30


def test_a_version_that_does_not_fit_leaves_nothing(
    tmp_path: pathlib.Path, saved_model: pathlib.Path, files_no_larger_than: Limit
) -> None:
    with files_no_larger_than(500), pytest.raises(WriteError, match="cannot write"):
        copy_as_next_version(saved_model, tmp_path / "photos")
    assert list((tmp_path / "photos").iterdir()) == []
