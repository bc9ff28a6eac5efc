"""Tests what is found in measures, copies and suspect labels."""

import pathlib

from efficientnetv2.data.quality.copies import Copy
from efficientnetv2.data.quality.findings import (
    FINDINGS,
    CheckedImage,
    checked_images,
    find_problems,
)
from efficientnetv2.data.quality.image_measures import ImageMeasures
from efficientnetv2.data.quality.label_errors import SuspectLabel
from efficientnetv2.data.sources.image_splits import ImageFile, ImageSplits
from hparams.label_kinds import NUMBERS, SEVERAL


def usual(**changes):
    return ImageMeasures(
        **{"height": 100, "width": 120, "contrast": 50, "sharpness": 0.8, **changes}
    )


def images(*labels_and_splits):
    return [
        CheckedImage(pathlib.Path(f"{number}.jpg"), *pair)
        for number, pair in enumerate(labels_and_splits)
    ]


def kinds(found):
    return [(finding.kind, finding.image, finding.other) for finding in found]


def test_measures_that_stand_out():
    odd = {
        1: {"problem": "the file is empty"},
        2: {"contrast": 2.0, "sharpness": 0.0},
        3: {"sharpness": 0.1},
        4: {"height": 20, "width": 30},
        5: {"height": 900, "width": 900},
        6: {"height": 100, "width": 301},
        7: {"is_turned": True},
        8: {"height": 8001, "width": 8001},
    }
    measures = [usual(**odd.get(number, {})) for number in range(20)]
    found = find_problems(images(*[("a", "train")] * 20), measures, [], [], ["a"])
    assert kinds(found) == [
        ("unreadable", 1, None),
        ("empty", 2, None),
        ("blurred", 3, None),
        ("tiny", 4, None),
        ("huge", 5, None),
        ("huge", 8, None),
        ("long", 6, None),
        ("turned", 7, None),
    ]
    assert [finding.detail for finding in found[:3]] == [
        "the file is empty",
        "contrast 2.0 of 255",
        "12% as sharp as most",
    ]
    assert [kind for kind in FINDINGS if not FINDINGS[kind].is_problem] == [
        *("empty", "blurred", "tiny", "huge", "long", "turned")
    ]


def test_copies_are_conflicts_and_leaks_where_labels_and_splits_differ():
    checked = images(("a", "train"), ("a", "train"), ("b", "train"), ("a", "test"), ("b", "test"))
    copies = [Copy(1, 0, 0, 1.0, True), Copy(2, 0, 0, 0.95, False), Copy(3, 0, 0, 1.0, True)]
    found = find_problems(checked, [usual()] * 5, copies, [], ["a", "b"])
    assert kinds(found) == [
        ("conflict", 2, 0),
        ("conflict", 3, 2),
        ("leak", 3, 0),
        ("exact_copy", 1, 0),
    ]
    assert [finding.detail for finding in found] == [
        *("95% alike", "equal files", "equal files", "equal files")
    ]
    alike = find_problems(checked, [usual()] * 5, [Copy(1, 0, 0, 0.97, False)], [], ["a", "b"])
    assert kinds(alike) == [("near_copy", 1, 0)] and alike[0].detail == "97% alike"


def test_a_suspect_label_has_a_suggestion():
    found = find_problems(
        images(("a", "train")), [usual()], [], [SuspectLabel(0, 1, 0.97, 0.01)], ["a", "b"]
    )
    assert kinds(found) == [("label", 0, None)]
    assert (found[0].suggestion, found[0].detail) == ("b", "97% b, 1% a")


def test_nothing_is_found_in_nothing():
    assert find_problems([], [], [], [], []) == []
    broken = [ImageMeasures(problem="it is not an image")]
    assert kinds(find_problems(images(("a", "train")), broken, [], [], ["a"])) == [
        ("unreadable", 0, None)
    ]


def test_labels_of_every_kind_become_text():
    root, names = pathlib.Path("root"), ["cat", "dog"]
    splits = {"train": [ImageFile("1.jpg", (0, 1)), ImageFile("2.jpg", ())]}
    several = ImageSplits(root, names, {**splits, "minival": [], "test": []}, kind=SEVERAL)
    assert [image.label for image in checked_images(several)] == ["cat|dog", ""]
    splits = {"train": [], "minival": [], "test": [ImageFile("/a/3.jpg", (0.5, 1e9))]}
    numbers = ImageSplits(root, names, splits, kind=NUMBERS)
    assert checked_images(numbers) == [CheckedImage(pathlib.Path("/a/3.jpg"), "0.5, 1e+09", "test")]
