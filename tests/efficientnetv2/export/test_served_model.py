"""Asks a SavedModel as TensorFlow Serving does, with the messages of its own package."""

import base64
import concurrent.futures
import json
import pathlib
import re
import subprocess

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.saved_model import loader_impl

from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.export.saved_model import write_saved_model
from efficientnetv2.export.warmup_requests import FILE, write_warmup_requests
from hparams import resolve

from .conftest import SETTINGS, servable_of

pytestmark = pytest.mark.slow  # installs a package

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "deploying.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("## TensorFlow Serving")[2]
TINY = {"model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"], "model.feature_size": 8}


@pytest.fixture(scope="module")
def apis(serving_apis):
    return serving_apis


@pytest.fixture(scope="module")
def servable():
    network = servable_of(**TINY)
    kernel = np.random.default_rng(2).normal(0, 2, (8, 10))
    network.folded.get_layer("predictions").set_weights([kernel, np.linspace(-1, 1, 10)])
    return network


@pytest.fixture(scope="module")
def path(servable, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    config = resolve("efficientnetv2-b0", "digits", {**SETTINGS, **TINY})
    write_saved_model(servable, folder, config=config, with_xla=False)
    return folder


@pytest.fixture(scope="module")
def predict(path, apis):
    """Maps a PredictRequest to a PredictResponse as the server does, by names alone."""
    signatures = tf.saved_model.load(str(path)).signatures

    def answer(request):
        name = request.model_spec.signature_name or "serving_default"
        inputs = {key: tf.constant(tf.make_ndarray(x)) for key, x in request.inputs.items()}
        response = apis.predict_pb2.PredictResponse()
        for key, value in signatures[name](**inputs).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response

    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with ``photo.jpg`` and ``photo.png`` of other sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for name, shape in {"photo.jpg": (6, 9, 3), "photo.png": (7, 4, 3)}.items():
        coarse = np.kron(rng.integers(0, 256, shape), np.ones((10, 10, 1)))
        Image.fromarray(coarse.astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def expected(servable, folder):
    """File -> its probabilities ``[10]``, by the network."""
    return {
        path.name: servable.folded(
            decode_evaluation(
                tf.constant(path.read_bytes()), image_size=32, preprocess="v1", resize="squash"
            )[tf.newaxis]
        )[0].numpy()
        for path in folder.iterdir()
    }


def test_warm_up_requests_are_messages_of_the_server(path, apis, predict):
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path / FILE))]
    names = []
    for record in records:
        log = apis.prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        assert log.SerializeToString() == record  # no field that the server does not know
        request = log.predict_log.request
        assert request.model_spec.name == "efficientnetv2-b0"
        names.append(request.model_spec.signature_name)
        (probabilities,) = predict(request).outputs.values()
        rows = tf.make_ndarray(probabilities)
        assert rows.shape == (1, 10) and abs(rows.sum() - 1) < 1e-5
    assert names == ["serving_default", "serving_bytes"]
    image = tf.make_ndarray(
        apis.prediction_log_pb2.PredictionLog.FromString(records[0]).predict_log.request.inputs[
            "image"
        ]
    )
    assert image.shape == (1, 32, 32, 3) and (image == 128).all()
    assert (path / FILE).stat().st_size < 5000  # the grey image states its value once


def test_signatures_as_the_server_lists_them(path):
    (graph,) = loader_impl.parse_saved_model(str(path)).meta_graphs
    assert "serve" in graph.meta_info_def.tags
    for name in ("serving_default", "serving_bytes", "features"):
        signature = graph.signature_def[name]
        assert signature.method_name == "tensorflow/serving/predict"
        for tensor in [*signature.inputs.values(), *signature.outputs.values()]:
            assert tensor.tensor_shape.dim[0].size == -1  # any batch
        for key, tensor in signature.inputs.items():
            assert (tensor.dtype == tf.string.as_datatype_enum) == key.endswith("_bytes")


def rest(apis, predict, body):
    """Answers a JSON request by the rules of TensorFlow Serving's "RESTful API", row format."""
    request = apis.predict_pb2.PredictRequest()
    request.model_spec.signature_name = body.get("signature_name", "")
    is_named = isinstance(body["instances"][0], dict) and "b64" not in body["instances"][0]
    rows = body["instances"] if is_named else [{None: row} for row in body["instances"]]
    single = "image_bytes" if body.get("signature_name") == "serving_bytes" else "image"
    for key in rows[0]:
        values = [row[key] for row in rows]
        if isinstance(values[0], dict):
            values = [base64.b64decode(value["b64"], validate=True) for value in values]
            tensor = tf.make_tensor_proto(values)
        else:
            tensor = tf.make_tensor_proto(values, tf.float32)
        request.inputs[key or single].CopyFrom(tensor)
    (output,) = predict(request).outputs.values()
    return {"predictions": tf.make_ndarray(output).tolist()}


def test_the_rest_request_of_the_page(apis, predict, folder, expected):
    line = re.search(r"^echo .* > request.json$", SECTION, flags=re.MULTILINE)[0]
    subprocess.run(["bash", "-ec", line], cwd=folder, check=True)
    body = json.loads((folder / "request.json").read_text())
    (folder / "request.json").unlink()
    (row,) = rest(apis, predict, body)["predictions"]
    np.testing.assert_allclose(row, expected["photo.jpg"], atol=1e-5)


def test_files_of_any_size_and_kind_share_a_batch(apis, predict, folder, expected):
    names = ["photo.png", "photo.jpg", "photo.png"]
    encoded = [base64.b64encode((folder / name).read_bytes()).decode() for name in names]
    instances = [{"image_bytes": {"b64": text}} for text in encoded]
    body = {"signature_name": "serving_bytes", "instances": instances}
    rows = rest(apis, predict, body)["predictions"]
    np.testing.assert_allclose(rows, [expected[name] for name in names], atol=1e-5)
    assert np.abs(expected["photo.png"] - expected["photo.jpg"]).max() > 0.05


def test_pixels_in_json(apis, predict, servable, pixels):
    rows = rest(apis, predict, {"instances": pixels[:2].tolist()})["predictions"]
    np.testing.assert_allclose(rows, servable.folded(pixels[:2]), atol=1e-5)


def test_the_grpc_client_of_the_page(apis, predict, folder, expected, monkeypatch):
    service = apis.prediction_service_pb2_grpc

    class Server(service.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            assert request.model_spec.name == "photos"
            return predict(request)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    service.add_PredictionServiceServicer_to_server(Server(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    client = re.search(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)[1]
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(client.replace("localhost:8500", f"localhost:{port}"), names)
    server.stop(None).wait()
    np.testing.assert_allclose(names["probabilities"], [expected["photo.jpg"]], atol=1e-5)


def test_xla_is_warmed_up_too(servable, tmp_path, apis):
    write_warmup_requests(servable, tmp_path, {"serving_xla": "image"})
    (record,) = tf.data.TFRecordDataset(str(tmp_path / FILE))
    log = apis.prediction_log_pb2.PredictionLog.FromString(record.numpy())
    assert log.predict_log.request.model_spec.signature_name == "serving_xla"
