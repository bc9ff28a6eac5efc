"""Tests that files are replaced as a whole, even on a full disk."""

from __future__ import annotations

import contextlib
import pathlib
import resource
from collections.abc import Iterator

import pytest

from efficientnetv2.runtime.atomic_write import WriteError, append_line, replace_text


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
    tmp_path: pathlib.Path, old: str | None
) -> None:
    path = tmp_path / "a.json"
    if old is not None:
        path.write_text(old)
    with files_no_larger_than(1000):
        replace_text(path.with_name("b"), "x" * 1000)
        with pytest.raises(
            WriteError, match=r"^cannot write '.*a\.json': File too large; everything saved"
        ):
            replace_text(path, "x" * 1001)
    assert (path.read_text() if path.exists() else None) == old
    assert not list(tmp_path.glob("*.tmp"))


def test_lines_are_added_until_the_disk_is_full(tmp_path: pathlib.Path) -> None:
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
