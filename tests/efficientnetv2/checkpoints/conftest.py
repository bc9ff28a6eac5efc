"""Provides a small network with every kind of block, and writers of PyTorch files."""

import io
import json
import pickle
import struct
import typing
import zipfile

import numpy as np
import pytest

from efficientnetv2 import get_model


@pytest.fixture(scope="package")
def tiny_golden(golden):
    """(overrides, golden arrays) of the network whose official checkpoints are in tests/golden."""
    description = json.loads((golden / "tiny" / "tiny.json").read_text())
    overrides = {"blocks_args": description["block_strings"], "feature_size": 32}
    return overrides, np.load(golden / "tiny" / "tiny.npz")


@pytest.fixture(scope="package")
def build_tiny(tiny_golden):
    """Returns a function that builds the network; arguments as for ``get_model``."""
    overrides, _ = tiny_golden

    def build(**arguments):
        return get_model(
            "efficientnetv2-b0", **{"num_classes": 10, **arguments}, overrides=overrides
        )

    return build


class Global:
    """A name that an unpickler looks up."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class TorchPickler(pickle._Pickler):
    """Pickles as PyTorch does, without PyTorch."""

    dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, stream, storages):
        super().__init__(stream, protocol=2)
        self.storages = storages

    def save_global_of(self, reference):
        self.write(pickle.GLOBAL + f"{reference.module}\n{reference.name}\n".encode())

    def save_array(self, array):
        """Writes a tensor: a call of _rebuild_tensor_v2 with a storage outside of the pickle."""
        key = str(len(self.storages))
        array = np.asarray(array, order="C")
        self.storages[key] = array
        kind = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage"}
        strides = [step // array.itemsize for step in array.strides]
        self.save(Global("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        self.save_pers_tuple(
            ("storage", Global("torch", kind[array.dtype.name]), key, "cpu", array.size)
        )
        for argument in (0, tuple(array.shape), tuple(strides), False):
            self.save(argument)
        self.save(Global("collections", "OrderedDict"))
        self.write(pickle.EMPTY_TUPLE + pickle.REDUCE)
        self.write(pickle.TUPLE + pickle.REDUCE)

    def save_pers_tuple(self, pid):
        self.save(pid)
        self.write(pickle.BINPERSID)


TorchPickler.dispatch[Global] = TorchPickler.save_global_of
TorchPickler.dispatch[np.ndarray] = TorchPickler.save_array


def torch_zip(path, state, *, folder="archive", compression=zipfile.ZIP_STORED):
    """Writes a state dictionary as ``torch.save`` does today."""
    stream, storages = io.BytesIO(), {}
    TorchPickler(stream, storages).dump(state)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", stream.getvalue())
        for key, array in storages.items():
            archive.writestr(f"{folder}/data/{key}", array.tobytes())
        archive.writestr(f"{folder}/version", "3\n")
    return path


def torch_legacy(path, state):
    """Writes a state dictionary as ``torch.save`` did before 1.6."""
    with path.open("wb") as stream:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, stream, protocol=2)
        storages = {}
        TorchPickler(stream, storages).dump(state)
        pickle.dump(list(storages), stream, protocol=2)
        for array in storages.values():
            stream.write(struct.pack("<q", array.size) + array.tobytes())
    return path


@pytest.fixture(scope="session")
def torch_files():
    """Format -> a function (path, state) that writes a file of it."""
    return {"zip": torch_zip, "legacy": torch_legacy}


@pytest.fixture(scope="session")
def torch_global():
    """(module, name) -> an object that pickles as a reference to it."""
    return Global
