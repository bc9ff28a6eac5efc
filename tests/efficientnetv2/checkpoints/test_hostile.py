"""Tests that unsafe, lying and truncated files are refused in one line, and run no code."""

import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from tensorflow import keras

from efficientnetv2.checkpoints.budget import Budget
from efficientnetv2.checkpoints.keras_file import read_keras
from efficientnetv2.checkpoints.safetensors_file import read_safetensors, safetensors_bytes
from efficientnetv2.checkpoints.torch_file import read_torch
from hparams.errors import WeightsError


def refused(read, path, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickle_with_a_payload(tmp_path, torch_files, form):
    mark = tmp_path / "executed"
    state = {"conv_stem.weight": np.zeros(2, np.float32), "more": Payload(mark)}
    path = torch_files[form](tmp_path / "evil.pth", state)
    refused(read_torch, path, r"it asks for posix\.mkdir, which is not part of a tensor; nothing")
    assert not mark.exists()


def test_a_plain_pickle_is_no_file_of_weights(tmp_path, build_tiny):
    mark = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Payload(mark)))
    refused(lambda path: build_tiny(weights=path), path, "is not a weights file")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("collections", "OrderedDict.fromkeys"),
        ("argparse", "Namespace"),
    ],
)
def test_other_names_in_a_pickle(tmp_path, torch_files, torch_global, module, name):
    path = torch_files["zip"](tmp_path / "x.pth", {"a": torch_global(module, name)})
    refused(read_torch, path, f"it asks for {module}.{name}")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((9,), (1,), 0), ((2,), (9,), 0), ((2,), (1,), 3), ((2, 2), (1,), 0), ((10**9,), (0,), 0)],
)
def test_a_tensor_that_reaches_beyond_its_data(tmp_path, size, stride, offset):
    """Writes by opcodes: _rebuild_tensor_v2(storage of 4 floats, offset, size, stride)."""

    def number(value):
        return pickle.BININT + struct.pack("<i", value)

    def numbers(values):
        return pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE

    def text(value):
        return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()

    storage = pickle.MARK + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    storage += number(4) + pickle.TUPLE + pickle.BINPERSID
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + storage + number(offset)
    tensor += numbers(size) + numbers(stride) + pickle.TUPLE + pickle.REDUCE
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        body = pickle.EMPTY_DICT + text("a") + tensor + pickle.SETITEM + pickle.STOP
        archive.writestr("x/data.pkl", pickle.PROTO + b"\x02" + body)
        archive.writestr("x/data/0", bytes(16))
    refused(read_torch, tmp_path / "x.pth", "a tensor (is larger than|reaches beyond) its data")


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_cut_off_torch_file(tmp_path, torch_files, form):
    path = torch_files[form](tmp_path / "x.pth", {"a": np.ones(1000, np.float32)})
    data = path.read_bytes()
    for length in (len(data) - 5, len(data) // 2, 40):
        path.write_bytes(data[:length])
        refused(
            read_torch,
            path,
            r"(is not a complete PyTorch file|refusing to load .*: the data of a tensor)",
        )


def test_compressed_data(tmp_path, torch_files):
    state = {"a": np.zeros(10**6, np.float32)}
    path = torch_files["zip"](tmp_path / "x", state, compression=zipfile.ZIP_DEFLATED)
    refused(read_torch, path, "its data is compressed, which PyTorch never does")


def header(**entry):
    plain = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    text = json.dumps({"a": {**plain, **entry}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(data_offsets=[0, 16], shape=[4]), "the offsets of a tensor do not match its shape"),
        (header(data_offsets=[8, 0]), "the offsets of a tensor do not match its shape"),
        (header(data_offsets=[-8, 0]), "has a size that is not a non-negative integer"),
        (header(shape=[3]), "the offsets of a tensor do not match its shape"),
        (header(shape=["2"]), "has a size that is not a non-negative integer"),
        (header(shape=[2.0]), "has a size that is not a non-negative integer"),
        (header(dtype="F99"), "has values of the unknown type F99"),
        (header(data_offsets=None), "is not a complete .safetensors file"),
        (struct.pack("<Q", 10**15) + b"{}", "its header is longer than the file"),
        (struct.pack("<Q", 2) + b"[]", "is not a complete .safetensors file"),
        (b"\x01", "is not a complete .safetensors file"),
    ],
)
def test_safetensors_that_lie(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refused(read_safetensors, path, message)


def test_safetensors_round_trip(tmp_path):
    tensors = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.float32(7).reshape([])}
    (tmp_path / "x").write_bytes(safetensors_bytes(tensors))
    read = read_safetensors(tmp_path / "x")
    assert list(read) == ["a", "b"]
    np.testing.assert_array_equal(read["a"], tensors["a"])
    assert read["b"] == 7


def test_bfloat16(tmp_path, torch_files):
    text = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    values = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", len(text)) + text + values.tobytes())
    np.testing.assert_array_equal(read_safetensors(path)["a"], [1.5, -2.0])


def test_a_keras_file_with_a_lambda(tmp_path, build_tiny):
    inputs = keras.Input((2,))
    outputs = keras.layers.Lambda(lambda x: x + 1)(keras.layers.Dense(2)(inputs))
    path = tmp_path / "lambda.keras"
    keras.Model(inputs, outputs).save(path)
    refused(lambda path: build_tiny(weights=path), path, "it has a Lambda layer, which is code")


def h5_file(path, *, link=None, external=None):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "stem_conv"
        if link is not None:
            group["0"] = link
        else:
            group.create_dataset("0", (4,), "f4", external=external)
    return path


def test_links_out_of_a_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    outside = h5_file(tmp_path / "a", link=h5py.ExternalLink(str(secret), "/0"))
    refused(read_keras, outside, "its entry '0' is missing or a link")
    soft = h5_file(tmp_path / "b", link=h5py.SoftLink("/layers"))
    refused(read_keras, soft, "its entry '0' is missing or a link")
    stored = h5_file(tmp_path / "c", external=[(str(secret), 0, 16)])
    refused(read_keras, stored, "the values of '0' are stored in another file")


@pytest.mark.slow
def test_a_cut_off_h5_file(tmp_path, build_tiny):
    path = tmp_path / "x.weights.h5"
    build_tiny().save_weights(path)
    data = path.read_bytes()
    for length in (len(data) // 2, 100, 9):
        path.write_bytes(data[:length])
        refused(read_keras, path, "is not a complete Keras file")


def test_a_damaged_tensorflow_checkpoint(tmp_path, golden, build_tiny):
    for file in (golden / "tiny" / "tf1_namebased").glob("model.*"):
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data if file.suffix == ".index" else data[:500])
    with pytest.raises(WeightsError, match="cannot read checkpoint") as caught:
        build_tiny(weights=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def measured():
    """Reads a file that must be refused within a second and a gigabyte."""

    def refuse(read, path, message):
        tracemalloc.start()
        start = time.process_time()
        try:
            refused(read, path, message)
            seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert seconds < 2.0  # tracing slows it down
        assert peak < 2**30

    return refuse


def pickled(path, body, *, form):
    """Writes a PyTorch file whose state is these opcodes."""
    data = pickle.PROTO + b"\x02" + body + pickle.STOP
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", data)
    else:
        head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(value, protocol=2) for value in head) + data)
    return path


DOUBLED = pickle.NONE + (pickle.DUP + pickle.TUPLE2) * 60  # ((((None, None), (None, None)), ...
STORAGE = pickle.MARK + b"X\x07\0\0\0storagectorch\nFloatStorage\n"
FULL_LIST = pickle.EMPTY_LIST + pickle.MARK + pickle.NONE * 10**6 + pickle.APPENDS + b"q\x01"


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize(
    "body",
    [
        pickle.EMPTY_DICT + DOUBLED + pickle.NONE + pickle.SETITEM,
        pickle.EMPTY_DICT + pickle.MARK + DOUBLED + pickle.NONE + pickle.SETITEMS,
        pickle.MARK + DOUBLED + pickle.NONE + pickle.DICT,
        b"ccollections\nOrderedDict\n]](" + DOUBLED + b"Neaa\x85R",
        STORAGE + DOUBLED + b"X\x03\0\0\0cpuK\x01" + pickle.TUPLE + pickle.BINPERSID,
        STORAGE + b"X\x01\0\0\x000X\x03\0\0\0cpu" + DOUBLED + pickle.TUPLE + pickle.BINPERSID,
        pickle.EMPTY_SET + pickle.MARK + DOUBLED + pickle.ADDITEMS,
        pickle.MARK + DOUBLED + pickle.FROZENSET,
        pickle.BYTEARRAY8 + struct.pack("<Q", 2**40),
        FULL_LIST + (b"0ctorch\nSize\nh\x01" + pickle.TUPLE1 + pickle.REDUCE) * 10**4,
        DOUBLED,
    ],
)
def test_a_pickle_that_grows(tmp_path, measured, form, body):
    path = pickled(tmp_path / "x.pth", body, form=form)
    measured(read_torch, path, "(refusing to load|is not a complete PyTorch file)")


def test_a_memo_index_takes_no_room(tmp_path):
    """Python's unpickler in C makes an array of 6 GB of it."""
    body = pickle.EMPTY_DICT + pickle.LONG_BINPUT + struct.pack("<I", 0x18000000)
    path = pickled(tmp_path / "x.pth", body, form="zip")
    tracemalloc.start()
    try:
        assert read_torch(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_many_tensors_of_one_storage(tmp_path, torch_files, measured, form):
    state = {f"a{number}": np.zeros(4, np.float32) for number in range(200)}
    path = torch_files[form](tmp_path / "x.pth", state)
    assert len(read_torch(path)) == 200
    with zipfile.ZipFile(tmp_path / "big.pth", "w") as archive:
        body = b"}("
        for number in range(200):
            name = f"a{number:04}".encode()
            body += b"X\x05\0\0\0" + name + b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE
            body += b"X\x01\0\0\x000X\x03\0\0\0cpuJ\0\0\x10\0tQK\0J\0\0\x10\0\x85K\x01\x85tR"
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b"u.")
        archive.writestr("x/data/0", bytes(4 * 2**20))
    measured(read_torch, tmp_path / "big.pth", "more than the network can use")


def test_hard_links_that_double_each_level(tmp_path, measured):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("g0")
        for _ in range(25):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group.create_group("vars").create_dataset("0", data=np.zeros(3, np.float32))
    read = read_keras(tmp_path / "x.h5")  # each group is read once
    assert sum(len(layer.variables) for layer in read.layers) == 1
    with h5py.File(tmp_path / "loop.h5", "w") as file:
        file["layers"] = file["/"]
    assert read_keras(tmp_path / "loop.h5").layers == ()


@pytest.mark.parametrize("options", [{"compression": "gzip", "chunks": (2**22,)}, {}])
@pytest.mark.parametrize("layout", ["layers", "layer_names"])
def test_values_that_are_larger_than_the_network(tmp_path, measured, options, layout):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        if layout == "layers":
            group = file.create_group("layers/dense/vars")
        else:
            group = file.create_group("dense")
            group.attrs["weight_names"] = ["0"]
            file.attrs["layer_names"] = ["dense"]
        group.create_dataset("0", (2**33,), "f4", **options)
    assert path.stat().st_size < 10**5
    measured(read_keras, path, "more than the network can use; is it for another model")


def test_one_layer_that_is_named_again_and_again(tmp_path, measured):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("dense")
        group.create_dataset("0", (2**23,), "f4", compression="gzip")
        group.attrs["weight_names"] = ["0"] * 100
        file.attrs["layer_names"] = ["dense"] * 100
    measured(read_keras, tmp_path / "x.h5", "more than the network can use")


def test_a_chunk_that_is_larger_than_its_data(tmp_path, measured):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        chunked = {"chunks": (2**29,), "maxshape": (None,), "compression": "gzip"}
        group.create_dataset("0", (3,), "f4", **chunked)
    measured(read_keras, tmp_path / "x.h5", "more than the network can use")


def test_a_compressed_keras_file_of_zeros(tmp_path, measured):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(2**28 + 1))
    measured(read_keras, path, "its config or its weights are too large")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "[" * 2**20)
        archive.writestr("model.weights.h5", b"")
    measured(read_keras, path, "is not a complete Keras file")


def test_safetensors_that_overlap(tmp_path, measured):
    count, size = 2000, 2**20
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    text = json.dumps({f"a{number}": entry for number in range(count)}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    measured(read_safetensors, path, "its tensors overlap, which the format does not allow")


def test_safetensors_with_a_hole_for_a_body(tmp_path, measured):
    size = 2**34
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    text = json.dumps({"a": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + size)  # takes no room on the disk
    measured(read_safetensors, path, "more than the network can use")


def test_a_large_network_may_have_large_values(tmp_path):
    values = {"a": np.zeros(2**25 + 1, np.float32)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(values))
    refused(read_safetensors, path, "more than the network can use")
    assert read_safetensors(path, budget=Budget(2**25))["a"].size == 2**25 + 1
