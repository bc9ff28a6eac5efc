"""Tests the report of a search: best trial, Pareto front, lines, table, files and picture."""

import csv

import matplotlib.image
import pytest
import yaml

from efficientnetv2.reporting.search_report import (
    best_row,
    best_table,
    draw_search,
    pareto,
    trial_line,
    write_best,
)
from efficientnetv2.reporting.tables import write_csv

BACKBONE = {"accuracy": 0.8, "seconds": 0.1, "spread": 0.02, "parameters": 2_000_000}


def row(trial, accuracy, seconds, *, state="complete", **more):
    return {
        "trial": trial,
        "state": state,
        "reward": accuracy,
        "accuracy": accuracy,
        "step_seconds": seconds,
        "step_spread": 0.05,
        "relative_time": seconds and seconds / 0.1,
        "parameters": 1_500_000,
        "epochs": 10,
        "same_as": None,
        "network": "F3e4r2 M3e6r1",
        "error": None,
        **more,
    }


ROWS = [
    row(0, 0.7, 0.05),
    row(1, 0.9, 0.2),
    row(2, 0.95, 0.1, state="pruned", epochs=3),
    row(3, None, None, state="fail", error="out of memory"),
    row(4, 0.7, 0.05, same_as=0),
]


def test_only_a_trial_that_came_to_its_end_is_best():
    assert best_row(ROWS)["trial"] == 1
    assert best_row(ROWS[2:4]) is None


def test_the_front_by_hand():
    points = [(3, 0.7), (1, 0.5), (2, 0.6), (2, 0.65), (4, 0.7), (5, 0.9), (1, 0.4)]
    assert pareto(points) == [(1, 0.5), (2, 0.65), (3, 0.7), (5, 0.9)]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, "5/5  trial 1  accuracy 0.9000  200.0 ms (x 2.00)  1.50 M  reward 0.9000"),
        (2, "reward 0.9500  ended after 3 epochs"),
        (3, "5/5  trial 3  failed: out of memory"),
        (4, "reward 0.7000  same as trial 0"),
    ],
)
def test_a_line_a_trial_and_the_best(number, line):
    text = trial_line(ROWS, number, of=5)
    assert line in text and text.endswith("  best 0.9000 (trial 1)")


def test_the_table_ranks_and_counts():
    lines = best_table(ROWS, BACKBONE, count=2, metric="top-1").splitlines()
    assert [line.split()[0] for line in lines] == ["trial", "1", "0", "backbone", "5"]
    cells = " ".join(lines[1].split())
    assert cells == "1 0.9000 0.9000 200.0 5% 2.00 1.500 F3e4r2 M3e6r1"
    assert lines[-1] == "5 trials: 3 complete, 1 pruned, 1 fail"


def test_files(tmp_path):
    write_csv(ROWS, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [line["trial"] for line in read] == list("01234")
    assert (read[3]["error"], read[3]["reward"]) == ("out of memory", "")
    network = {"model.blocks_args": ["r1_k3_s1_e1_i8_o8"]}
    write_best(network, ROWS[1], tmp_path / "best.yaml", metric="PR AUC")
    text = (tmp_path / "best.yaml").read_text()
    assert yaml.safe_load(text) == {"model.blocks_args": ["r1_k3_s1_e1_i8_o8"]}
    assert text.startswith("# trial 1: F3e4r2 M3e6r1\n# reward 0.9000, minival PR AUC 0.9000")


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["all", "one"])
def test_the_picture_marks_the_best(rows, tmp_path):
    draw_search(rows, BACKBONE, tmp_path / "search.png", title="Search", metric="top-1")
    pixels = matplotlib.image.imread(tmp_path / "search.png")[..., :3]
    orange = abs(pixels - [0xD1 / 255, 0x79 / 255, 0x1F / 255]).max(axis=-1) < 0.02
    assert orange.sum() > 100  # the star, and the line of the best so far
    assert [path.name for path in tmp_path.iterdir()] == ["search.png"]
