"""Tests predictions of image files: views, features, broken files and heat maps."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import evaluation_image
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.evaluation.gradcam import heat_maps, overlay
from efficientnetv2.evaluation.predictor import UnreadableImage, predict
from efficientnetv2.model.factory import build_model
from hparams import UserError, resolve

SETTINGS = {
    "model.blocks_args": ["r1_k3_s2_e2_i8_o8_se0.25"],
    "model.feature_size": 12,
    "eval.isize": 28,
    "eval.batch_size": 2,
}


def config_of(**overrides):
    return resolve("efficientnetv2-s", "digits", {**SETTINGS, **overrides})


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return build_model(config_of().model)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(5)
    files = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        pixels = rng.integers(0, 256, (40, 40 + 8 * index, 3)).astype(np.uint8)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
        files.append(path)
    return files


def softmax_of(model, images):
    return tf.nn.softmax(model(tf.stack(images), training=False)).numpy()


def test_one_view_is_what_evaluation_sees(model, paths):
    config = config_of()
    images = [evaluation_image(config, tf.constant(path.read_bytes())) for path in paths]
    predictions = list(predict(model, config, paths))
    assert [prediction.path for prediction in predictions] == paths
    probabilities = np.stack([prediction.probabilities for prediction in predictions])
    np.testing.assert_allclose(probabilities, softmax_of(model, images), atol=1e-6)
    assert {prediction.features for prediction in predictions} == {None}
    for prediction, image in zip(predictions, images):
        np.testing.assert_array_equal(prediction.image, image)


@pytest.mark.parametrize("crops", [1, 5])
@pytest.mark.parametrize("flip", [False, True])
def test_several_views_count_by_their_mean(model, paths, crops, flip):
    larger = config_of(**{"eval.isize": 28 if crops == 1 else 32})  # 28 * 8 / 7
    for path, prediction in zip(paths, predict(model, config_of(), paths, crops=crops, flip=flip)):
        whole = evaluation_image(larger, tf.constant(path.read_bytes())).numpy()
        places = [(0, 0)] if crops == 1 else [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
        views = [whole[y : y + 28, x : x + 28] for y, x in places]
        views += [view[:, ::-1] for view in views] if flip else []
        expected = softmax_of(model, views).mean(axis=0)
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
        np.testing.assert_array_equal(prediction.image, views[0])


def test_features_are_what_the_classifier_sees(model, paths):
    kernel, bias = model.get_layer("predictions").get_weights()
    for prediction in predict(model, config_of(), paths, with_features=True):
        assert prediction.features.shape == (len(kernel),)
        logits = prediction.features @ kernel + bias
        np.testing.assert_allclose(
            tf.nn.softmax(logits).numpy(), prediction.probabilities, atol=1e-5
        )


def test_several_labels_an_image_have_probabilities_of_their_own(model, paths):
    config = config_of(**{"train.loss_type": "sigmoid"})
    image = evaluation_image(config, tf.constant(paths[0].read_bytes()))
    expected = tf.nn.sigmoid(model(image[tf.newaxis], training=False))[0]
    np.testing.assert_allclose(
        next(predict(model, config, paths)).probabilities, expected, atol=1e-6
    )


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_broken_images_do_not_end_the_others(model, paths, tmp_path, place):
    broken = [tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "gone.png"]
    broken[0].write_bytes(b"")
    broken[1].write_text("no image")
    mixed = [*paths[:place], *broken, *paths[place:]]
    predictions = list(predict(model, config_of(), mixed))
    assert [prediction.path for prediction in predictions] == mixed
    bad = [prediction for prediction in predictions if isinstance(prediction, UnreadableImage)]
    reasons = [
        "image '{}' is empty",
        "'{}' is not an image or is damaged",
        "cannot read image '{}'",
    ]
    for prediction, path, reason in zip(bad, broken, reasons):
        assert prediction.reason.startswith(reason.format(path))
        assert "\n" not in prediction.reason
    good = [prediction for prediction in predictions if not isinstance(prediction, UnreadableImage)]
    alone = list(predict(model, config_of(), paths))
    for prediction, other in zip(good, alone):
        np.testing.assert_allclose(prediction.probabilities, other.probabilities, atol=1e-6)


def test_patterns_find_files(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    names = ["2.png", "1.png", "a/3.png", "a/b/4.png", "a/5.txt"]
    for name in names:
        (tmp_path / name).touch()

    def matches(pattern):
        return [str(p.relative_to(tmp_path)) for p in find_images(tmp_path / pattern)]

    assert matches("*.png") == ["1.png", "2.png"]
    assert matches("**/*.png") == ["1.png", "2.png", "a/3.png", "a/b/4.png"]
    assert matches("a/[35]*") == ["a/3.png", "a/5.txt"]
    with pytest.raises(UserError, match=r"--image_path '.*\*\.jpg' matches no file"):
        find_images(tmp_path / "*.jpg")
    (tmp_path / "[x].png").touch()
    assert find_images(pathlib.Path(tmp_path / "[x].png")) == [tmp_path / "[x].png"]


def test_the_heat_is_where_the_class_is():
    """The feature maps are bright where the image is, and speak for class 1, against class 0."""
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.AveragePooling2D(2)(inputs)
    maps = keras.layers.Activation("relu", name="top_activation")(maps)
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(maps)
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    model.layers[-1].set_weights([np.array([[-1.0, 1.0]] * 3), np.zeros(2)])
    images = np.zeros((2, 8, 8, 3), np.float32)
    images[0, :2, 6:] = 1.0
    images[0, 6:, :2] = 0.5
    heat = heat_maps(model, tf.constant(images), np.array([1, 1]))
    expected = np.zeros((4, 4))
    expected[0, 3], expected[3, 0] = 1.0, 0.5
    np.testing.assert_allclose(heat[0], expected, atol=1e-6)
    np.testing.assert_array_equal(heat[1], np.zeros((4, 4)))
    against = heat_maps(model, tf.constant(images), np.array([0, 0]))
    np.testing.assert_array_equal(against, np.zeros((2, 4, 4)))


def test_a_picture_without_heat_is_the_image():
    image = np.random.default_rng(0).uniform(-1, 0.9, (320, 320, 3)).astype(np.float32)
    picture = overlay(image, np.zeros((4, 4), np.float32), preprocess="v2")
    np.testing.assert_allclose(picture, image * 128 + 128, atol=1)
    hot = overlay(image, np.ones((4, 4), np.float32), preprocess="v2")
    assert np.abs(hot.astype(int) - picture).mean() > 20
