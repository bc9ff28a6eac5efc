"""Images to calibrate and check with: data.on_bad_image holds for files and for splits."""

import numpy as np
import pytest
from PIL import Image

from efficientnetv2.data import sample_images as images
from efficientnetv2.data.sources import build_source
from hparams import resolve
from hparams.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """Two classes of 20 images, each of one grey level of its own."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(20):
            grey = np.full((8, 8, 3), 5 * (20 * label + number) + 10, np.uint8)
            Image.fromarray(grey).save(tmp_path / name / f"{number:02}.png")
    return tmp_path


def config_of(photos, **settings):
    values = {
        "data.data_dir": str(photos),
        "eval.isize": 16,
        "eval.batch_size": 4,
        "model.num_classes": 2,
        "data.train_split": "train",
        "data.eval_split": "test",
        **settings,
    }
    return resolve("efficientnetv2-s", "folder", values)


SKIP = {"data.on_bad_image": "skip"}


def greys(found):
    return {int(image.mean()) for image in found.pixels}


def test_a_bad_file_is_named_with_the_way_to_leave_it_out(photos):
    paths = sorted(photos.rglob("*.png"))
    paths[4].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cat/04.png' is not an image.*on_bad_image=skip leaves"):
        images.file_images(config_of(photos), paths)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [[0], [1], [3, 8, 20], [0, 2, 4]])
def test_bad_files_are_left_out_and_the_others_stay_where_they_were(bad, photos, capsys):
    paths = sorted(photos.rglob("*.png"))
    all_of = [greys(found) for found in images.file_images(config_of(photos), paths)]
    for index in bad:
        paths[index].write_bytes(b"no image")
    found = images.file_images(config_of(photos, **SKIP), paths)
    gone = {5 * index + 10 for index in bad}
    assert [greys(each) for each in found] == [each - gone for each in all_of]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == len(bad)
    assert all(line.startswith("left out, because it cannot be read: '") for line in errors)
    assert len(found[0].pixels) == images.calibration_count(16)


def test_with_one_good_file_it_serves_for_both_and_with_none_it_is_an_error(photos):
    paths = sorted(photos.rglob("*.png"))[:4]
    for path in paths[1:]:
        path.write_bytes(b"")
    for each in images.file_images(config_of(photos, **SKIP), paths):
        assert greys(each) <= set(range(7, 14))
    paths[0].unlink()
    with pytest.raises(UserError, match=r"none of the 4 images of --image_path can be read"):
        images.file_images(config_of(photos, **SKIP), paths)


@pytest.mark.slow
def test_bad_images_of_a_split_are_left_out(photos, capfd):
    source = build_source(config_of(photos))
    whole = images.split_images(config_of(photos), source, split="train", limit=100)
    bad = next(path for path in sorted(photos.rglob("*.png")) if path_in(source, path))
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read '.*png': it is not an image"):
        images.split_images(config_of(photos), source, split="train", limit=100)
    kept = images.split_images(config_of(photos, **SKIP), source, split="train", limit=100)
    assert len(kept.pixels) == len(whole.pixels) - 1
    np.testing.assert_array_equal(kept.pixels, whole.pixels[1:])
    np.testing.assert_array_equal(kept.labels, whole.labels[1:])
    assert f"left out, because it cannot be read: {bad}" in capfd.readouterr().err


def path_in(source, path):
    references = source.references("train", seed=None, buffer=1).take(1)
    return [source.name(reference).numpy().decode() for reference in references] == [str(path)]
