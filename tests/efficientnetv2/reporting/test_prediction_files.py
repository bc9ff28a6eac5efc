"""Tests that files of predictions and features are read back as they were written."""

import csv
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from efficientnetv2.data.sources.image_list import ImageList
from efficientnetv2.evaluation.image_prediction import Prediction, UnreadableImage
from efficientnetv2.reporting import prediction_files
from efficientnetv2.reporting.prediction_files import (
    predictions_to_frame,
    require_writable,
    show_predictions,
    write_features,
)
from efficientnetv2.reporting.prediction_journal import PredictionJournal
from efficientnetv2.reporting.row_layout import ClassRows, LabelRows, NumberRows, Row
from efficientnetv2.runtime.atomic_write import WriteError
from hparams.errors import UserError

LAYOUT = ClassRows(["a", "b"], 2)
ROWS = [
    Row("photos/ä,b.png", [("crane (bird)", 0.75), ('a "quoted", name', 1 / 3)]),
    Row("photos/c.png", [("daisy", 1.0), ("空", 0.0)]),
    Row("=c.png", [("-daisy\n", 1e-30), ("b", 5e-324)]),
]


def write(rows, path, *, part=2, layout=LAYOUT):
    """Writes rows as a command does: a part at a time."""
    images = ImageList.of([row.image for row in rows])
    journal = PredictionJournal(path, images, {}, layout=layout)
    for start in range(0, len(rows), part):
        journal.add(rows[start : start + part])
    journal.finish(path, None)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_csv(tmp_path):
    write(ROWS, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        first, second, third = csv.DictReader(file)
    assert first["image"] == "photos/ä,b.png"
    assert (first["class_2"], float(first["probability_2"])) == ('a "quoted", name', 1 / 3)
    assert (second["class_1"], second["class_2"]) == ("daisy", "空")
    assert (third["image"], third["class_1"]) == ("'=c.png", "'-daisy\n")  # no formulas


def test_json_and_json_lines(tmp_path):
    (tmp_path / "lines").mkdir()
    (tmp_path / "array").mkdir()
    write(ROWS, tmp_path / "array" / "all.json")
    write(ROWS, tmp_path / "lines" / "all.jsonl")
    text = (tmp_path / "array" / "all.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert text == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    lines = (tmp_path / "lines" / "all.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == content and lines[-1] == ""
    assert [entry["image"] for entry in content] == [row.image for row in ROWS]
    assert content[0]["classes"][1] == {"name": 'a "quoted", name', "probability": 1 / 3}


def test_parquet(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(prediction_files, "_CHUNK", 2)
    write(ROWS, tmp_path / "all.parquet")
    columns = parquet.read_table(tmp_path / "all.parquet").to_pydict()
    assert columns["image"] == [row.image for row in ROWS]
    assert columns["class_2"] == ['a "quoted", name', "空", "b"]
    assert columns["probability_2"] == [1 / 3, 0.0, 5e-324]
    assert parquet.ParquetFile(tmp_path / "all.parquet").num_row_groups == 2


NONE = {"csv": "image,class_1,probability_1,class_2,probability_2\n", "json": "[]\n", "jsonl": ""}


@pytest.mark.parametrize(("suffix", "content"), NONE.items())
def test_no_rows_are_a_file_too(tmp_path, suffix, content):
    write([], tmp_path / f"all.{suffix}")
    assert (tmp_path / f"all.{suffix}").read_text() == content


def test_no_rows_are_a_parquet_file_too(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write([], tmp_path / "all.parquet")
    read = parquet.read_table(tmp_path / "all.parquet")
    assert read.num_rows == 0
    assert read.column_names == NONE["csv"].strip().split(",")


def test_features(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_files, "_CHUNK", 2)
    features = np.arange(9, dtype=np.float32).reshape(3, 3)
    features.tofile(tmp_path / "raw")
    names, path = ["a.png", "ä.png", "longer.png"], tmp_path / "new" / "features.npz"
    write_features(lambda: iter(names), tmp_path / "raw", path, shape=(3, 3))
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["images"].tolist() == names
        np.testing.assert_array_equal(arrays["features"], features)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["features.npz"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all.txt", "--output must end in .csv, .json, .jsonl, .parquet, got"),
        ("all", "--output must end in"),
        ("nowhere/all.csv", "the folder '.*nowhere' does not exist"),
    ],
)
def test_what_cannot_be_written_is_said_before(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        require_writable(tmp_path / name)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_cannot_be_written_is_one_line_and_kept(tmp_path, suffix):
    path = tmp_path / f"all.{suffix}"
    path.mkdir()
    images = ImageList.of([row.image for row in ROWS])
    journal = PredictionJournal(path, images, {}, layout=LAYOUT)
    journal.add(ROWS)
    with pytest.raises(WriteError, match="cannot write"):
        journal.finish(path, None)
    journal.close()
    path.rmdir()
    again = PredictionJournal(path, images, {}, layout=LAYOUT)
    assert again.tally.rows == ROWS
    again.finish(path, None)
    write(ROWS, (tmp_path / "other").mkdir() or tmp_path / "other" / path.name)
    assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_the_screen_gets_the_first_rows_and_a_count(capsys):
    show_predictions(ROWS[:2], 2, layout=LAYOUT, is_written=False)
    assert capsys.readouterr().out.splitlines() == [
        "image                            1                       2",
        'photos/ä,b.png  crane (bird) 75.0%  a "quoted", name 33.3%',
        "photos/c.png          daisy 100.0%                  空 0.0%",
    ]
    show_predictions(ROWS[:2], 1_000_000, layout=LAYOUT, is_written=False)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "... and 999,998 more; --output=all.csv writes all"
    )


PREDICTIONS = [
    Prediction(pathlib.Path("a/1.png"), ["cat", "dog"], np.array([0.25, 0.75], np.float32)),
    UnreadableImage(pathlib.Path("2.png"), "'2.png' is empty"),
    Prediction(pathlib.Path("3.png"), ["cat", "dog"], np.array([0.5, 0.5], np.float32)),
]


def test_a_frame_has_the_columns_of_a_csv_file():
    pytest.importorskip("pandas")
    frame = predictions_to_frame(PREDICTIONS)
    assert list(frame.columns) == NONE["csv"].strip().split(",")
    assert frame["image"].tolist() == ["a/1.png", "2.png", "3.png"]
    assert frame["class_1"].tolist()[::2] == ["dog", "cat"]
    assert frame["probability_2"].tolist()[::2] == [0.25, 0.5] and frame.isna().sum().sum() == 4
    assert list(predictions_to_frame(iter(PREDICTIONS), top_k=1).columns) == [
        "image",
        "class_1",
        "probability_1",
    ]
    assert predictions_to_frame([]).columns.tolist() == ["image"]


def test_a_frame_needs_pandas(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package pandas: pip install pandas"):
        predictions_to_frame(PREDICTIONS)


def test_a_prediction_shows_its_best_classes():
    prediction = Prediction(
        pathlib.Path("a.png"), list("abcde"), np.array([0.1, 0.2, 0.4, 0.1, 0.2], np.float32)
    )
    assert repr(prediction) == "Prediction('a.png', c 40.0%, b 20.0%, e 20.0%, ...)"
    assert prediction.class_name == "c"
    assert [name for name, _ in prediction.top()] == list("cbead")


def read_all(rows, folder, layout):
    """Returns rows as they are read from CSV, JSON lines and Parquet."""
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in (".csv", ".jsonl", ".parquet"):
        (folder / suffix).mkdir()
        write(rows, folder / suffix / f"all{suffix}", layout=layout)
    with (folder / ".csv" / "all.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    lines = (folder / ".jsonl" / "all.jsonl").read_text(encoding="utf-8").splitlines()
    table = parquet.read_table(folder / ".parquet" / "all.parquet").to_pylist()
    return cells, [json.loads(line) for line in lines], table


def test_several_classes_are_one_cell(tmp_path, capsys):
    values = [[("cat", 0.9), ("dog", 0.5)], [], [("dog", 1.0)]]
    rows = [Row(f"{number}.png", row) for number, row in enumerate(values, start=1)]
    layout = LabelRows(["cat", "dog"], 2)
    cells, entries, table = read_all(rows, tmp_path, layout)
    assert [row["labels"] for row in cells] == ["cat|dog", "", "dog"]
    assert [row["probabilities"] for row in cells] == ["0.9|0.5", "", "1.0"]
    assert [layout.row_of(entry) for entry in entries] == rows
    assert [(row["labels"], row["probabilities"]) for row in table] == [
        (row["labels"], row["probabilities"]) for row in cells
    ]
    show_predictions(rows, 3, layout=layout, is_written=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["image", "labels"]
    assert lines[1:3] == [["1.png", "cat", "90.0%,", "dog", "50.0%"], ["2.png", "none"]]


def test_numbers_are_a_column_each(tmp_path, capsys):
    values = [[("age", -1.5), ("depth", 1e-7)], [("age", 2.0), ("depth", 3.0)]]
    rows = [Row(f"{number}.png", row) for number, row in enumerate(values, start=1)]
    layout = NumberRows(["age", "depth"], 2)
    cells, entries, table = read_all(rows, tmp_path, layout)
    assert [(float(row["age"]), float(row["depth"])) for row in cells] == [(-1.5, 1e-7), (2, 3)]
    assert entries[0] == {"image": "1.png", "numbers": {"age": -1.5, "depth": 1e-7}}
    assert [layout.row_of(entry) for entry in entries] == rows
    assert table[0] == {"image": "1.png", "age": -1.5, "depth": 1e-7}
    show_predictions(rows, 2, layout=layout, is_written=True)
    assert capsys.readouterr().out.splitlines()[0].split() == ["image", "age", "depth"]


@pytest.mark.parametrize("kind", [ClassRows, LabelRows])
def test_answers_are_a_column(tmp_path, capsys, kind):
    classes = [[("cat", 0.9), ("dog", 0.1)], [("dog", 0.6), ("cat", 0.4)]]
    rows = [Row("1.png", classes[0], "cat"), Row("2.png", classes[1], "unknown")]
    layout = kind(["cat", "dog"], 2, with_answer=True)
    cells, entries, table = read_all(rows, tmp_path, layout)
    for found in (cells, entries, table):
        assert [row["answer"] for row in found] == ["cat", "unknown"]
    assert [layout.row_of(entry) for entry in entries] == rows
    assert entries[1]["classes"][0] == {"name": "dog", "probability": 0.6}  # as without answers
    plain = kind(["cat", "dog"], 2)
    assert layout.columns == ["image", "answer", *plain.columns[1:]]
    assert layout.cells(rows[1])[2:] == plain.cells(rows[1])[1:]
    show_predictions(rows, 2, layout=layout, is_written=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines[:3]] == ["answer", "cat", "unknown"]
