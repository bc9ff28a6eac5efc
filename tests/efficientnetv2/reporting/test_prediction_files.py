"""Tests that files of predictions and features are read back as they were written."""

import csv
import json

import numpy as np
import pytest

from efficientnetv2.reporting.prediction_files import (
    require_writable,
    write_features,
    write_predictions,
)
from efficientnetv2.runtime.atomic_write import WriteError
from hparams.errors import UserError

ROWS = [
    ("photos/ä,b.png", [("crane (bird)", 0.75), ('a "quoted", name', 1 / 3)]),
    ("photos/c.png", [("daisy", 1.0), ("空", 0.0)]),
]


def test_csv(tmp_path):
    write_predictions(ROWS, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["image"] == "photos/ä,b.png"
    assert (first["class_2"], float(first["probability_2"])) == ('a "quoted", name', 1 / 3)
    assert (second["class_1"], second["class_2"]) == ("daisy", "空")


def test_json(tmp_path):
    write_predictions(ROWS, tmp_path / "all.json")
    content = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [entry["image"] for entry in content] == [image for image, _ in ROWS]
    assert content[0]["classes"][1] == {"name": 'a "quoted", name', "probability": 1 / 3}


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_predictions(ROWS, tmp_path / "all.parquet")
    columns = parquet.read_table(tmp_path / "all.parquet").to_pydict()
    assert columns["image"] == [image for image, _ in ROWS]
    assert columns["class_2"] == ['a "quoted", name', "空"]
    assert columns["probability_2"] == [1 / 3, 0.0]


@pytest.mark.parametrize("name", ["all.csv", "all.json"])
def test_no_rows_are_a_file_too(tmp_path, name):
    write_predictions([], tmp_path / name)
    assert (tmp_path / name).read_text().strip() in ("image", "[]")


def test_features(tmp_path):
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_features(["a.png", "ä.png"], features, tmp_path / "new" / "features.npz")
    with np.load(tmp_path / "new" / "features.npz", allow_pickle=False) as arrays:
        assert arrays["images"].tolist() == ["a.png", "ä.png"]
        np.testing.assert_array_equal(arrays["features"], features)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["features.npz"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all.txt", "--output must end in .csv, .json, .parquet, got"),
        ("all", "--output must end in"),
        ("nowhere/all.csv", "the folder '.*nowhere' does not exist"),
    ],
)
def test_what_cannot_be_written_is_said_before(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        require_writable(tmp_path / name)


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "all.csv").mkdir()
    with pytest.raises(WriteError, match="cannot write"):
        write_predictions(ROWS, tmp_path / "all.csv")
