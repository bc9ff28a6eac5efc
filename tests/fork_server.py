"""Runs programs in forks of a process that has imported TensorFlow, which takes 5 to 10 seconds.

Each fork is a process of its own, with its own working folder, environment, limits and streams: a
signal or ``kill -9`` hits it alone. It differs from a new process in the imports only. The server
never uses TensorFlow, which would start threads that a fork lacks. ``start_process`` of
tests/conftest.py is the client.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import pathlib
import pkgutil
import resource
import runpy
import socket
import sys

ROOT = str(pathlib.Path(__file__).parent.parent)
MOST_BYTES = 1 << 18  # of a request
LAZY = (
    "fsspec",
    "keras",
    "matplotlib.pyplot",
    "optuna",
    "orbit",
    "tensorboard.summary",
    "tensorflow_datasets",
)
# onnxruntime and OpenVINO start threads when they are imported, without which a fork would hang.
STARTS_THREADS = ("efficientnetv2.export.onnx_int8", "efficientnetv2.export.openvino_file")


def import_everything() -> None:
    """Imports what the programs import, as the command line does it."""
    sys.path[0] = ROOT  # not the folder of this file
    import efficientnetv2
    from efficientnetv2.runtime.tensorflow_import import import_tensorflow

    import_tensorflow()
    for name in LAZY:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(efficientnetv2.__path__, "efficientnetv2."):
        if module.name not in STARTS_THREADS:
            importlib.import_module(module.name)
    assert not {"onnxruntime", "openvino"} & sys.modules.keys(), "see STARTS_THREADS"
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)  # tracing makes many objects, and little garbage


def serve(control: socket.socket) -> dict:
    """Forks for each request; returns it in the fork, and ends the server when the client has gone.

    With a request come three descriptors: stdout, stderr, and a socket that is told the process id
    and, in the end, the exit code.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MOST_BYTES, 3)
        wait_for_watchers(0 if not message else os.WNOHANG)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            watch(*descriptors)
            return json.loads(message)
        for descriptor in descriptors:
            os.close(descriptor)


def wait_for_watchers(options: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def watch(stdout: int, stderr: int, reply: int) -> None:
    """Returns in a fork with these streams; this process waits for it and reports its end."""
    child = os.fork()
    if child == 0:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
    for descriptor in (stdout, stderr):
        os.close(descriptor)
    if child == 0:
        os.close(reply)
        return
    for descriptor in (1, 2):  # else a reader of them would wait for this process
        os.close(descriptor)
    with socket.socket(fileno=reply) as client:
        client.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        client.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def run(request: dict) -> None:
    """Runs a program file, or after ``-c`` the text of one, as Python does."""
    # Python's own, made anew: those of the server were made for other files.
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    options = {"buffering": 1, "errors": "backslashreplace", "closefd": False}
    sys.stderr = sys.__stderr__ = open(2, "w", **options)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    if request["file_size_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size_limit"],) * 2)
    program, *arguments = request["arguments"]
    if program == "-c":
        text, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path[0] = ""
        exec(compile(text, "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = [program, *arguments]
        sys.path[0] = str(pathlib.Path(program).parent)
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    import_everything()
    run(serve(socket.socket(fileno=int(sys.argv[1]))))
