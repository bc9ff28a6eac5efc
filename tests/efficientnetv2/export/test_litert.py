"""Tests the outputs, operators and metadata of LiteRT files."""

import collections
import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from efficientnetv2.export.litert import convert, convert_int8, convert_int16x8, float_operators
from efficientnetv2.int8.quantizer import QuantisedNetwork

from .conftest import servable_of


def run(file, images):
    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for pixels in images:
        interpreter.set_tensor(image["index"], pixels[np.newaxis].astype(image["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(output["index"])[0].copy())
    return np.stack(outputs), image, output


@pytest.fixture(scope="module")
def network(servable, pixels):
    return QuantisedNetwork(servable.folded, pixels)


@pytest.fixture(scope="module")
def int8(servable, network):
    return convert_int8(servable, network, integer_io=False)


def test_float32_is_the_keras_model(servable, pixels):
    file = convert(servable, "float32")
    outputs, image, _ = run(file, pixels)
    np.testing.assert_allclose(outputs, servable.model.predict(pixels, verbose=0), atol=1e-6)
    assert image["shape"].tolist() == [1, 32, 32, 3]
    interpreter = Interpreter(model_content=file)
    interpreter.resize_tensor_input(image["index"], [5, 64, 48, 3])
    interpreter.allocate_tensors()
    assert interpreter.get_output_details()[0]["shape"].tolist() == [5, 10]


@pytest.mark.parametrize("precision", ["float16", "dynamic"])
def test_smaller_files_come_near(servable, pixels, precision):
    file = convert(servable, precision)
    outputs, _, _ = run(file, pixels)
    expected = servable.model.predict(pixels, verbose=0)
    assert 0 < np.abs(outputs - expected).max() < 0.02
    assert len(file) < 0.8 * len(convert(servable, "float32"))


@pytest.mark.slow
def test_the_int8_file_is_the_network_that_was_calibrated(servable, network, int8, pixels):
    outputs, image, output = run(int8, pixels)
    assert (image["dtype"], output["dtype"]) == (np.float32, np.float32)
    simulated = network(tf.constant(pixels)).numpy()
    # LiteRT rounds ties and products otherwise than floats do: some last steps differ.
    assert np.abs(outputs - simulated).max() < 0.08
    assert np.abs(outputs - simulated).mean() < 0.004
    expected = servable.model.predict(pixels, verbose=0)
    assert np.abs(outputs - expected).max() < 0.08
    assert (outputs.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_everything_in_it_is_int8(int8, servable):
    assert float_operators(int8) == []
    assert len(float_operators(convert(servable, "float32"))) > 20
    graph = schema.ModelT.InitFromPackedBuf(int8, 0).subgraphs[0]
    types = collections.Counter(tensor.type for tensor in graph.tensors)
    assert types[schema.TensorType.FLOAT32] == 2  # what goes in and what comes out


@pytest.fixture(scope="module")
def int16x8(servable, pixels):
    network = QuantisedNetwork(servable.folded, pixels, rounds_activations=False)
    return convert_int16x8(servable, network, pixels)


def test_int16x8_rounds_weights_alone(servable, int16x8, int8, pixels):
    outputs, image, output = run(int16x8, pixels)
    assert (image["dtype"], output["dtype"]) == (np.float32, np.float32)
    expected = servable.model.predict(pixels, verbose=0)
    assert 0 < np.abs(outputs - expected).max() < 0.002  # 0.01, were each weight at its nearest
    assert len(int16x8) < 0.7 * len(convert(servable, "float32"))
    assert np.square(outputs - expected).sum() < np.square(run(int8, pixels)[0] - expected).sum()


def test_int16x8_has_room_for_images_unlike_the_calibration_images(servable, pixels):
    pale = np.float32(110 + (pixels - 110) / 3)
    network = QuantisedNetwork(servable.folded, pale, rounds_activations=False)
    outputs, _, _ = run(convert_int16x8(servable, network, pale), pixels)
    expected = network(tf.constant(pixels)).numpy()
    assert np.abs(outputs - expected).max() < 0.002


def test_int16x8_computes_in_16_bits_with_weights_of_8(int16x8):
    assert float_operators(int16x8) == []
    graph = schema.ModelT.InitFromPackedBuf(int16x8, 0).subgraphs[0]
    types = collections.Counter(tensor.type for tensor in graph.tensors)
    assert types[schema.TensorType.FLOAT32] == 2
    assert types[schema.TensorType.INT16] > 40  # activations
    assert types[schema.TensorType.INT8] == 17  # kernels
    steps = [t.quantization.scale for t in graph.tensors if t.type == schema.TensorType.INT8]
    assert sum(len(scale) > 1 for scale in steps) >= 16  # one for each channel


def test_integer_ends(servable, network, int8, pixels):
    file = convert_int8(servable, network, integer_io=True)
    outputs, image, output = run(file, pixels)
    assert (image["dtype"], output["dtype"]) == (np.uint8, np.uint8)
    assert image["quantization"] == (1.0, 0)
    step, zero = output["quantization"]
    assert (step, zero) == (1 / 256, 0)
    np.testing.assert_allclose((np.float32(outputs) - zero) * step, run(int8, pixels)[0])


@pytest.mark.slow
def test_logits_and_normalised_images(pixels):
    servable = servable_of(logits=True, preprocessing=False)
    images = (pixels - 127) / 60
    file = convert_int8(servable, QuantisedNetwork(servable.folded, images), integer_io=False)
    outputs, _, _ = run(file, images)
    expected = servable.model.predict(images, verbose=0)
    assert np.square(outputs - expected).mean() < 0.02 * expected.var()


def test_noise_names_every_layer_with_weights(servable, network):
    layers = [layer.name for layer in servable.folded.layers if layer.weights]
    noise = network.layer_noise
    assert [row.layer for row in noise] == layers
    assert all(row.kernel_db > 10 for row in noise), noise
    assert all(10 < row.output_db < 70 for row in noise), noise


def test_labels_and_metadata_travel_along(int8, servable):
    with zipfile.ZipFile(io.BytesIO(int8)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == servable.class_names
        assert json.loads(archive.read("metadata.json")) == servable.metadata()
    model = schema.ModelT.InitFromPackedBuf(int8, 0)
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    packed = bytes(model.buffers[entry.buffer].data)
    assert packed[4:8] == b"M001"
    for text in (b"labels.txt", b"efficientnetv2-b0", b"probabilities", b"32 x 32 pixels"):
        assert text in packed


@pytest.mark.parametrize("integer_io", [False, True])
def test_the_signature_names_input_and_output(integer_io, servable, network, pixels):
    file = convert_int8(servable, network, integer_io=integer_io)
    interpreter = Interpreter(model_content=file)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}
    }
    kind = np.uint8 if integer_io else np.float32
    outputs = interpreter.get_signature_runner()(image=pixels[:1].astype(kind))
    np.testing.assert_array_equal(outputs["probabilities"], run(file, pixels[:1])[0])


FLAT = ["r1_k3_s2_e4_i8_o16_se0.25", *["r1_k3_s2_e4_i16_o16_se0.25"] * 4]  # 32 px to a single one


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_several_images_at_once_even_where_a_single_pixel_is_left(precision, pixels):
    servable = servable_of(**{"model.blocks_args": FLAT}, logits=True)
    if precision == "int8":
        file = convert_int8(servable, QuantisedNetwork(servable.folded, pixels), integer_io=False)
    elif precision == "int16x8":
        network = QuantisedNetwork(servable.folded, pixels, rounds_activations=False)
        file = convert_int16x8(servable, network, pixels)
    else:
        file = convert(servable, precision)
    one_by_one, image, output = run(file, pixels[:5])
    interpreter = Interpreter(model_content=file)
    interpreter.resize_tensor_input(image["index"], [5, 32, 32, 3])
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], pixels[:5])
    interpreter.invoke()
    together = interpreter.get_tensor(output["index"])
    # The runtime rounds the activations of a dynamic file by the range that they have together.
    tolerance = 0.05 if precision == "dynamic" else 1e-4
    np.testing.assert_allclose(together, one_by_one, atol=tolerance * np.abs(one_by_one).max())


def test_zero_points_are_stored_once(int8):
    model = schema.ModelT.InitFromPackedBuf(int8, 0)
    zeros = sum(
        8 * len(tensor.quantization.zeroPoint)
        for tensor in model.subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.zeroPoint is not None
    )
    plain = len(int8) - zeros
    import flatbuffers

    builder = flatbuffers.Builder(len(int8))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    assert len(bytes(builder.Output())) > len(int8) + 0.5 * zeros
    assert plain < len(int8)
