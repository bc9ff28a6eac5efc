"""Tests how images of none of the classes are measured, and that classes can be left out."""

import numpy as np
import pytest

from efficientnetv2.data.sources import build_source
from efficientnetv2.data.sources.image_splits import LEFT_OUT
from efficientnetv2.data.sources.own_images import open_images
from efficientnetv2.evaluation.predictions import FullPredictions, Predictions
from efficientnetv2.evaluation.unknown_images import open_unknown, scores, unknown_metrics
from hparams import UserError, resolve


def test_metrics_are_those_of_counting_pairs(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.beta(5, 2, 200).round(3), rng.beta(2, 3, 90).round(3)
    found = unknown_metrics(known, unknown, 0.4)
    above = (known[:, None] > unknown).mean() + (known[:, None] == unknown).mean() / 2
    assert found["unknown_auroc"] == pytest.approx(above)
    shares = [(unknown >= cut).mean() for cut in known if (known >= cut).mean() >= 0.95]
    assert found["unknown_fpr95"] == pytest.approx(min(shares))
    assert found["unknown_found"] == (unknown < 0.4).mean() and found["unknown_images"] == 90
    assert found["known_rejected"] == (known < 0.4).mean()
    assert set(found) - set(unknown_metrics(known, unknown, None)) == {
        "unknown_found",
        "known_rejected",
    }


def test_scores_are_best_probabilities_with_the_temperature():
    raw, calibrated = np.float32([0.5, 0.6]), np.float32([0.7, 0.9])
    one = Predictions(np.arange(2), np.zeros(2), np.zeros(2), raw)
    assert scores(one) is raw
    assert scores(Predictions(one.index, one.label, one.predicted, raw, calibrated)) is calibrated
    outputs = np.float32([[0.1, 0.8], [0.3, 0.2]])
    np.testing.assert_array_equal(
        scores(FullPredictions(np.arange(2), outputs, outputs)), outputs.max(-1)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("animals")
    for name in ("cat", "cow", "dog", "owl"):
        (folder / name).mkdir()
        for number in range(10):
            (folder / name / f"{number}.png").touch()
    return folder


def config_without(folder, *classes):
    return resolve(
        "efficientnetv2-b0", "folder", {"data.data_dir": str(folder), "data.leave_out": [*classes]}
    )


def test_classes_that_are_left_out_are_in_no_other_split(folder, tmp_path):
    everything, config = open_images(config_without(folder)), config_without(folder, "owl", "cow")
    for _ in range(2):  # the second time, the split file counts
        splits = open_images(config, tmp_path / "split.csv", writes=True)
        assert splits.class_names == ["cat", "dog"]
        assert len(splits.images[LEFT_OUT]) == 20
        assert {image.path[:3] for image in splits.images[LEFT_OUT]} == {"cow", "owl"}
        for split in ("train", "minival", "test"):
            expected = [image.path for image in everything.images[split]]
            kept = [path for path in expected if path[:3] in ("cat", "dog")]
            assert [image.path for image in splits.images[split]] == kept
            labels = {(image.path[:3], image.label) for image in splits.images[split]}
            assert labels == {("cat", 0), ("dog", 1)}
        assert "20 images of owl, cow are left out" in splits.notices[-1]
    assert "cow/0.png" in (tmp_path / "split.csv").read_text()
    source = build_source(config)
    assert source.class_counts() == [8, 8] and source.num_images(LEFT_OUT) == 20
    assert open_unknown(config, source, None) is not None
    assert open_unknown(config_without(folder), source, None) is None


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ["bat"],
            "data.leave_out=bat: there is no class 'bat'; the classes are cat, cow, dog, owl",
        ),
        (["cat", "cow", "dog"], "fewer than two classes are left"),
    ],
)
def test_classes_that_cannot_be_left_out_are_named(folder, classes, message):
    with pytest.raises(UserError, match=message):
        open_images(config_without(folder, *classes))


def test_only_own_images_of_one_class_can_be_left_out(folder):
    with pytest.raises(UserError, match=r"data.leave_out=3 is for your own images of one class"):
        resolve("efficientnetv2-b0", "digits", {"data.leave_out": ["3"]})
    several = {"data.data_dir": str(folder), "data.multi_label": True, "data.leave_out": ["cat"]}
    with pytest.raises(UserError, match=r"data.leave_out=cat is for your own images of one class"):
        resolve("efficientnetv2-b0", "folder", several)
