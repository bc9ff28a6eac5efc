"""Tests that Keras models that users make are exported as they are, or refused in one line."""

import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow import keras

import efficientnetv2 as env2
from efficientnetv2.cli import main
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.int8.arithmetic import is_known
from efficientnetv2.model.flat_model import flatten
from efficientnetv2.model.fold_batchnorm import fold

from .conftest import with_random_batchnorm

layers = keras.layers
SIZE = 24
# Without those whose packages are not installed.
INSTALLED = [name for name, row in FORMATS.items() if all(map(find_spec, row.requires))]


def backbone(images):
    """A convolution with squeeze-and-excitation, as in the blocks of an EfficientNet."""
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    x = layers.Activation("silu")(layers.BatchNormalization(scale=False)(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    return layers.GlobalAveragePooling2D()(layers.Multiply()([x, gate]))


def nested_model():
    """Augmentation, preprocessing, a nested backbone and a head of two layers; compiled."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((SIZE, SIZE, 3))
    body = with_random_batchnorm_in(keras.Model(inner, backbone(layers.Rescaling(1 / 255)(inner))))
    model = keras.Sequential(
        [
            *(keras.Input((SIZE, SIZE, 3)), layers.RandomFlip(), layers.RandomRotation(0.1)),
            *(body, layers.BatchNormalization(), layers.Dropout(0.2)),
            *(layers.Dense(8, activation="relu"), layers.Dense(3), layers.Softmax()),
        ]
    )
    model.layers[-2].set_weights([20 * model.layers[-2].get_weights()[0], np.zeros(3)])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def with_random_batchnorm_in(model):
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
    return model


@pytest.fixture(scope="module")
def smooth():
    """36 images of 0..255, in which neighbouring pixels are alike."""
    coarse = np.random.default_rng(1).uniform(0, 255, (36, 3, 3, 3))
    return np.float32(np.round(np.kron(coarse, np.ones((1, 8, 8, 1)))))


@pytest.fixture(scope="module")
def photos(tmp_path_factory, smooth):
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(smooth):
        Image.fromarray(np.uint8(image)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def nested(tmp_path_factory, photos):
    """(model, folder of its exported files, what was printed) of a ``.keras`` file."""
    folder = tmp_path_factory.mktemp("nested")
    model = nested_model()
    model.save(folder / "mine.keras")
    (folder / "names.txt").write_text("ant\nbee\ncat\n")
    code = main(
        [
            *("main_tf2.py", "export", str(photos), f"--weights={folder}/mine.keras"),
            *(f"--format={','.join(INSTALLED)}", f"--output_dir={folder}/out"),
            f"--class_names={folder}/names.txt",
        ]
    )
    assert code == 0
    return model, folder / "out"


@pytest.mark.parametrize("name", INSTALLED)
def test_a_keras_file_goes_to_every_format(nested, smooth, name):
    model, folder = nested
    content = json.loads((folder / "export.json").read_text())
    path = folder / f"mine{FORMATS[name].suffix}"
    check = content["files"][path.name]
    assert check["fault"] is None
    expected = model.predict(smooth, verbose=0)
    run = FORMATS[name].open(path)
    outputs = np.concatenate([run(image[np.newaxis]) for image in smooth])
    is_exact = FORMATS[name].limit.difference is not None
    np.testing.assert_allclose(outputs, expected, atol=1e-5 if is_exact else 0.05)
    assert expected.std(axis=0).max() > 0.01


def test_what_the_files_say(nested):
    _, folder = nested
    content = json.loads((folder / "export.json").read_text())
    assert (folder / "labels.txt").read_text() == "ant\nbee\ncat\n"
    expected = {
        "model_name": "mine",
        "image_size": SIZE,
        "input_range": [0, 255],
        "output": "probabilities",
        "resize": "squash",
    }
    assert expected.items() <= content.items()
    np.testing.assert_allclose(content["deviation"], [255] * 3)
    signatures = tf.saved_model.load(str(folder / "mine_saved_model")).signatures
    assert set(signatures) == {"serving_default", "serving_bytes", "features"}
    assert signatures["features"].structured_outputs["features"].shape[1] == 8


def test_the_users_model_stays_as_it_is(nested, smooth):
    model, folder = nested
    again = keras.models.load_model(folder / "mine.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert "random_flip" in [layer.name.rstrip("_0123456789") for layer in again.layers]
    np.testing.assert_allclose(again.predict(smooth, verbose=0), model.predict(smooth, verbose=0))


def test_keras_network_is_flat_and_known_to_the_quantiser(smooth):
    body = keras.applications.EfficientNetV2B0(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    with_random_batchnorm(body)
    images = keras.Input((32, 32, 3))
    x = layers.Dense(5, activation="sigmoid")(layers.Dropout(0.2)(body(images, training=False)))
    model = keras.Model(images, x)
    folded = fold(flatten(model))
    assert all(map(is_known, folded.operations))
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    pixels = np.tile(smooth[:4], (1, 2, 2, 1))[:, :32, :32]
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(folded.predict(pixels, verbose=0), expected, atol=1e-5)
    assert len(body.layers) > 200  # and nothing was added to the user's model
    assert all(len(layer._inbound_nodes) <= 1 for layer in body.layers)


def test_our_network_in_memory_with_a_data_set(tmp_path, smooth, capsys):
    """The data set has labels, so that the accuracy is checked; the model gives logits."""
    blocks = {"blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "feature_size": 8}
    body = env2.get_model(
        "efficientnetv2-b0",
        overrides=blocks,
        include_top=False,
        pooling="avg",
        input_shape=(SIZE, SIZE, 3),
        include_preprocessing=True,
    )
    model = keras.Sequential([body, layers.Dense(4)])
    labels = model.predict(smooth, verbose=0).argmax(axis=1)
    labels[1] = (labels[1] + 1) % 4  # of the half that is checked on
    data = tf.data.Dataset.from_tensor_slices((smooth, labels)).batch(5)
    path = env2.export("tflite", model, images=data, class_names=list("abcd"), output_dir=tmp_path)
    content = json.loads((tmp_path / "export.json").read_text())
    assert (content["output"], content["images"]) == ("logits", 18)
    assert content["keras_accuracy"] == pytest.approx(17 / 18)
    np.testing.assert_allclose(content["mean"], [123.675, 116.28, 103.53])
    outputs = np.concatenate([FORMATS["tflite"].open(path)(x[np.newaxis]) for x in smooth])
    np.testing.assert_allclose(outputs, model.predict(smooth, verbose=0), atol=1e-4)
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def odd_model():
    """Takes 0..1, has a layer that our quantiser does not know, and one that LiteRT lacks."""
    images = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, strides=2, activation="gelu")(images * 2.0 - 1.0)
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, 1, padding="same")(x)])
    x = layers.Dense(1, activation="sigmoid")(layers.GlobalMaxPooling2D()(x))
    return keras.Model(images, x, name="odd")


def test_other_layers_are_quantised_by_tensorflow(odd_model, smooth, tmp_path, capsys):
    path = env2.export(
        "tflite_int8",
        odd_model,
        images=(smooth / 255, np.arange(36) % 2),
        output_dir=tmp_path,
        verbose=True,
    )
    text = capsys.readouterr().out
    assert "quantised by TensorFlow" in text
    assert "AveragePooling2D, Concatenate" in text
    content = json.loads((tmp_path / "export.json").read_text())
    assert content["input_range"] == [0, 1]
    assert content["thresholds"] == [0.5]
    outputs = np.concatenate(
        [FORMATS["tflite_int8"].open(path)(x[np.newaxis] / 255) for x in smooth]
    )
    np.testing.assert_allclose(outputs, odd_model.predict(smooth / 255, verbose=0), atol=0.03)


def test_files_become_what_the_model_takes(odd_model, photos, smooth, tmp_path):
    env2.export("saved_model", odd_model, images=photos, output_dir=tmp_path)
    loaded = tf.saved_model.load(str(tmp_path / "odd_saved_model"))
    encoded = tf.constant([(photos / "00.png").read_bytes()])
    outputs = loaded.signatures["serving_bytes"](image_bytes=encoded)["probabilities"]
    expected = odd_model.predict(smooth[:1] / 255, verbose=0)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_a_layer_that_litert_lacks_is_named_and_the_rest_written(smooth, tmp_path):
    images = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, layers.Dense(2)(keras.ops.erfinv(0.1 * x)), name="lacks")
    with pytest.raises(env2.UserError, match=r"not written: --format=tflite: LiteRT has no Erfinv"):
        env2.export(["tflite", "saved_model"], model, images=smooth, output_dir=tmp_path)
    assert (tmp_path / "lacks_saved_model").is_dir()


def test_a_normalisation_in_front(smooth, photos, tmp_path):
    """A model of normalised images is asked about, and takes pixels once it is known."""
    images = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(images, layers.Dense(2)(backbone(images)), name="normalised")
    with pytest.raises(env2.UserError, match="does not normalise images"):
        env2.export("tflite", model, images=photos, output_dir=tmp_path)
    path = env2.export(
        "tflite",
        model,
        images=photos,
        output_dir=tmp_path,
        overrides={"model.preprocess": "v2"},
    )
    outputs = np.concatenate([FORMATS["tflite"].open(path)(x[np.newaxis]) for x in smooth])
    expected = model.predict(smooth / 128 - 1, verbose=0)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    env2.export("onnx", model, images=smooth, output_dir=tmp_path)  # arrays are as it takes them
    content = json.loads((tmp_path / "export.json").read_text())
    assert content["input_range"] == "that of the images that the model was trained on"


def dense_of(*shape, **options):
    images = keras.Input(shape)
    return keras.Model(images, layers.Dense(2)(layers.GlobalAveragePooling2D()(images), **options))


def two_inputs():
    pair = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(pair, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Add()(pair))))


def with_lambda():
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Lambda(lambda x: x / 255, name="scale")(images))
    return keras.Model(images, layers.Dense(2)(x))


class Mine(layers.Layer):
    def call(self, x):
        return 2 * x


def with_own_layer():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, layers.Dense(2)(layers.GlobalAveragePooling2D()(Mine()(images))))


def vectors():
    numbers = keras.Input((8,))
    return keras.Model(numbers, layers.Dense(2)(numbers))


def maps():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, layers.Conv2D(2, 1)(images))


class Subclass(keras.Model):
    def call(self, x):
        return x


REFUSED = {
    two_inputs: "has 2 inputs",
    with_lambda: "has the Lambda layer 'scale', which is code",
    with_own_layer: "of the class Mine, which is not Keras's own",
    vectors: r"must take images \[batch, height, width, channels\], but takes \[None, 8\]",
    maps: r"must give \[batch, K\] outputs, but gives \(None, 8, 8, 2\)",
    Subclass: "neither a Functional nor a Sequential model",
    lambda: dense_of(None, None, 3): "images of any size; say which with --image_size=224",
    lambda: dense_of(8, 16, 3): "images of 8 x 16; exports are for square ones",
    lambda: keras.Sequential([layers.Dense(2)]): "has not been built",
}


@pytest.mark.parametrize(("make", "line"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_cannot_be_exported_is_one_line(make, line, tmp_path):
    with pytest.raises(env2.UserError, match=line) as error:
        env2.export("tflite", make(), images=np.zeros([2, 8, 8, 3]), output_dir=tmp_path)
    assert "\n" not in str(error.value)


ARGUMENTS = {
    "needs images to check": {"images": None},
    "--logits has no use": {"logits": True},
    "--nopreprocessing: a Keras model is exported as it is": {"preprocessing": False},
    "class_names has 1 names": {"class_names": ["a"]},
    "takes images of 8 pixels": {"image_size": 16},
    "train.seed has no effect": {"overrides": {"train.seed": 1}},
    r"images must be \[N, 8, 8, 3\]": {"images": np.zeros([2, 9, 9, 3])},
    "not finite": {"images": np.full([2, 8, 8, 3], np.nan)},
    "2 images and 3 labels": {"images": (np.zeros([2, 8, 8, 3]), [0, 1, 1])},
    "has the label 2; labels must be 0 to 1": {"images": (np.zeros([2, 8, 8, 3]), [0, 2])},
    "one of them": {"weights": "x.keras"},
    "--model_dir has no use": {"model_dir": "runs/x"},
    "model must be": {"model": 3},
}


@pytest.mark.parametrize(("line", "arguments"), ARGUMENTS.items(), ids=range(len(ARGUMENTS)))
def test_arguments_without_use_are_refused(line, arguments, tmp_path):
    given = {"model": dense_of(8, 8, 3), "images": np.zeros([2, 8, 8, 3]), **arguments}
    with pytest.raises(env2.UserError, match=re.sub("^--", "--", line)):
        env2.export("tflite", output_dir=tmp_path, **given)


def test_a_file_is_refused_before_tensorflow_is_needed(tmp_path, photos, monkeypatch, capsys):
    with_lambda().save(tmp_path / "code.keras")
    monkeypatch.setattr("efficientnetv2.commands.own_export.import_tensorflow", None)
    assert main(["main_tf2.py", "export", str(photos), f"--weights={tmp_path}/code.keras"]) == 2
    assert "has the Lambda layer 'scale'" in capsys.readouterr().err
