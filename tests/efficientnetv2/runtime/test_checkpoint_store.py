"""Tests that checkpoints survive a kill at any moment, and that damage is always noticed."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest

from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.run_directory import RunDirectory, RunError

KINDS = ("index", "data-00000-of-00001", "sha256")


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def content(text: str) -> Callable[[str], None]:
    """Returns a writer of files that look like a checkpoint with ``text`` in it."""

    def write_files(prefix: str) -> None:
        for kind in KINDS[:2]:
            pathlib.Path(f"{prefix}.{kind}").write_text(f"{kind} {text} " * 1000)

    return write_files


def save(run: RunDirectory, step: int, text: str, *, keep: int = 9) -> None:
    checkpoint_store.write(run.checkpoints, step, content(text))
    checkpoint_store.prune(run.checkpoints, newest=step, keep=keep)


def text_of(prefix: str | None) -> str | None:
    if prefix is None:
        return None
    texts = {pathlib.Path(f"{prefix}.{kind}").read_text().split(" ")[1] for kind in KINDS[:2]}
    assert len(texts) == 1
    return texts.pop()


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_a_checkpoint_is_three_files_and_a_note(run: RunDirectory) -> None:
    for step in (3, 20, 100):
        save(run, step, "x", keep=2)
    files = [f"ckpt-{step}.{kind}" for step in (20, 100) for kind in KINDS]
    assert names(run) == sorted(["checkpoint", *files])
    assert checkpoint_store.find_checkpoint(run) == str(run.checkpoints / "ckpt-100")
    assert (run.checkpoints / "checkpoint").read_text() == (
        'model_checkpoint_path: "ckpt-100"\n'
        'all_model_checkpoint_paths: "ckpt-20"\nall_model_checkpoint_paths: "ckpt-100"\n'
    )


def test_the_checksums_are_those_of_sha256sum(run: RunDirectory) -> None:
    save(run, 3, "x")
    command = ["sha256sum", "--check", "ckpt-3.sha256"]
    result = subprocess.run(command, cwd=run.checkpoints, capture_output=True, check=False)
    assert (result.returncode, result.stdout.count(b": OK")) == (0, 2)


@pytest.mark.parametrize("is_repaired", [False, True])
@pytest.mark.parametrize("before", [[], [1], [2], [1, 2]])
def test_after_a_kill_at_any_moment_a_whole_checkpoint_is_there(
    before: list[int], is_repaired: bool, run: RunDirectory, killer, capsys
) -> None:
    """Steps in ``before`` are saved, then 2 is written, or written again."""
    texts = set()
    for touches in range(1000):
        for path in sorted(run.path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for step in before:
            save(run, step, f"old{step}")
        ended = killer.survives(lambda: save(run, 2, "new", keep=1), touch=touches)
        if is_repaired:
            checkpoint_store.repair(run.checkpoints)
            assert not list(run.checkpoints.glob("*.tmp"))
        text = text_of(checkpoint_store.find_checkpoint(run))
        allowed = {"new", f"old{before[-1]}" if before else None}
        # Without repair, a checkpoint that was being replaced may be incomplete; an earlier one is
        # not affected.
        assert text in (allowed if is_repaired else allowed | {None, "old1"})
        if 1 in before:
            assert text is not None
        texts.add(text)
        save(run, 2, "again", keep=1)
        assert text_of(checkpoint_store.find_checkpoint(run)) == "again"
        assert names(run) == sorted(["checkpoint", *(f"ckpt-2.{kind}" for kind in KINDS)])
        if ended:
            break
    assert touches > 15 and "new" in texts and len(texts) > 1
    assert capsys.readouterr().err == ""


def flip(path: pathlib.Path) -> None:
    values = bytearray(path.read_bytes())
    values[len(values) // 2] ^= 1
    path.write_bytes(values)


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


DAMAGES = [flip, cut, empty, pathlib.Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_and_the_one_before_is_used(
    damage: Callable[[pathlib.Path], None], kind: str, run: RunDirectory, capsys
) -> None:
    for step in (1, 2, 3):
        save(run, step, "x")
    damage(run.checkpoints / f"ckpt-3.{kind}")
    assert checkpoint_store.find_checkpoint(run) == str(run.checkpoints / "ckpt-2")
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith(
        f"warning: checkpoint '{run.checkpoints / 'ckpt-3'}' is damaged: ckpt"
    )
    assert warning.endswith(f"; using '{run.checkpoints / 'ckpt-2'}' instead\n")
    checkpoint_store.require_usable(run)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("position", [0, 10, 63, 64, 70, -1])
def test_every_part_of_the_checksums_counts(position: int, run: RunDirectory) -> None:
    save(run, 1, "x")
    path = run.checkpoints / "ckpt-1.sha256"
    values = bytearray(path.read_bytes())
    values[position] ^= 4
    path.write_bytes(values)
    assert checkpoint_store.find_damage(run.checkpoints, 1) is not None


def test_checksums_that_lack_a_file_are_found(run: RunDirectory) -> None:
    save(run, 1, "x")
    path = run.checkpoints / "ckpt-1.sha256"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert checkpoint_store.find_damage(run.checkpoints, 1) == "ckpt-1.index has no checksum"


@pytest.mark.parametrize("damage", DAMAGES)
def test_when_all_are_damaged_nothing_begins_anew(
    damage: Callable[[pathlib.Path], None], run: RunDirectory
) -> None:
    for step in (1, 2, 3):
        save(run, step, "x")
        damage(run.checkpoints / f"ckpt-{step}.index")
    message = r"no checkpoint can be used: '.*ckpt-3' is damaged: .*ckpt-2.* \(and 1 more\); resto"
    for find in (
        checkpoint_store.find_checkpoint,
        checkpoint_store.require_usable,
        checkpoint_store.latest_checkpoint,
    ):
        with pytest.raises(RunError, match=message):
            find(run)


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_run_has_no_checkpoint(run: RunDirectory, made: bool) -> None:
    if made:
        run.checkpoints.mkdir()
    checkpoint_store.repair(run.checkpoints)
    assert checkpoint_store.find_checkpoint(run) is None
    with pytest.raises(RunError, match="checkpoints' holds no checkpoint; train first with --mode"):
        checkpoint_store.latest_checkpoint(run)


def test_what_comes_after_the_step_of_now_counts_for_nothing(run: RunDirectory) -> None:
    for step in (1, 2, 9):
        save(run, step, "x")
    flip(run.checkpoints / "ckpt-9.index")
    save(run, 3, "new", keep=1)
    assert checkpoint_store.steps(run.checkpoints) == [3, 9]
    assert text_of(checkpoint_store.find_checkpoint(run)) == "new"


def test_a_writer_that_fails_leaves_what_was_there(run: RunDirectory) -> None:
    save(run, 1, "x")

    def fails(prefix: str) -> None:
        pathlib.Path(f"{prefix}.index").write_text("half")
        raise ValueError

    before = names(run)
    for step in (1, 2):
        with pytest.raises(ValueError):
            checkpoint_store.write(run.checkpoints, step, fails)
    assert names(run) == before
    assert text_of(checkpoint_store.find_checkpoint(run)) == "x"


def test_files_of_another_number_of_parts_do_not_stay(run: RunDirectory) -> None:
    save(run, 1, "x")
    (run.checkpoints / "ckpt-1.data-00000-of-00001").rename(
        run.checkpoints / "ckpt-1.data-00000-of-00002"
    )
    save(run, 1, "new")
    assert names(run) == sorted(["checkpoint", *(f"ckpt-1.{kind}" for kind in KINDS)])
