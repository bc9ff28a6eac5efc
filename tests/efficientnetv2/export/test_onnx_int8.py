"""Tests that ONNX files in 8 bits compute in integers and say what the network says."""

import collections
import json
import logging
import tempfile

import numpy as np
import onnx
import pytest

from efficientnetv2.export.formats import FORMATS
from efficientnetv2.export.onnx_int8 import onnx_int8_bytes


@pytest.fixture(scope="module")
def written(servable, pixels, tmp_path_factory):
    """The file, and what its writing printed and left behind."""
    folder = tmp_path_factory.mktemp("onnx")
    temporary = folder / "temporary"
    temporary.mkdir()
    path = folder / "int8.onnx"
    handlers = list(logging.getLogger().handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        path.write_bytes(onnx_int8_bytes(servable, pixels))
    # TensorFlow's own file of traced Python goes when the process ends.
    left = [entry.name for entry in temporary.iterdir() if "autograph" not in entry.name]
    assert left == []
    assert logging.getLogger().handlers == handlers
    return path


def test_its_outputs_are_near_the_network(written, servable, pixels):
    run = FORMATS["onnx_int8"].open(written)
    outputs = np.concatenate([run(image[np.newaxis]) for image in pixels])
    expected = servable.model.predict(pixels, verbose=0)
    assert 0 < np.abs(outputs - expected).max() < 0.08
    assert (outputs.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    np.testing.assert_allclose(run(pixels[:3]), outputs[:3], atol=0.02)  # several at once


def test_weights_are_int8_with_a_step_per_channel_and_activations_uint8(written):
    graph = onnx.load(str(written)).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    restored = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    kernels = [restored[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert len(kernels) == 16
    for node in kernels:
        weights, steps = (stored[name] for name in node.input[:2])
        assert weights.data_type == onnx.TensorProto.INT8
        assert list(steps.dims) == [weights.dims[0]]
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    zeros = collections.Counter(stored[node.input[2]].data_type for node in rounded)
    assert set(zeros) == {onnx.TensorProto.UINT8}
    assert sum(zeros.values()) > 40


def test_it_carries_labels_and_metadata(written, servable):
    properties = {entry.key: entry.value for entry in onnx.load(str(written)).metadata_props}
    assert properties.pop("labels").split("\n") == servable.class_names
    found = {key: json.loads(properties[key]) for key in servable.metadata()}
    assert found == json.loads(json.dumps(servable.metadata()))


def test_nothing_is_printed(servable, pixels, capfd):
    assert len(onnx_int8_bytes(servable, pixels[:2])) > 10_000
    assert capfd.readouterr() == ("", "")
