"""Tests that every format gives the logits of the official code, of timm and of Keras."""

import json
import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.checkpoints.pretrained_model import layer_map_of
from efficientnetv2.checkpoints.reader import read_weights
from efficientnetv2.checkpoints.safetensors_file import safetensors_bytes
from efficientnetv2.checkpoints.torch_names import port_names, timm_names, to_torch
from efficientnetv2.runtime import checkpoint_store
from efficientnetv2.train.ema import MovingAverage
from efficientnetv2.train.train_state import named_weights
from hparams.errors import WeightsError
from hparams.resolve import resolve_model

TOLERANCE = 1e-4


@pytest.mark.parametrize(
    ("place", "logits", "kind"),
    [
        ("tf1_namebased", "logits_ema", "official TF1 checkpoint, moving average"),
        ("tf1_namebased/model", "logits_ema", "official TF1 checkpoint, moving average"),
        ("tf1_namebased_head_noema/model.index", "logits_raw", "TF1 checkpoint, later names"),
        ("tf2_objectbased", "logits_tf2", "official TF2 checkpoint"),
        ("tf2_objectbased/ckpt-1", "logits_tf2", "official TF2 checkpoint"),
    ],
)
def test_official_checkpoints(golden, tiny_golden, build_tiny, place, logits, kind):
    overrides, arrays = tiny_golden
    path = golden / "tiny" / place
    model = build_tiny(weights=path)
    np.testing.assert_allclose(model(arrays["x"]), arrays[logits], atol=TOLERANCE, rtol=0)
    section = resolve_model("efficientnetv2-b0", overrides)
    stored = read_weights(path, layer_map_of(section), model_name="efficientnetv2-b0")
    assert stored.kind.endswith(kind)
    assert stored.extra == ()


def test_a_checkpoint_of_moving_averages_alone(tiny_golden, build_tiny, golden, tmp_path):
    """Reads a checkpoint like that of efficientnet-l2's release."""
    reader = tf.train.load_checkpoint(str(golden / "tiny" / "tf1_namebased" / "model"))
    names = [name for name in reader.get_variable_to_shape_map() if "ExponentialMoving" in name]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.Variable(reader.get_tensor(name)) for name in names]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(dict(zip(names, variables)))
        saver.save(session, str(tmp_path / "model"), write_meta_graph=False)
    _, arrays = tiny_golden
    logits = build_tiny(weights=tmp_path)(arrays["x"])
    np.testing.assert_allclose(logits, arrays["logits_ema"], atol=TOLERANCE, rtol=0)


def draw(name, shape):
    """Draws golden values by the crc32 of the name, in PyTorch's order of axes."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if len(shape) == 2:
        return rng.standard_normal(shape) * np.sqrt(1 / shape[1])
    if name.endswith("weight"):
        return rng.uniform(0.8, 1.2, shape)
    return rng.standard_normal(shape) * 0.1


@pytest.fixture(scope="module")
def timm_golden(golden):
    return json.loads((golden / "timm.json").read_text())["models"], np.load(golden / "timm.npz")


@pytest.mark.parametrize("name", ["efficientnetv2_b0", "efficientnet_b0", "efficientnet_lite0"])
def test_timm(timm_golden, torch_files, tmp_path, name):
    models, arrays = timm_golden
    state = {}
    for key, shape in models[f"tf_{name}"]["state"].items():
        stored = f"bn/tf_{name}/{key}"
        if key.endswith("num_batches_tracked"):
            state[key] = np.zeros([], np.int64)
        else:
            values = arrays[stored] if stored in arrays else draw(key, shape)
            state[key] = np.asarray(values, np.float32)
    path = tmp_path / "weights.bin"  # the format is recognised by the content
    path.write_bytes(safetensors_bytes(state))
    model = get_model(name.replace("_", "-"), weights=path)
    ours = {weight.path: weight.numpy() for weight in model.weights}
    layers = layer_map_of(resolve_model(name.replace("_", "-")))
    for write in torch_files.values():
        write(path, state)
        stored = read_weights(path, layers, model_name=name)
        assert stored.extra == () and set(stored.values) == set(ours)
        for variable, value in stored.values.items():
            np.testing.assert_array_equal(value, ours[variable])
    images = (arrays["x_uint8"].astype(np.float32) - 128) / 128
    expected = arrays[f"tf_{name}/logits"]
    np.testing.assert_allclose(model(images), expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def source(golden, build_tiny):
    """The tiny network with the official moving average."""
    return build_tiny(weights=golden / "tiny" / "tf1_namebased")


def check(model, tiny_golden):
    _, arrays = tiny_golden
    logits = model(arrays["x"], training=False)
    np.testing.assert_allclose(logits, arrays["logits_ema"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("suffix", ["weights.h5", "keras", "h5"])
@pytest.mark.parametrize("nested", [False, True])
def test_keras(source, build_tiny, tiny_golden, tmp_path, suffix, nested):
    path = tmp_path / f"tiny.{suffix}"
    model = keras.Sequential([keras.Input((64, 64, 3)), source]) if nested else source
    model.save_weights(path) if suffix == "weights.h5" else model.save(path)
    renamed = tmp_path / "file"
    shutil.copyfile(path, renamed)
    check(build_tiny(weights=renamed), tiny_golden)


@pytest.mark.parametrize("names_of", [timm_names, port_names])
@pytest.mark.parametrize("nest", ["", "state_dict", "state_dict_ema", "model"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_state_dictionaries(
    source, build_tiny, tiny_golden, torch_files, tmp_path, names_of, nest, form
):
    overrides, _ = tiny_golden
    layers = layer_map_of(resolve_model("efficientnetv2-b0", overrides))
    names = names_of(layers)
    own = {weight.path: weight.numpy() for weight in source.weights}
    state = {
        f"module.{names[f'{layer.name}/{v}']}": to_torch(layer, v, own[f"{layer.name}/{v}"])
        for layer in layers
        for v in layer.variables
    }
    if nest == "state_dict_ema":
        raw = {name: value + 1 for name, value in state.items()}
        state = {"epoch": 3, "state_dict": raw, nest: state}
    elif nest:
        state = {nest: state, "epoch": 3}
    options = {"folder": "any name"} if form == "zip" else {}
    path = torch_files[form](tmp_path / "x", state, **options)
    check(build_tiny(weights=path), tiny_golden)


@pytest.mark.parametrize("average", [False, True])
def test_runs_of_this_program(source, build_tiny, tiny_golden, tmp_path, average):
    weights = named_weights(source)
    items = {"weights": weights, "step": tf.Variable(3)}
    if average:
        changed = {n: tf.Variable(tf.convert_to_tensor(v) + 1) for n, v in weights.items()}
        averages = MovingAverage(weights, decay=0.9).averages
        items = {"weights": changed, "ema": averages, "optimizer": {"a/b": tf.Variable(1.0)}}
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoints").mkdir()
    prefix = tf.train.Checkpoint(**items).write(str(tmp_path / "checkpoints" / "ckpt-3"))
    (tmp_path / "checkpoints" / "checkpoint").write_text('model_checkpoint_path: "ckpt-3"\n')
    for path in (tmp_path, prefix, tmp_path / "checkpoints"):
        check(build_tiny(weights=path), tiny_golden)


def test_a_run_without_the_list_of_its_checkpoints(source, build_tiny, tiny_golden, tmp_path):
    """TensorFlow's file ``checkpoint`` may get lost; the checkpoints themselves decide."""
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoints").mkdir()
    for step, change in ((3, 1.0), (12, 0.0)):
        weights = {n: tf.Variable(v + change) for n, v in named_weights(source).items()}
        write = tf.train.Checkpoint(weights=weights).write
        checkpoint_store.write(tmp_path / "checkpoints", step, write)
    assert not (tmp_path / "checkpoints" / "checkpoint").exists()
    check(build_tiny(weights=tmp_path), tiny_golden)


def test_the_best_weights_of_a_run_come_first(source, build_tiny, tiny_golden, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "best").mkdir()
    tf.train.Checkpoint(weights=named_weights(source)).write(str(tmp_path / "best" / "ckpt-2"))
    (tmp_path / "best" / "best.json").write_text('{"step": 2, "checkpoint": "ckpt-2"}')
    check(build_tiny(weights=tmp_path), tiny_golden)


@pytest.mark.slow
def test_keras_applications(tmp_path):
    theirs = keras.applications.EfficientNetB0(weights=None)
    theirs.save_weights(tmp_path / "b0.weights.h5")
    ours = get_model(
        "efficientnet-b0", weights=tmp_path / "b0.weights.h5", classifier_activation="softmax"
    )
    images = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32) * 255
    deviation = np.array([0.229, 0.224, 0.225], np.float32) * 255
    # Without weights, Keras leaves out the last part of its normalisation.
    np.testing.assert_allclose(
        ours((images - mean) / deviation),
        keras.Model(theirs.get_layer("stem_conv_pad").input, theirs.output)(
            (images - mean) / deviation
        ),
        atol=TOLERANCE,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a weights file: give a TensorFlow checkpoint"),
        (b"hello", "is not a weights file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "is not a complete Keras file"),
        (b"PK\x03\x04" + b"\0" * 99, "is not a weights file"),
        (b"\x10\0\0\0\0\0\0\0{" + b" " * 99, "is not a complete .safetensors file"),
    ],
)
def test_what_is_no_file_of_weights(build_tiny, tmp_path, content, message):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        build_tiny(weights=path)


def test_a_folder_without_a_checkpoint(build_tiny, tmp_path):
    with pytest.raises(WeightsError, match="has no checkpoint, or several"):
        build_tiny(weights=tmp_path)
