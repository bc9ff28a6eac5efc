"""Tests networks of torchvision, timm and transformers, as these libraries wrote them.

tests/golden/make_torch_networks.py made the files and the logits.
"""

import functools
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images
from tensorflow import keras

from efficientnetv2 import for_inference, get_model
from efficientnetv2.applications import EfficientNetB0
from efficientnetv2.checkpoints.file_settings import settings_of_weights
from efficientnetv2.checkpoints.pretrained_model import layer_map_of
from efficientnetv2.checkpoints.reader import read_weights
from efficientnetv2.checkpoints.torch_names import nvidia_names, to_torch, torchvision_names
from efficientnetv2.data.eval_input import evaluation_image, evaluation_pixels
from hparams import resolve
from hparams.errors import WeightsError
from hparams.resolve import resolve_model

V1 = {
    "blocks_args": [
        "r1_k3_s1_e1_i8_o8_se0.25",
        "r2_k5_s2_e6_i8_o8_se0.25",
        "r1_k3_s2_e6_i8_o16_se0.25",
    ],
    "feature_size": 64,
}
WIDE_FIRST = {
    "blocks_args": [
        "r1_k3_s1_e1_i8_o16_se0.25",
        "r2_k5_s2_e6_i16_o8_se0.25",
        "r1_k3_s2_e6_i8_o16_se0.25",
    ],
    "feature_size": 64,
}
V2 = {
    "blocks_args": [
        "r1_k3_s1_e1_i8_o8_c1",
        "r2_k3_s2_e4_i8_o8_c1",
        "r2_k3_s2_e4_i8_o16_se0.25",
    ],
    "feature_size": 24,
}
NETWORKS = {
    "torchvision_v2": ("efficientnetv2-s", V2, "weights.pth"),
    "torchvision_v1": ("efficientnet-b0", V1, "weights.pth"),
    "timm_v1": ("efficientnet-b0", V1, ""),
    "transformers_v1": ("efficientnet-b0", WIDE_FIRST, ""),
}
CLASSES = 5


def unpacked(golden, name, tmp_path_factory):
    """Returns a folder with the files of a golden archive, and the arrays among them."""
    folder = tmp_path_factory.mktemp(name)
    with tarfile.open(golden / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder, np.load(folder / "arrays.npz")


@pytest.fixture(scope="module")
def files(golden, tmp_path_factory):
    """The folder with the files of each library, and their arrays."""
    return unpacked(golden, "torch_networks", tmp_path_factory)


@pytest.fixture(scope="module")
def build(files):
    """Returns a function that builds one of the networks with its weights."""
    folder, _ = files

    @functools.cache
    def build(network, **options):
        name, overrides, file = NETWORKS[network]
        return get_model(
            name,
            weights=folder / network / file,
            num_classes=CLASSES,
            overrides=overrides,
            **options,
        )

    return build


def assert_logits(model, files, network):
    """Compares the logits with the library's at each size, relative to the largest."""
    _, arrays = files
    sizes = [int(key.rpartition("_")[2]) for key in arrays if key.startswith(network)]
    assert sizes
    for size in sizes:
        expected = arrays[f"{network}_{size}"]
        logits = model(arrays[f"pixels_{size}"] / np.float32(8) - 1, training=False)
        assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
        assert np.ptp(expected) > 0.1  # the images are told apart


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_are_those_of_the_library(files, build, network):
    assert_logits(build(network), files, network)


@pytest.mark.parametrize("network", ["torchvision_v2", "torchvision_v1"])
def test_folded_networks_pad_in_the_same_way(files, build, network):
    assert_logits(for_inference(build(network)), files, network)


def test_a_saved_model_opens_without_this_package(files, build, tmp_path):
    build("torchvision_v2").save(tmp_path / "model.keras")
    assert_logits(keras.models.load_model(tmp_path / "model.keras"), files, "torchvision_v2")


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"padding": "same"}, 1e-2), ({"bn_epsilon": 1e-3}, 1e-3), ({"padding": "torch"}, 0.0)],
)
def test_padding_and_epsilon_matter(files, settings, error):
    folder, arrays = files
    name, overrides, file = NETWORKS["torchvision_v1"]
    model = get_model(
        name,
        weights=folder / "torchvision_v1" / file,
        num_classes=CLASSES,
        overrides={**overrides, **settings},
    )
    expected = arrays["torchvision_v1_64"]
    logits = model(arrays["pixels_64"] / np.float32(8) - 1)
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    assert difference > error if error else difference < 1e-5


@pytest.fixture(scope="module")
def preset(golden, tmp_path_factory):
    """The folder of a KerasHub preset, and its arrays; tests/golden/make_keras_hub.py made them."""
    return unpacked(golden, "keras_hub", tmp_path_factory)


def test_a_preset_of_keras_hub(preset):
    folder, arrays = preset
    model = get_model("efficientnet-b0", weights=folder, num_classes=CLASSES, overrides=V1)
    for size in (64, 75):
        expected = arrays[f"logits_{size}"]
        logits = model(arrays[f"pixels_{size}"] / np.float32(8) - 1, training=False)
        assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
    assert settings_of_weights(folder, model_name="efficientnet-b0") == {
        "model.padding": "torch",
        "model.bn_epsilon": 1e-5,
        "model.preprocess": "torch_bicubic",
    }


def test_a_preset_without_its_classifier(preset, tmp_path):
    for name in ("config.json", "model.weights.h5"):
        shutil.copyfile(preset[0] / name, tmp_path / name)
    options = {"weights": tmp_path, "overrides": V1}
    model = get_model("efficientnet-b0", include_top=False, **options)
    assert model.get_layer("stem_conv_padding")
    with pytest.raises(WeightsError, match="has no classifier; give num_classes to make a new one"):
        get_model("efficientnet-b0", **options)


@pytest.mark.parametrize("is_earlier", [False, True])
def test_names_of_nvidia(build, torch_files, tmp_path, is_earlier):
    """No file of theirs could be had here: the names are those of their public source."""
    layers = layer_map_of(resolve_model("efficientnet-b0", V1))
    names = nvidia_names(layers, is_earlier=is_earlier)
    stage = "layer2" if is_earlier else "layers.1"
    assert names["block2b_expand_bn/gamma"] == f"{stage}.block1.expand.bn.weight"
    assert names["block2a_se_reduce/bias"] == f"{stage}.block0.se.squeeze.bias"
    assert names["block2a_project_conv/kernel"] == f"{stage}.block0.proj.conv.weight"
    assert names["predictions/kernel"] == "classifier.fc.weight"
    own = {weight.path: weight.numpy() for weight in build("torchvision_v1").weights}
    state = {
        names[f"{layer.name}/{v}"]: to_torch(layer, v, own[f"{layer.name}/{v}"])
        for layer in layers
        for v in layer.variables
    }
    for name, value in state.items():
        if ".se." in name and name.endswith("weight"):
            state[name] = value[:, :, 0, 0]  # a linear layer
    path = torch_files["zip"](tmp_path / "nvidia.pth", {"state_dict": state})
    stored = read_weights(path, layers, model_name="efficientnet-b0")
    assert set(stored.values) == set(own) and stored.extra == ()
    for name, value in stored.values.items():
        np.testing.assert_array_equal(value, own[name])
    settings = settings_of_weights(path, model_name="efficientnet-b0")
    assert (settings["model.padding"], settings["model.bn_epsilon"]) == ("torch", 1e-3)
    assert settings["eval.crop_pct"] == 224 / 256


@pytest.mark.slow
def test_applications_take_such_files(torch_files, tmp_path):
    source = get_model("efficientnet-b0", overrides={"padding": "torch", "bn_epsilon": 1e-5})
    layers = layer_map_of(resolve_model("efficientnet-b0"))
    names = torchvision_names(layers)
    own = {weight.path: weight.numpy() for weight in source.weights}
    state = {
        names[f"{layer.name}/{v}"]: to_torch(layer, v, own[f"{layer.name}/{v}"])
        for layer in layers
        for v in layer.variables
    }
    path = torch_files["zip"](tmp_path / "b0.pth", state)
    model = EfficientNetB0(weights=path, classifier_activation=None, input_shape=(64, 64, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    expected = source((pixels / 255 - mean) / deviation, training=False)
    np.testing.assert_allclose(model(pixels, training=False), expected, atol=1e-5)


PHOTOS = [("bilinear", 48, 51), ("bicubic", 40, 47), ("bicubic", 45, 45)]


@pytest.mark.parametrize(("kind", "crop_size", "resize_size"), PHOTOS)
def test_images_are_those_of_torchvision(files, kind, crop_size, resize_size):
    settings = {
        "model.preprocess": f"torch_{kind}",
        "eval.isize": crop_size,
        "eval.crop_pct": crop_size / resize_size,
    }
    config = resolve("efficientnet-b0", "imagenet2012", settings)
    for number, photo in enumerate(load_sample_images().images):
        pixels = evaluation_pixels(config, tf.io.encode_png(photo)).numpy()
        expected = files[1][f"photo_{kind}_{crop_size}_{resize_size}_{number}"].astype(np.float32)
        assert np.abs(pixels - expected).max() <= 1
        assert np.mean(pixels != expected) < 0.02
        normalised = evaluation_image(config, tf.io.encode_png(photo)).numpy()
        deviation = np.array([0.229, 0.224, 0.225])
        mean = np.array([0.485, 0.456, 0.406])
        np.testing.assert_allclose(normalised, (pixels / 255 - mean) / deviation, atol=1e-5)


TORCH = {"model.padding": "torch"}
BICUBIC = {"model.preprocess": "torch_bicubic"}


@pytest.mark.parametrize(
    ("network", "model_name", "settings"),
    [
        (
            "torchvision_v2",
            "efficientnetv2-s",
            {
                **TORCH,
                "model.bn_epsilon": 1e-3,
                "model.preprocess": "torch_bilinear",
                "eval.isize": 384,
                "eval.crop_pct": 1.0,
            },
        ),
        (
            "torchvision_v1",
            "efficientnet_b0",
            {
                **TORCH,
                **BICUBIC,
                "model.bn_epsilon": 1e-5,
                "eval.isize": 224,
                "eval.crop_pct": 0.875,
            },
        ),
        (
            "timm_v1",
            "efficientnet-b0",
            {
                **TORCH,
                **BICUBIC,
                "model.bn_epsilon": 1e-5,
                "eval.isize": 224,
                "eval.crop_pct": 0.875,
            },
        ),
        ("transformers_v1", "efficientnet-b0", {"model.bn_epsilon": 1e-3}),
        ("torchvision_v1", "resnet50", {}),
    ],
)
def test_settings_are_recognised(files, network, model_name, settings):
    weights = files[0] / network / NETWORKS[network][2]
    assert settings_of_weights(weights, model_name=model_name) == settings


@pytest.mark.parametrize(
    ("file", "crop_pct"),
    [
        ("efficientnet_b1-c27df63c.pth", 240 / 255),
        ("efficientnet_b1_rwightman-bac287d4.pth", 240 / 256),
        ("mine.pth", 240 / 255),
    ],
)
def test_the_two_weights_of_b1_are_told_apart_by_the_name_of_the_file(
    files, tmp_path, file, crop_pct
):
    shutil.copyfile(files[0] / "torchvision_v1" / "weights.pth", tmp_path / file)
    settings = settings_of_weights(tmp_path / file, model_name="efficientnet-b1")
    assert settings["eval.crop_pct"] == crop_pct


@pytest.mark.parametrize(
    ("file", "is_torch"),
    [
        ("efficientnet_b0_ra-3dd342df.pth", True),
        ("tf_efficientnet_b0_aa-827b6e33.pth", False),
        ("efficientnet-b0.safetensors", False),
    ],
)
def test_without_config_json_the_name_of_a_file_of_timm_decides(files, tmp_path, file, is_torch):
    shutil.copyfile(files[0] / "timm_v1" / "model.safetensors", tmp_path / file)
    settings = settings_of_weights(tmp_path / file, model_name="efficientnet-b0")
    assert (settings.get("model.padding") == "torch") == is_torch


def test_other_files_and_damaged_ones_have_no_settings(tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"PK\3\4 damaged")
    (tmp_path / "config.json").write_text("[1, 2")
    for weights in (None, "random", tmp_path / "damaged.pth", tmp_path, "nowhere"):
        assert settings_of_weights(weights, model_name="efficientnet-b0") == {}
