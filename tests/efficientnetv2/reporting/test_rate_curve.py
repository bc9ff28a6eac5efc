"""Tests what the plot of a learning rate range test shows."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest
from matplotlib import figure
from PIL import Image

from efficientnetv2.reporting.rate_curve import draw_rate_curve
from efficientnetv2.train.range_test import RangeTest, smooth

RATES = np.geomspace(1e-5, 10, 61)
LOSSES = 2.3 - 1.5 / (1 + (0.02 / RATES) ** 2) + 3 * RATES**2
TEST = RangeTest(
    rates=RATES,
    losses=LOSSES,
    smoothed=smooth(LOSSES, width=1.5),
    configured=0.016,
    batch_size=32,
    image_size=48.0,
)


def test_losses_rates_and_marks(tmp_path: pathlib.Path, drawn: list[figure.Figure]) -> None:
    draw_rate_curve(TEST, tmp_path / "find_lr.png", title="B0 on digits")
    (axes,) = drawn[0].axes
    steps, smoothed, suggested, configured = axes.get_lines()
    np.testing.assert_array_equal(steps.get_xydata(), np.stack([RATES, LOSSES], 1))
    np.testing.assert_array_equal(smoothed.get_ydata(), TEST.smoothed)
    assert set(suggested.get_xdata()) == {TEST.suggestion}
    assert set(configured.get_xdata()) == {0.016}
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts == [
        "a step",
        "smoothed",
        f"suggested: --learning_rate={TEST.suggestion:g}",
        "settings: --learning_rate=0.016",
    ]
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] == pytest.approx(1.5 * 2.3, rel=0.01)  # the end is cut off
    assert axes.get_title(loc="left") == "batches of 32, 48 px; 61 steps"
    with Image.open(tmp_path / "find_lr.png") as picture:
        assert picture.format == "PNG"


def test_without_a_suggestion_nothing_is_marked(
    tmp_path: pathlib.Path, drawn: list[figure.Figure]
) -> None:
    flat = dataclasses.replace(TEST, losses=np.full(61, 2.3), smoothed=np.full(61, 2.3))
    draw_rate_curve(flat, tmp_path / "find_lr.png", title="B0 on digits")
    labels = [line.get_label() for line in drawn[0].axes[0].get_lines()]
    assert labels == ["a step", "smoothed", "settings: --learning_rate=0.016"]
