"""Tests the batch of --batch_size=auto: by an estimate, and by steps in a limited memory."""

import pathlib
import re
import subprocess
import sys

import pytest

from efficientnetv2.evaluation.batch_size import choose_by_estimate
from efficientnetv2.model.complexity import activation_bytes
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import UserError, resolve
from hparams.resolve import with_overrides

ROOT = pathlib.Path(__file__).parents[3]
SMALL = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "train.isize": 64,
    "data.ibase": 64,
    "data.cache_mib": 0,
}


@pytest.fixture
def config(data_dir):
    return resolve("efficientnetv2-b0", "digits", {**SMALL, "data.data_dir": data_dir})


@pytest.fixture
def choose(config, tmp_path):
    def choose(available, **settings):
        changed = with_overrides(config, settings)
        return choose_by_estimate(changed, RunDirectory(tmp_path), available=available)

    return choose


def available_for(config, images, *, bytes_per_value=4):
    """Returns the available memory from which so many images fit: 70% of it may be taken."""
    model = build_model(with_overrides(config, {"model.num_classes": 10}).model)
    image = activation_bytes(model, image_size=64, bytes_per_value=bytes_per_value)
    return (600e6 + 20 * model.count_params() + 1.5 * image * images) / 0.7


def test_an_eighth_of_the_images_where_there_is_memory(choose):
    choice = choose(10**12)
    assert choice.batch_size == 128  # of 1,257 images: 157, and 9 steps an epoch
    assert choice.reason.endswith("no larger one leaves 8 steps for 1,257 images")
    assert "of the 1000.0 GB of memory that are free" in choice.reason


def test_a_power_of_two_for_each_microbatch(choose):
    assert choose(10**12, **{"train.batch_size": 3, "train.accumulate": 3}).batch_size == 96


@pytest.mark.parametrize(("precision", "bytes_per_value"), [("float32", 4), ("float16", 2)])
def test_the_largest_power_that_fits(choose, config, precision, bytes_per_value):
    enough = available_for(config, 16, bytes_per_value=bytes_per_value)
    settings = {"train.precision": precision}
    choice = choose(int(enough) + 10, **settings)
    assert choice.batch_size == 16 and choice.reason.endswith("the next one fills 70% of it")
    assert choose(int(enough) - 10, **settings).batch_size == 8


def test_a_cache_of_images_takes_memory_too(choose, config):
    enough = int(available_for(config, 16))
    assert choose(enough + 10, **{"data.cache_mib": 1}).batch_size == 8
    assert choose(enough + 10 + int(2**20 / 0.7), **{"data.cache_mib": 1}).batch_size == 16


def test_not_even_one(choose):
    with pytest.raises(UserError, match=r"a step of one image of 64 px needs about .* GB of memor"):
        choose(1000)


LIMITED = """
import pathlib, resource, sys
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
import_tensorflow()
from efficientnetv2.evaluation.batch_size import choose_by_trial
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from hparams import resolve
size, mib = int(sys.argv[1]), int(sys.argv[2])
if mib:  # the process of the steps inherits the limit
    status = pathlib.Path("/proc/self/status").read_text()
    now = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + mib * 2**20, resource.RLIM_INFINITY))
config = resolve("efficientnetv2-b0", "digits", {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "model.feature_size": 16,
    "train.isize": size, "data.ibase": size, "data.data_dir": sys.argv[3],
})
choice = choose_by_trial(config, RunDirectory(sys.argv[4]), stop=StopRequest())
print("chosen", choice.batch_size, choice.reason)
"""


def by_trial(size, mib, data_dir, folder, *, run):
    result = run("-c", LIMITED, str(size), str(mib), data_dir, str(folder))
    (line,) = re.findall("^chosen .*$", result.stdout, re.MULTILINE) or [result.stderr]
    return line


def run_new(*arguments):
    """Runs Python anew: a fork's address space has all that the tests need."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_steps_are_run_until_the_memory_is_full(run_process, data_dir, digits, tmp_path):
    """TensorFlow's allocator meets a real limit of the system: that of the address space."""
    assert by_trial(16, 0, data_dir, tmp_path, run=run_process) == (
        "chosen 128 it ran a step of 16 px; no larger one leaves 8 steps for 1,257 images"
    )
    line = by_trial(512, 3000, data_dir, tmp_path, run=run_new)
    assert line.endswith("it ran a step of 512 px; the next one does not fit into memory")
    assert int(line.split()[1]) in (2, 4, 8, 16, 32, 64)
