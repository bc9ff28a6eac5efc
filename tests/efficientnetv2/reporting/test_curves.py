"""Tests the numbers, labels and pixels of the training curves."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from matplotlib import colors, figure
from PIL import Image

from efficientnetv2.reporting.curves import plot_curves

BLUE, ORANGE, GREY = "#2b5c8a", "#d1791f", "#6b6b6b"
LINES = [
    {"step": 19, "loss": 2.5, "accuracy": 0.25, "learning_rate": 0.01, "image_size": 24},
    {"step": 38, "loss": 1.5, "accuracy": 0.5, "learning_rate": 0.02, "image_size": 24},
    {"step": 57, "loss": 0.5, "accuracy": 0.75, "learning_rate": 0.0, "image_size": 32},
]
MINIVAL = [{"minival_top1": 0.3 * n, "minival_ema_top1": 0.2 * n} for n in (1, 2, 3)]
WITH_MINIVAL = [{**line, **minival} for line, minival in zip(LINES, MINIVAL)]


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def count(picture: np.ndarray, color: str) -> int:
    rgb = np.round(np.array(colors.to_rgb(color)) * 255)
    return int((picture == rgb).all(-1).sum())


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_picture_of_the_stated_size_with_lines_in_it(tmp_path: pathlib.Path, kind: type) -> None:
    path = tmp_path / "curves.png"
    plot_curves(LINES, kind(path), title="digits")
    picture = pixels(path)
    assert picture.shape == (660, 990, 3)
    assert count(picture, "#ffffff") > picture.size / 3 / 2
    assert count(picture, BLUE) > 500


@pytest.mark.parametrize(
    ("lines", "drawn"),
    [
        (LINES, False),
        (WITH_MINIVAL, True),
        ([*LINES[:1], *WITH_MINIVAL[1:]], True),
    ],
)
def test_the_minival_curves_are_drawn_if_they_were_measured(
    tmp_path: pathlib.Path, lines: list, drawn: bool
) -> None:
    plot_curves(lines, tmp_path / "curves.png", title="digits")
    picture = pixels(tmp_path / "curves.png")
    assert (count(picture, ORANGE) > 100) is drawn


def test_no_lines_draw_nothing(tmp_path: pathlib.Path) -> None:
    plot_curves([], tmp_path / "curves.png", title="digits")
    assert list(tmp_path.iterdir()) == []


def test_each_panel_has_the_recorded_numbers(
    tmp_path: pathlib.Path, drawn: list[figure.Figure]
) -> None:
    plot_curves(WITH_MINIVAL, tmp_path / "curves.png", title="digits, run 3")
    *panels, size = drawn[0].axes
    curves = (
        [("loss", BLUE)],
        [("accuracy", BLUE), ("minival_top1", GREY), ("minival_ema_top1", ORANGE)],
        [("learning_rate", BLUE)],
    )
    for axes, keys in zip(panels, curves):
        plotted = [(line.get_ydata().tolist(), line.get_color()) for line in axes.get_lines()]
        assert plotted == [([line[key] for line in WITH_MINIVAL], color) for key, color in keys]
        assert all(line.get_xdata().tolist() == [19, 38, 57] for line in axes.get_lines())
    values, edges, _ = size.patches[0].get_data()
    assert (values.tolist(), edges.tolist()) == ([24, 24, 32], [0, 19, 38, 57])


def test_panels_are_named(tmp_path: pathlib.Path, drawn: list[figure.Figure]) -> None:
    plot_curves(LINES, tmp_path / "curves.png", title="digits, run 3")
    assert drawn[0].get_suptitle() == "digits, run 3"
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == [
        "loss (cross-entropy)",
        "top-1 accuracy",
        "learning rate",
        "image size (px)",
    ]


@pytest.mark.parametrize(
    ("lines", "labels"),
    [(LINES, None), (WITH_MINIVAL, ["training", "minival", "minival, EMA"])],
)
def test_a_legend_tells_several_curves_apart(
    tmp_path: pathlib.Path, drawn: list[figure.Figure], lines: list, labels: list | None
) -> None:
    plot_curves(lines, tmp_path / "curves.png", title="digits")
    legend = drawn[0].axes[1].get_legend()
    texts = None if legend is None else [text.get_text() for text in legend.get_texts()]
    assert texts == labels


def test_numbers_and_other_metrics_have_their_own_panel(tmp_path, monkeypatch):
    titles = {}
    monkeypatch.setattr(
        "efficientnetv2.reporting.curves.save_figure",
        lambda figure, path: titles.update(
            {path.name: [axes.get_title(loc="left") for axes in figure.axes]}
        ),
    )
    numbers = [{**line, "mae": 3.0} for line in LINES]
    for line in numbers:
        del line["accuracy"]
    validated = [{**line, "minival_r2": 0.5} for line in numbers]
    plot_curves(numbers, tmp_path / "plain", title="", metric="r2")
    plot_curves(validated, tmp_path / "validated", title="", metric="r2")
    plot_curves(LINES, tmp_path / "labels", title="", metric="pr_auc")
    assert titles["plain"][:2] == ["loss", "mean absolute error"]
    assert titles["validated"][:2] == ["loss", "R2"]
    assert titles["labels"][:2] == ["loss (cross-entropy)", "top-1 accuracy"]
