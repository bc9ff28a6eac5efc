"""Tests that a fork of the server is a process like any other."""

import json
import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.slow  # the server imports TensorFlow

SHOW = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), os.environ.get("SHOWN"), __name__, os.getpid()]))
print("to stderr", file=sys.stderr)
sys.exit(3)
"""
WAIT = "import sys, time; print('ready', flush=True); time.sleep(100)"


def test_arguments_folder_environment_streams_and_exit_code(start_process, tmp_path):
    process = start_process("-c", SHOW, "a b", cwd=tmp_path, env={"SHOWN": "yes"})
    out, err = process.communicate(timeout=60)
    assert json.loads(out) == [["-c", "a b"], str(tmp_path), "yes", "__main__", process.pid]
    assert (process.returncode, err) == (3, "to stderr\n")
    assert process.pid != os.getpid()


def test_a_program_file_is_run(run_process, tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    (tmp_path / "program.py").write_text("import beside; print(__name__, beside.VALUE)\n")
    result = run_process(tmp_path / "program.py", has_stderr=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "__main__ 7\n", None)


def test_an_error_is_shown_as_python_shows_it(run_process):
    result = run_process("-c", "1 / 0")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_a_kill_hits_one_alone(start_process):
    one, other = start_process("-c", WAIT), start_process("-c", WAIT)
    assert [process.stdout.readline() for process in (one, other)] == ["ready\n"] * 2
    one.kill()
    assert one.wait(timeout=60) == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(timeout=0.1)
    assert other.poll() is None
    other.send_signal(signal.SIGTERM)
    assert other.wait(timeout=60) == -signal.SIGTERM


def test_a_limit_holds_for_one_alone(run_process, tmp_path):
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(bytes(2000))"
    assert "File too large" in run_process("-c", write, tmp_path / "a", file_size_limit=1000).stderr
    assert run_process("-c", write, tmp_path / "a").returncode == 0


def test_tensorflow_takes_its_settings_and_computes(run_process):
    code = """
import sys
assert "tensorflow" in sys.modules
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
with tf.device("/cpu:1"):
    print(int(tf.function(lambda: tf.reduce_sum(tf.ones([10])))()))
"""
    result = run_process("-c", code)
    assert (result.returncode, result.stdout) == (0, "10\n"), result.stderr
