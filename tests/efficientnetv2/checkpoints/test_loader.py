"""Tests that every weight is loaded, reported as new or adapted, or refused; never silently."""

import pathlib
import re

import numpy as np
import pytest

from efficientnetv2 import for_inference, get_model
from efficientnetv2.checkpoints.pretrained_model import layer_map_of, load_pretrained
from hparams.errors import UserError, WeightsError
from hparams.resolve import resolve_model


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory, golden, build_tiny):
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    model = build_tiny(weights=golden / "tiny" / "tf1_namebased")
    model.save_weights(path)
    return path, {weight.path: weight.numpy() for weight in model.weights}


def weights_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def test_the_report_counts_everything(tiny_file, tiny_golden, build_tiny):
    path, values = tiny_file
    section = resolve_model("efficientnetv2-b0", tiny_golden[0])
    report = load_pretrained(build_tiny(), section, path)
    assert (report.loaded, report.new, report.adapted, report.extra) == (len(values), (), "", ())
    assert str(report) == f"{len(values)} weights from '{path}' (Keras)"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["expects_mean_std"]),  # B0 is normalised as V1
        ({"include_preprocessing": True}, []),
        ({"weights": None}, []),
    ],
)
def test_the_summary_shows_what_weights_expect(tiny_file, build_tiny, seed, options, names):
    model = build_tiny(**{"weights": tiny_file[0], **options})
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert re.findall(r"expects_\w+", lines[0])[:1] == names
    if names:
        images = np.random.default_rng(seed).normal(size=(2, 32, 32, 3)).astype(np.float32)
        plain = build_tiny()
        plain.load_weights(tiny_file[0])
        np.testing.assert_array_equal(model(images), plain(images))
        np.testing.assert_allclose(for_inference(model)(images), plain(images), atol=1e-4)


def test_another_number_of_classes_makes_a_new_classifier(tiny_file, build_tiny, caplog):
    path, values = tiny_file
    model = build_tiny(weights=path, num_classes=7)
    assert "new, with initial values: predictions/kernel, predictions/bias" in caplog.text
    weights = weights_of(model)
    assert weights["predictions/kernel"].shape == (32, 7)
    for name, value in weights.items():
        if not name.startswith("predictions/"):
            np.testing.assert_array_equal(value, values[name])


def test_another_number_of_classes_that_nobody_asked_for(tiny_file, tiny_golden):
    path, _ = tiny_file
    message = r"has a classifier of 10 classes, but the model has 1000; give num_classes=10"
    with pytest.raises(WeightsError, match=message):
        get_model("efficientnetv2-b0", weights=path, overrides=tiny_golden[0])


def test_a_file_without_a_classifier(tiny_file, build_tiny, tiny_golden, tmp_path, caplog):
    path, _ = tiny_file
    headless = build_tiny(weights=path, include_top=False)
    assert not any(name.startswith("predictions") for name in weights_of(headless))
    headless.save_weights(tmp_path / "notop.weights.h5")
    with pytest.raises(WeightsError, match="has no classifier; give num_classes to make a new one"):
        get_model(
            "efficientnetv2-b0", weights=tmp_path / "notop.weights.h5", overrides=tiny_golden[0]
        )
    assert not caplog.text
    build_tiny(weights=tmp_path / "notop.weights.h5")
    assert "new, with initial values: predictions/kernel" in caplog.text


def test_features_take_what_they_have(tiny_file, build_tiny):
    path, values = tiny_file
    for name, value in weights_of(build_tiny(weights=path, features_only=True)).items():
        np.testing.assert_array_equal(value, values[name])


def test_weights_of_another_model(tiny_file):
    path, _ = tiny_file
    with pytest.raises(
        WeightsError, match=r"(has no value for \d+ of the \d+ weights of|has shap)"
    ):
        get_model("efficientnetv2-b0", num_classes=10, weights=path)


def test_nothing_is_set_when_something_is_missing(tiny_file, tiny_golden, build_tiny):
    path, _ = tiny_file
    wider = {**tiny_golden[0], "feature_size": 40}
    model = get_model("efficientnetv2-b0", num_classes=10, overrides=wider)
    before = weights_of(model)
    with pytest.raises(WeightsError, match=r"top_conv/kernel has shape \(1, 1, 8, 32\), but"):
        load_pretrained(model, resolve_model("efficientnetv2-b0", wider), path)
    for name, value in weights_of(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_one_channel_sees_what_grey_colours_showed(tiny_file, tiny_golden, build_tiny, caplog):
    path, _ = tiny_file
    grey = tiny_golden[1]["x"].mean(axis=-1, keepdims=True)
    model = build_tiny(weights=path, input_shape=(None, None, 1))
    assert "stem summed over the colours for 1 channel" in caplog.text
    expected = build_tiny(weights=path)(np.repeat(grey, 3, axis=-1))
    np.testing.assert_allclose(model(grey), expected, atol=1e-4)


def test_more_channels_keep_the_size_of_what_comes_out(tiny_file, tiny_golden, build_tiny):
    path, values = tiny_file
    kernel = weights_of(build_tiny(weights=path, input_shape=(None, None, 6)))["stem_conv/kernel"]
    np.testing.assert_allclose(kernel[:, :, :3], values["stem_conv/kernel"] / 2, rtol=1e-6)
    np.testing.assert_allclose(kernel[:, :, 3:], values["stem_conv/kernel"] / 2, rtol=1e-6)
    images = tiny_golden[1]["x"]
    twice = build_tiny(weights=path, input_shape=(None, None, 6))(np.tile(images, (1, 1, 1, 2)))
    np.testing.assert_allclose(twice, build_tiny(weights=path)(images), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnetv2-s", "efficientnetv2-b1", "efficientnet-b0"])
def test_a_grey_picture_gives_the_logits_of_its_rgb_version(tmp_path, tiny_golden, seed, name):
    options = {"num_classes": 10, "include_preprocessing": True, "overrides": tiny_golden[0]}
    rgb = get_model(name, **options)
    rgb.save_weights(tmp_path / "x.weights.h5")
    grey = get_model(
        name, weights=tmp_path / "x.weights.h5", input_shape=(None, None, 1), **options
    )
    pixels = np.random.default_rng(seed).uniform(0, 255, (2, 32, 32, 1)).astype(np.float32)
    np.testing.assert_allclose(grey(pixels), rgb(np.repeat(pixels, 3, axis=-1)), atol=1e-4)
    six = get_model(name, weights=tmp_path / "x.weights.h5", input_shape=(None, None, 6), **options)
    colours = np.random.default_rng(seed).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(six(np.tile(colours, 2)), rgb(colours), atol=1e-4)


def test_a_stem_for_grey_images_sees_the_same_in_rgb(build_tiny, tmp_path, seed):
    grey = build_tiny(input_shape=(None, None, 1))
    grey.save_weights(tmp_path / "grey.weights.h5")
    rgb = build_tiny(weights=tmp_path / "grey.weights.h5")
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 32, 32, 1)).astype(np.float32)
    np.testing.assert_allclose(rgb(np.repeat(images, 3, axis=-1)), grey(images), atol=1e-4)


def test_training_layers_take_the_same_weights(tiny_file, tiny_golden):
    from efficientnetv2.train.learning_rate import LearningRate
    from efficientnetv2.train.train_state import build_train_state, start_from_pretrained
    from hparams.resolve import resolve

    path, values = tiny_file
    settings = {f"model.{key}": value for key, value in tiny_golden[0].items()}
    settings["train.ft_init_ckpt"] = str(path)
    config = resolve("efficientnetv2-b0", "digits", settings)
    rate = LearningRate(peak=0.1, name="constant", warmup_steps=0, total_steps=1)
    train_state = build_train_state(config, rate)
    report = start_from_pretrained(config, train_state)
    assert report.loaded == len(values)
    for name, value in weights_of(train_state.model).items():
        np.testing.assert_array_equal(value, values[name])
        np.testing.assert_array_equal(train_state.average.averages[name], values[name])
    train_state.context.step.assign(1)
    assert start_from_pretrained(config, train_state) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("nowhere.h5", "there are no weights 'nowhere.h5': give the path of a file, or one of im"),
        ("jft", "there are no weights 'jft' for efficientnetv2-b0; known: imagenet, imagenet21k"),
    ],
)
def test_weights_that_are_not_there(weights, message):
    with pytest.raises(UserError, match=message):
        get_model("efficientnetv2-b0", weights=weights)


def test_a_resnet_has_none():
    with pytest.raises(WeightsError, match="pretrained weights are not supported for resnet50"):
        layer_map_of(resolve_model("resnet50"))


def test_paths_may_be_text(tiny_file, build_tiny):
    path, _ = tiny_file
    assert isinstance(path, pathlib.Path)
    build_tiny(weights=str(path))
