"""Tests that titles of pictures are read from their first letter to their last."""

import pytest
from matplotlib.figure import Figure

from efficientnetv2.reporting.figures import fitted, plain

PATH = "/home/somebody/data/" + "photographs_of_flowers/" * 6


@pytest.mark.parametrize("width", [5.55, 10])
@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize(
    "title",
    [
        "efficientnetv2-b0 (moving average) on photos, test: most confident mistakes of 4 images",
        f"efficientnetv2-xl on {PATH}, test",
        PATH,
        "EFFICIENTNETV2-S on /DATA/PHOTOS OF FLOWERS AND BIRDS, test: most confident mistakes",
    ],
)
def test_a_title_stays_inside_its_figure(width, size, title):
    figure = Figure(figsize=(width, 4), layout="constrained")
    figure.subplots()
    text = figure.suptitle(fitted(title, figure, size=size), fontsize=size)
    figure.draw_without_rendering()
    box, whole = text.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1
    assert "".join(text.get_text().split()) == "".join(title.split())


def test_a_short_title_stays_one_line():
    assert (
        fitted("efficientnetv2-s on digits: schedule", Figure(figsize=(5.55, 4))).count("\n") == 0
    )


@pytest.mark.parametrize("text", ["$5%-$10%", "price_$5_$10", "$#1$", "$10-$20", "plain"])
def test_dollars_are_no_mathematics(text):
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    title = figure.suptitle(fitted(text, figure))
    axes.set_xticks([0], labels=[plain(text)])
    figure.draw_without_rendering()
    for drawn in (title, axes.get_xticklabels()[0]):
        assert drawn._preprocess_math(drawn.get_text()) == (text, False)
