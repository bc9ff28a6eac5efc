"""Tests which weights ``best_weights`` reads as the best of a run."""

from __future__ import annotations

import json
import pathlib

import pytest

from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.runtime.best_weights import BestWeights, best_weights
from efficientnetv2.runtime.run_directory import RunDirectory, RunError


def run_with(folder: pathlib.Path, record: str) -> RunDirectory:
    run = RunDirectory(folder)
    checkpoint_store.write(run.best, 10, lambda prefix: pathlib.Path(f"{prefix}.index").touch())
    (run.best / "best.json").write_text(record)
    return run


@pytest.mark.parametrize(
    ("top1", "is_average"),
    [({"raw": 0.7, "ema": 0.6}, False), ({"raw": 0.5, "ema": 0.5}, True), ({"raw": 0.1}, False)],
)
def test_the_better_of_raw_and_averaged_weights(
    tmp_path: pathlib.Path, top1: dict, is_average: bool
) -> None:
    run = run_with(tmp_path, json.dumps({"step": 10, "top1": top1}))
    expected = BestWeights(str(run.best / "ckpt-10"), 10, is_average)
    assert best_weights(run) == expected
    run = run_with(tmp_path, json.dumps({"step": 10, "metric": "r2", "r2": top1}))
    assert best_weights(run) == expected


def test_a_run_without_validation_has_no_best_ones(tmp_path: pathlib.Path) -> None:
    assert best_weights(RunDirectory(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 10}', '{"step": 10, "top1": {}}'])
def test_a_note_that_says_nothing(tmp_path: pathlib.Path, text: str) -> None:
    assert best_weights(run_with(tmp_path, text)) is None


def test_a_damaged_one_is_named(tmp_path: pathlib.Path) -> None:
    run = run_with(tmp_path, '{"step": 10, "top1": {"raw": 0.5}}')
    (run.best / "ckpt-10.index").write_text("changed")
    with pytest.raises(RunError, match=r"ckpt-10', the best of the run, is damaged or missing"):
        best_weights(run)


def test_a_training_that_replaces_them_meanwhile(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between best.json and the checkpoint that it names, a training may write better ones."""
    run = run_with(tmp_path, '{"step": 10, "top1": {"raw": 0.5}}')

    def is_whole(checkpoint: str) -> bool:
        if checkpoint.endswith("ckpt-10"):  # just after best.json was read
            checkpoint_store.write(run.best, 20, lambda p: pathlib.Path(f"{p}.index").touch())
            (run.best / "best.json").write_text('{"step": 20, "top1": {"raw": 0.6}}')
            checkpoint_store.keep_only(run.best, 20)
        return checkpoint_store.is_whole(checkpoint)

    monkeypatch.setattr("efficientnetv2.runtime.best_weights.is_whole", is_whole)
    assert best_weights(run) == BestWeights(str(run.best / "ckpt-20"), 20, False)
