"""Tests what the preview and the schedule show, and that nothing in them overlaps."""

from __future__ import annotations

import itertools
import pathlib

import numpy as np
import pytest
from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from efficientnetv2.data.sources import build_source
from efficientnetv2.reporting.preview_pictures import (
    PreviewRow,
    draw_preview,
    draw_schedule,
    preview_rows,
)
from efficientnetv2.train.progressive import Stage, build_stages, plan_stages
from hparams.errors import DataError
from hparams.factors import first_to_last
from hparams.resolve import resolve

L_WITH_CUTMIX = ("efficientnetv2-l", "imagenet2012", "data.cutmix_alpha=0.5")
PLANS = {
    "s": ("efficientnetv2-s", "imagenet2012", ""),
    "m": ("efficientnetv2-m", "imagenet2012", ""),
    "l": L_WITH_CUTMIX,
    "l, 5 epochs": (*L_WITH_CUTMIX[:2], L_WITH_CUTMIX[2] + ",train.epochs=5"),
    "l, 7 stages": (*L_WITH_CUTMIX[:2], L_WITH_CUTMIX[2] + ",train.stages=7"),
    "l, 25 stages": (*L_WITH_CUTMIX[:2], L_WITH_CUTMIX[2] + ",train.stages=25"),
    "v1": ("efficientnet-b0", "imagenet2012", ""),
    "digits": ("efficientnetv2-s", "digits", ""),
}


def plan_of(name: str) -> list[Stage]:
    model_name, dataset, overrides = PLANS[name]
    return build_stages(resolve(model_name, dataset, overrides), num_images=1_256_167)


def row(number: int, *, size: int, colour: tuple[int, int, int], columns: int = 8) -> PreviewRow:
    strengths = [f"{size} px", "RandAugment 18.3", "mixup 0.067", "CutMix 0.067", "dropout 0.23"]
    image = np.full([columns, size, size, 3], colour, np.uint8)
    return PreviewRow(f"stage {number} of 4, epochs 1001 to 1087", strengths, image)


def boxes_of_words(picture: figure.Figure) -> list[Bbox]:
    """The boxes of all texts, in pixels."""
    renderer = FigureCanvasAgg(picture).get_renderer()
    picture.draw_without_rendering()
    texts = [
        *picture.texts,
        *(text for axes in picture.axes if axes.axison for text in texts_of(axes)),
    ]
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


def texts_of(axes: Axes) -> list[Text]:
    texts = [child for child in axes.get_children() if isinstance(child, Text)]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()  # ticks beyond are not drawn
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels())
        texts += [axis.label, *(label for place, label in ticks if low <= place <= high)]
    return texts


def overlapping(boxes: list[Bbox]) -> list[tuple[Bbox, Bbox]]:
    # Boxes that share half a pixel do not overlap visibly.
    return [
        (one, other)
        for one, other in itertools.combinations(boxes, 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 0.5
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 0.5
    ]


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_the_schedule_is_a_picture_of_the_stated_size(tmp_path: pathlib.Path, kind: type) -> None:
    draw_schedule(plan_of("m"), kind(tmp_path / "schedule.png"), title="M")
    picture = pixels(tmp_path / "schedule.png")
    assert picture.shape == (286, 1210, 3)
    assert 0.4 < (picture == 255).all(-1).mean() < 0.9


def test_each_panel_has_the_values_and_epochs_of_the_stages(
    tmp_path: pathlib.Path, drawn: list[figure.Figure]
) -> None:
    plan = plan_of("m")
    draw_schedule(plan, tmp_path / "schedule.png", title="M on ImageNet")
    panels = {axes.get_title(loc="left"): axes for axes in drawn[0].axes}
    expected = {
        "image size (px)": [stage.image_size for stage in plan],
        "augmentation magnitude": [stage.magnitude for stage in plan],
        "mixup alpha": [stage.mixup_alpha for stage in plan],
        "dropout rate": [stage.dropout_rate for stage in plan],
    }
    assert list(panels) == list(expected)  # M has no CutMix
    for name, axes in panels.items():
        for stairs in axes.patches:
            values, edges, _ = stairs.get_data()
            assert values.tolist() == expected[name]
            assert edges.tolist() == [0, 87, 175, 262, 350]
        assert axes.get_xlim() == (0, 350)
        assert axes.get_ylim()[0] == 0
    assert drawn[0].get_suptitle() == "M on ImageNet"


def test_each_step_is_labelled_with_its_value(
    tmp_path: pathlib.Path, drawn: list[figure.Figure]
) -> None:
    draw_schedule(plan_of("m"), tmp_path / "schedule.png", title="M")
    assert [labels(axes) for axes in drawn[0].axes] == [
        ["128", "208", "296", "380"],
        ["5", "10", "15", "20"],
        ["0", "0.067", "0.13", "0.2"],
        ["0.1", "0.2", "0.3", "0.4"],
    ]


def test_equal_neighbours_are_labelled_once(
    tmp_path: pathlib.Path, drawn: list[figure.Figure]
) -> None:
    draw_schedule(plan_of("digits"), tmp_path / "schedule.png", title="digits")
    size, dropout = drawn[0].axes
    assert [(text.get_text(), *text.get_position()) for text in size.texts] == [
        ("28", 2.0, 28),
        ("32", 10.5, 32),
    ]
    assert labels(dropout) == ["0.1", "0.13", "0.17", "0.2"]


@pytest.mark.parametrize(("first", "last"), [(0.25, 1.0), (1.0, 0.25)])
def test_steps_too_narrow_for_labels_have_their_ends_at_the_axis(
    tmp_path: pathlib.Path, drawn: list[figure.Figure], first: float, last: float
) -> None:
    ends = first_to_last(image_size=(128, 300), dropout_rate=(0.0, 0.0), cutmix_alpha=(first, last))
    plan = plan_stages(ends, epochs=350, stages=50, num_images=9, batch_size=1)
    draw_schedule(plan, tmp_path / "schedule.png", title="50 stages")
    ticks = [[text.get_text() for text in axes.get_yticklabels()] for axes in drawn[0].axes]
    assert ticks == [["128", "300"], ["0.25", "1"]]
    assert [labels(axes) for axes in drawn[0].axes] == [[], []]


@pytest.mark.parametrize("name", PLANS)
def test_no_words_of_a_schedule_overlap(
    tmp_path: pathlib.Path, drawn: list[figure.Figure], name: str
) -> None:
    draw_schedule(plan_of(name), tmp_path / "schedule.png", title=f"{name}: schedule")
    boxes = boxes_of_words(drawn[0])
    assert len(boxes) > 10
    assert overlapping(boxes) == []
    inside = drawn[0].bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)


SIZES = (128, 208, 296, 380)
COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))
LONGEST_LINES = ["turns up to 17.5 degrees", "jitter 0.35 0.25 0.45 0.15", "random erasing 0.25"]
ROWS = [row(n + 1, size=size, colour=COLOURS[n]) for n, size in enumerate(SIZES)]


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_every_image_stands_in_the_preview_to_one_scale(tmp_path: pathlib.Path, kind: type) -> None:
    draw_preview(ROWS, kind(tmp_path / "preview.png"), title="M")
    picture = pixels(tmp_path / "preview.png")
    assert picture.shape[1] == 2200
    assert 800 < picture.shape[0] < 1300
    sides = []
    for colour in COLOURS:
        matches = (picture == colour).all(-1)
        sides.append(np.sqrt(matches.sum() / 8))
        assert matches.any(0).sum() == pytest.approx(
            8 * sides[-1], abs=8
        )  # eight beside each other
    np.testing.assert_allclose(sides, np.array(SIZES) * sides[-1] / 380, atol=1.5)
    assert sides[-1] > 200
    tops = [np.flatnonzero((picture == colour).all(-1).any(1))[0] for colour in COLOURS]
    assert tops == sorted(tops)


def test_an_image_is_drawn_as_it_is(tmp_path: pathlib.Path) -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]], np.uint8)
    draw_preview([PreviewRow("one", [], image[None])], tmp_path / "preview.png", title="")
    picture = pixels(tmp_path / "preview.png")
    red, green, blue = (
        np.argwhere((picture == colour).all(-1)) for colour in np.eye(3, dtype=np.uint8) * 255
    )
    assert {len(red), len(green), len(blue)} == {200 * 200}  # at most 2 inches, of 2 by 2 pixels
    assert (green - red == [0, 200]).all()
    assert (blue - red == [200, 0]).all()


def test_each_rows_text_names_its_stage_and_strengths(
    tmp_path: pathlib.Path, drawn: list[figure.Figure]
) -> None:
    rows = [PreviewRow("size drawn at random", ["128 px"], ROWS[0].images), ROWS[3]]
    draw_preview(rows, tmp_path / "preview.png", title="M: what the network sees")
    assert [(text.get_text(), text.get_fontweight()) for text in drawn[0].texts] == [
        ("M: what the network sees", "normal"),
        ("size drawn at random", "bold"),
        ("128 px", "normal"),
        ("stage 4 of 4", "bold"),
        ("epochs 1001 to 1087", "normal"),
        *((strength, "normal") for strength in ROWS[3].strengths),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [row(1, size=28, colour=COLOURS[0]), row(2, size=32, colour=COLOURS[1])],
        [row(1, size=380, colour=COLOURS[0], columns=1)],
        [PreviewRow("size drawn at random", ROWS[0].strengths, ROWS[0].images[:2])] * 10,
        [PreviewRow("stage 1 of 4", LONGEST_LINES, ROWS[3].images)],
    ],
    ids=["m", "digits", "one image", "10 rows", "longest lines"],
)
def test_no_words_and_images_of_a_preview_overlap(
    tmp_path: pathlib.Path, drawn: list[figure.Figure], rows: list[PreviewRow]
) -> None:
    draw_preview(rows, tmp_path / "preview.png", title="what the network sees")
    boxes = boxes_of_words(drawn[0])
    places = [axes.get_window_extent() for axes in drawn[0].axes]
    assert len(places) == sum(len(row.images) for row in rows)
    assert len(boxes) == 1 + sum(len([*row.title.split(", "), *row.strengths]) for row in rows)
    assert overlapping(boxes + places) == []
    inside = drawn[0].bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes + places)
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes + places)


@pytest.mark.slow  # traces the whole preprocessing
@pytest.mark.parametrize("on_bad_image", ["skip", "error"])
def test_images_that_cannot_be_read_are_left_out_and_named_once(on_bad_image, tmp_path, capsys):
    for name, grey in (("cat", 50), ("dog", 200)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("L", (8, 8), grey).save(tmp_path / name / f"{number}.png")
    settings = {
        "data.data_dir": str(tmp_path),
        "data.on_bad_image": on_bad_image,
        "data.augname": "none",
        "train.batch_size": 2,
        "train.epochs": 2,
        "train.stages": 2,
        "train.isize": 16,
        "data.ibase": 8,
        "model.num_classes": 2,
        "data.train_split": "train",
    }
    config = resolve("efficientnetv2-s", "folder", settings)
    source = build_source(config)
    bad = next(iter(source.references("train", seed=None, buffer=1).map(source.name))).numpy()
    pathlib.Path(bad.decode()).write_bytes(b"no image")
    plan = build_stages(config, num_images=2)
    if on_bad_image == "error":
        with pytest.raises(DataError, match="it is not an image"):
            preview_rows(config, source, plan, columns=2)
        return
    rows = preview_rows(config, source, plan, columns=2)
    assert [row.images.shape for row in rows] == [(2, 8, 8, 3), (2, 16, 16, 3)]
    assert all(set(row.images.ravel()) == {200} for row in rows)
    expected = f"left out, because it cannot be read: {bad.decode()}\n"
    assert capsys.readouterr().err == expected
