"""Tests OpenVINO folders: outputs, precision, metadata, and the message where it is missing."""

import ctypes
import importlib.util
import json

import numpy as np
import pytest

from efficientnetv2.commands import export
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.export.formats import FORMATS
from efficientnetv2.flags import parse
from efficientnetv2.runtime.signals import StopRequest
from hparams.errors import UserError

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


@pytest.fixture(scope="module")
def folders(servable, tmp_path_factory):
    from efficientnetv2.export.openvino_file import write_openvino

    folder = tmp_path_factory.mktemp("openvino")
    paths = {name: folder / name for name in ("openvino", "openvino_fp16")}
    for name, path in paths.items():
        write_openvino(servable, path, half=name.endswith("fp16"))
    return paths


@needs_openvino
@pytest.mark.parametrize(("name", "tolerance"), [("openvino", 1e-6), ("openvino_fp16", 3e-3)])
def test_its_outputs_are_the_networks(folders, servable, pixels, name, tolerance):
    run = FORMATS[name].open(folders[name])
    expected = servable.model.predict(pixels, verbose=0)
    np.testing.assert_allclose(run(pixels), expected, atol=tolerance)  # several at once
    np.testing.assert_allclose(run(pixels[:1]), expected[:1], atol=tolerance)
    assert run(np.zeros([2, 48, 64, 3], np.float32)).shape == (2, 10)


@needs_openvino
def test_half_precision_halves_the_weights(folders):
    sizes = [(folders[name] / "model.bin").stat().st_size for name in folders]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.1)
    assert {path.name for path in folders["openvino"].iterdir()} == {"model.xml", "model.bin"}


@needs_openvino
def test_it_carries_names_labels_and_metadata(folders, servable):
    import openvino

    model = openvino.Core().read_model(folders["openvino"] / "model.xml")
    assert model.inputs[0].get_any_name() == "image"
    assert model.outputs[0].get_any_name() == "probabilities"
    assert model.get_rt_info(["model_info", "labels"]).astype(str).split("\n") == (
        servable.class_names
    )
    for key, value in servable.metadata().items():
        assert json.loads(model.get_rt_info(["model_info", key]).astype(str)) == value


class _SignalStack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def stack_of_signals():
    stack = _SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.start, stack.flags, stack.size


@needs_openvino
def test_signals_are_handled_as_before(folders, pixels):
    """On processors with AMX, OpenVINO changes how the thread that compiles handles them."""
    before = stack_of_signals()
    run = FORMATS["openvino"].open(folders["openvino"])
    run(pixels[:1])
    assert stack_of_signals() == before


def test_without_the_package_it_is_one_line(monkeypatch, tmp_path):
    values = parse(define_flags({}), ["main_tf2.py", "--mode=export", "--format=openvino"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        export.run(values, StopRequest())
    assert str(error.value) == (
        "--format=openvino needs the package openvino, which is not installed: "
        "pip install 'efficientnetv2-tensorflow[openvino]'"
    )
    assert list(tmp_path.iterdir()) == []
