"""Statistics of the channels against NumPy, and the stream of batches that they normalise."""

import numpy as np
import pytest

from efficientnetv2.data import channel_statistics as module
from efficientnetv2.data.channel_statistics import channel_statistics
from efficientnetv2.data.open_data import open_data
from efficientnetv2.data.sources import build_source
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.train.progressive import build_settings, build_stages, phases_of
from hparams import resolve
from hparams.errors import DataError

SMALL = {
    "model.channels": 4,
    "train.batch_size": 4,
    "train.epochs": 3,
    "train.stages": 1,
    "train.isize": 16,
    "train.preset": "none",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 arrays of 16 bits, whose third channel never changes; three of other sizes."""
    path = tmp_path_factory.mktemp("bands")
    rng = np.random.default_rng(7)
    for number in range(30):
        side = 40 if number < 3 else 10
        array = rng.integers(0, 9000, (side, 12, 4)) * [1, 3, 0, 2] + [0, 50 * number, 257, 0]
        part = path / ("train" if number < 20 else "test") / "ab"[number % 2]
        part.mkdir(parents=True, exist_ok=True)
        np.save(part / f"{number:02}.npy", array.astype(np.uint16))
    return path


def config_of(folder, **settings):
    return resolve("efficientnetv2-b0", "folder", SMALL, {"data.data_dir": str(folder), **settings})


def training_arrays(folder, config):
    source = build_source(config)
    references = source.references("train", seed=None, buffer=1)
    names = [source.name(reference).numpy().decode() for reference in references]
    assert names == sorted(names)
    return [np.load(name) / 257 for name in names]


@pytest.mark.parametrize("most", [256, 5])
def test_statistics_are_those_of_numpy(folder, monkeypatch, most):
    monkeypatch.setattr(module, "_SAMPLE", most)
    config = config_of(folder)
    arrays = training_arrays(folder, config)
    sample = arrays[:: -(-len(arrays) // most)]
    assert len(sample) in (len(arrays), 5, 4)
    mean = np.mean([array.mean((0, 1)) for array in sample], 0)
    square = np.mean([(array**2).mean((0, 1)) for array in sample], 0)
    found = channel_statistics(config, build_source(config), split="train")
    np.testing.assert_allclose(found.mean, mean, rtol=6e-6)
    expected = np.sqrt(square - mean**2)
    assert expected[2] < 1e-6
    np.testing.assert_allclose(np.delete(found.deviation, 2), np.delete(expected, 2), rtol=1e-5)
    assert found.deviation[2] == 1.0
    assert found.notices == [f"channel 3 has one value in all of {len(sample)} training images"]


def test_an_opened_config_knows_them_and_keeps_given_ones(folder):
    config, _ = open_data(config_of(folder), None)
    again, _ = open_data(config, None)
    assert config.model.pixel_mean == again.model.pixel_mean
    assert len(config.model.pixel_mean) == 4
    given = {"model.pixel_mean": [1.0] * 4, "model.pixel_deviation": [2.0] * 4}
    assert open_data(config_of(folder, **given), None)[0].model.pixel_mean == (1.0,) * 4


def test_a_stream_is_normalised_and_goes_on_as_it_was(folder):
    settings = {
        "data.quarter_turns": True,
        "data.rotate": 30,
        "data.cutout": 0.3,
        "data.mixup_alpha": 0.2,
        "data.cutmix_alpha": 1,
        "data.random_erasing": 0.5,
    }
    config, source = open_data(config_of(folder, **settings), None)
    plan = build_stages(config, num_images=source.num_images("train"))
    stream = build_training_input(
        config, source, phases=phases_of(plan), settings=build_settings(config, plan)
    )
    whole = [images.numpy() for images, *_ in stream.batches().take(7)]
    resumed = [images.numpy() for images, *_ in stream.batches(start_step=5).take(2)]
    np.testing.assert_array_equal(whole[5:], resumed)
    assert whole[0].shape == (4, 16, 16, 4)
    plain = np.delete(np.stack(whole), 2, -1)
    assert np.abs(plain.mean((0, 1, 2, 3))).max() < 0.3
    assert plain.std((0, 1, 2, 3)).min() > 0.3


@pytest.mark.parametrize("choice", ["error", "skip"])
def test_images_that_cannot_be_read(tmp_path, choice):
    for number in range(40):
        part = tmp_path / "train" / "ab"[number % 2]
        part.mkdir(parents=True, exist_ok=True)
        array = np.full((4, 4, 4), number % 3, np.uint8)
        np.save(part / f"{number:02}.npy", array[..., : 3 if number == 20 else 4])
    config = config_of(tmp_path, **{"data.on_bad_image": choice})
    source = build_source(config)
    if choice == "skip":
        assert len(channel_statistics(config, source, split="train").mean) == 4
        return
    message = r"cannot read '.*20.npy': it has 3 channels, but model.channels is 4; data.on_bad_i"
    with pytest.raises(DataError, match=message):
        channel_statistics(config, source, split="train")


def test_augmentations_of_bytes_need_pixels(tmp_path):
    for number in range(20):
        part = tmp_path / "train" / "ab"[number % 2]
        part.mkdir(parents=True, exist_ok=True)
        np.save(part / f"{number}.npy", np.full((4, 4), number / 40, np.float32))
    settings = {"model.channels": 1, "data.augname": "autoaug"}
    config = config_of(tmp_path, **settings)
    message = "data.augname=autoaug works on pixels of 0..255, but those of the training images go "
    with pytest.raises(DataError, match=message):
        channel_statistics(config, build_source(config), split="train")
