"""Tests predictions of image files: views, features, broken files and heat maps."""

import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import evaluation_image
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.evaluation.gradcam import heat_maps, overlay
from efficientnetv2.evaluation.image_prediction import UnreadableImage
from efficientnetv2.evaluation.predictor import predict
from efficientnetv2.model.factory import build_model
from efficientnetv2.reporting.prediction_journal import PredictionJournal
from hparams import UserError, resolve
from hparams.choices import RESIZES

ROOT = pathlib.Path(__file__).parents[3]

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


@pytest.mark.parametrize("resize", RESIZES)
def test_one_view_is_what_evaluation_sees(model, paths, resize):
    config = config_of(**{"data.resize": resize})
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
    assert list(find_images(pathlib.Path(tmp_path / "[x].png"))) == [tmp_path / "[x].png"]


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


# -------------------------------------------------------------------- the command, to its end

FLAGS = [
    "--mode=infer",
    "--model_name=efficientnetv2-b0",
    "--hparam_str=model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,"
    "model.num_classes=7,eval.isize=16,eval.batch_size=1",  # equal bits, whichever come together
]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(10):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 20, 3)).astype(np.uint8)
        (folder / f"{index}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_stopped_command_goes_on(suffix, main_tf2, tiny_weights, photos, tmp_path, monkeypatch):
    (photos / "4.png").write_text("no image")
    flags = [*FLAGS, f"--weights={tiny_weights}", "--image_path=photos", "--features", "--explain"]
    flags += ["--output_dir=out", "--top_k=3"]
    whole = main_tf2(*flags, f"--output=whole.{suffix}", cwd=tmp_path)
    assert whole.returncode == 2 and whole.stderr.count("\n") == 1
    expected = dict(np.load(tmp_path / "out" / "features.npz"))
    shutil.rmtree(tmp_path / "out")

    add, added = PredictionJournal.add, []

    def add_and_stop(journal, part, features):
        add(journal, part, features)
        added.extend(row for row in part if not isinstance(row, str))
        if len(added) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PredictionJournal, "add", add_and_stop)
    stopped = main_tf2(*flags, f"--output=all.{suffix}", cwd=tmp_path)
    assert (stopped.returncode, stopped.stderr) == (143, "main_tf2.py: stopped by SIGTERM\n")
    partial = tmp_path / f".all.{suffix}.partial"
    assert f"6 predictions are kept in '{partial.name}'; the same command" in stopped.stdout
    assert not (tmp_path / f"all.{suffix}").exists() and partial.exists()

    again = main_tf2(*flags, f"--output=all.{suffix}", cwd=tmp_path)
    assert again.returncode == 2 and again.stdout.startswith("going on after 6 of 10 images\n")
    assert len(added) == 9  # none of them twice
    assert "\n3 images in " in again.stdout
    files = [(tmp_path / f"{name}.{suffix}").read_text() for name in ("whole", "all")]
    assert files[0] == files[1]
    for name, values in np.load(tmp_path / "out" / "features.npz").items():
        np.testing.assert_array_equal(values, expected[name])
    pictures = sorted(path.name for path in (tmp_path / "out" / "explain").iterdir())
    assert pictures == [f"{n + 1:05}-{n}.png" for n in range(10) if n != 4]
    assert not partial.exists()


@pytest.mark.slow
def test_a_killed_command_keeps_what_it_had(
    main_tf2, start_process, tiny_weights, photos, tmp_path, wait_until
):
    for index in range(10, 600):
        shutil.copyfile(photos / f"{index % 10}.png", photos / f"{index}.png")
    flags = [*FLAGS, f"--weights={tiny_weights}", "--image_path=photos", "--output=all.csv"]
    process = start_process(ROOT / "main_tf2.py", *flags, cwd=tmp_path)
    partial = tmp_path / ".all.csv.partial"
    wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") >= 50)
    process.kill()
    process.wait()
    kept = (tmp_path / ".all.csv.state").read_bytes().count(b"\n") - 1
    assert partial.read_bytes().count(b"\n") - 1 in (kept, kept + 1)
    result = main_tf2(*flags, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith(f"going on after {kept:,} of 600 images\n")
    rows = (tmp_path / "all.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == sorted(
        f"photos/{index}.png" for index in range(600)
    )
    assert len({row.split(",")[1] + row.split(",")[2][:5] for row in rows}) <= 10


def test_a_picture_of_a_long_name_is_drawn(main_tf2, tiny_weights, photos, tmp_path):
    name = "ü" * 125
    shutil.copyfile(photos / "0.png", photos / f"{name}.png")
    flags = [*FLAGS, f"--weights={tiny_weights}", f"--image_path=photos/{name}.png", "--explain"]
    result = main_tf2(*flags, "--output_dir=out", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    (picture,) = (tmp_path / "out" / "explain").iterdir()
    assert picture.name.startswith("00001-üü") and picture.name.endswith("ü.png")


UNWRITABLE = {
    "photos.csv": "it is a folder",
    "/proc/a.csv": "No such file or directory",
    f"{'a' * 300}.csv": "File name too long",
    "nowhere/a.csv": "the folder 'nowhere' does not exist",
    "a.txt": "--output must end in .csv, .json, .jsonl, .parquet",
}


@pytest.mark.parametrize(("output", "message"), UNWRITABLE.items())
def test_what_cannot_be_written_is_refused_at_once(
    output, message, main_tf2, tiny_weights, photos, tmp_path, monkeypatch
):
    from efficientnetv2.commands import infer

    monkeypatch.setattr(infer, "import_tensorflow", lambda: pytest.fail("too late"))
    (tmp_path / "photos.csv").mkdir()
    (tmp_path / "file").touch()
    flags = [*FLAGS, f"--weights={tiny_weights}", "--image_path=photos"]
    result = main_tf2(*flags, f"--output={output}", cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
    result = main_tf2(*flags, "--explain", "--output_dir=file", cwd=tmp_path)
    assert result.returncode == 2 and "'file' is a file" in result.stderr
