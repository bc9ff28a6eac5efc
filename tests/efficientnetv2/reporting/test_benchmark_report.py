"""Tests the tables, the CSV file and the figures of measured costs against numbers by hand."""

from __future__ import annotations

import csv
import pathlib

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from efficientnetv2.reporting import benchmark_report
from efficientnetv2.reporting.tables import write_csv


def row(model: str, **values: float) -> dict:
    plain = {
        "model": model,
        "top1": 80.0,
        "parameters": 7_200_312,
        "multiply_adds": 720_000_000,
        "batch_size": 4,
        "train_size": 96,
        "eval_size": 128,
        "first_step_seconds": 7.25,
        "train_images_per_second": 20.0,
        "train_step_seconds": 0.2,
        "train_step_p95_seconds": 0.25,
        "activation_mib": 8.5,
        "train_peak_mib": 1234.4,
        "infer_images_per_second": 100.0,
        "infer_batch_ms": 40.0,
        "infer_batch_p95_ms": 44.0,
        "latency_ms": 12.5,
        "latency_p95_ms": 15.0,
    }
    return {**plain, **values}


def test_the_table_has_every_number() -> None:
    header, line = benchmark_report.cost_table([row("efficientnetv2-b0")]).splitlines()
    assert header.split()[:3] == ["model", "params", "M"]
    numbers = "7.2 0.72 96 20.0 0.20 0.25 7.2 8.5 1234 128 100.0 40.0 44.0 12.5 15.0"
    assert " ".join(line.split()) == f"efficientnetv2-b0 {numbers}"


def test_ratios_of_networks_of_like_accuracy() -> None:
    rows = [
        row("efficientnetv2-m", top1=85.2, infer_images_per_second=9.0, train_images_per_second=4),
        row("efficientnet-b7", top1=84.3, infer_images_per_second=3.0, train_images_per_second=0.8),
        row("efficientnetv2-b0", infer_images_per_second=50.0),
        row("efficientnet-b1", infer_images_per_second=40.0, train_images_per_second=25.0),
        row("efficientnetv2-s"),
    ]
    _, small, large = benchmark_report.ratio_table(rows).splitlines()
    assert small.split()[-4:] == ["1.25", "2.1", "0.80", "-"]
    assert large.split()[-4:] == ["3.00", "3.1", "5.00", "4.1"]
    assert large.startswith("efficientnetv2-m / efficientnet-b7   85.2 / 84.3 ")
    assert benchmark_report.ratio_table(rows[2:3]) == ""


def test_the_csv_is_read_back(tmp_path: pathlib.Path) -> None:
    rows = [row("efficientnetv2-b0"), row("resnet50", latency_ms=1 / 3)]
    write_csv(rows, tmp_path / "benchmark.csv")
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [line["model"] for line in read] == ["efficientnetv2-b0", "resnet50"]
    assert float(read[1]["latency_ms"]) == 1 / 3


def test_each_point_stands_where_it_was_measured(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    rows = [
        row("efficientnetv2-b1", top1=79.8, latency_ms=30.0, train_images_per_second=10.0),
        row("efficientnetv2-b0", top1=78.7),
        row("efficientnet-b1", top1=79.1, latency_ms=20.0),
        row("efficientnet-lite0", top1=75.1),
        row("resnet50", top1=78.1),
    ]
    assert benchmark_report.draw_costs(rows, tmp_path) == ["training.png", "inference.png"]
    training, inference = figures
    latency = {line.get_label(): line.get_xydata().tolist() for line in inference.axes[2].lines}
    assert latency == {
        "EfficientNetV2": [[12.5, 78.7], [30.0, 79.8]],
        "EfficientNet": [[20.0, 79.1]],
        "EfficientNet-Lite": [[12.5, 75.1]],
        "ResNet": [[12.5, 78.1]],
    }
    seconds = {line.get_label(): line.get_xydata()[:, 0] for line in training.axes[0].lines}
    np.testing.assert_allclose(seconds["EfficientNetV2"], [50.0, 100.0])  # for 1,000 images
    for name in ("training.png", "inference.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture).std() > 5


def test_names_do_not_lie_on_each_other(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    near = {"latency_ms": 10.4, "multiply_adds": 690_000_000, "parameters": 7_856_232}
    rows = [
        row("efficientnetv2-b0", top1=78.7),
        row("efficientnetv2-b1", top1=79.0, latency_ms=12.0),
        row("efficientnet-b1", top1=79.1, **near),
        row("efficientnet-b4-fused-1-3", top1=83.1, latency_ms=90.0),
        row("efficientnet-b4-fused-1-5", top1=83.1, latency_ms=91.0),
        row("efficientnetv2-xl", top1=87.3, latency_ms=150.0),
    ]
    benchmark_report.draw_costs(rows, tmp_path)
    for figure in figures:
        for axes in figure.axes:
            assert [text.get_text() for text in axes.texts] == [
                "B0",
                "B1",
                "B1",
                "1-3",
                "1-5",
                "XL",
            ]
            boxes = [text.get_window_extent() for text in axes.texts]
            for index, box in enumerate(boxes):
                assert not box.count_overlaps(boxes[index + 1 :]), (index, axes.get_title("left"))
