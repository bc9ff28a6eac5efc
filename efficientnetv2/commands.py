"""Flags in; a resolved configuration, then the mode's work; an exit code out. One function a mode.

TensorFlow is imported after everything that can be checked without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import logging

from efficientnetv2.data.sources.listing import scan_folder
from efficientnetv2.data.sources.shards import find_shards
from efficientnetv2.flags import TPU_FLAGS
from efficientnetv2.following import wait_for_config
from efficientnetv2.image_files import find_images
from efficientnetv2.preflight import require_answer, require_devices
from efficientnetv2.report.predictions import require_writable
from efficientnetv2.search.storage import require_startable
from efficientnetv2.train.checkpoint_files import require_usable
from efficientnetv2.train.cluster import find_cluster
from efficientnetv2.train.lock import training_lock
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.stopping import StopRequest
from hparams.datasets import find_dataset
from hparams.errors import UserError
from hparams.models import MODELS
from hparams.overrides import Overrides
from hparams.resolve import Config, require_trainable, resolve
from hparams.weights import NAMES, RANDOM, find_release, require_weights

if TYPE_CHECKING:
    from absl.flags import FlagValues


_SMALLEST = 32  # pixels that leave one place after five halvings


def _quiet_tensorflow() -> None:
    # TensorFlow greets with notes about its build and, on a machine without a GPU, with errors
    # about the GPU that is not there; TensorFlow Datasets warns of each folder before it fills it.
    has_gpu = pathlib.Path("/proc/driver/nvidia").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if has_gpu else "3")
    logging.set_verbosity(logging.ERROR)


def _dataset(values: FlagValues) -> str:
    # A folder with nothing else said is a folder of the user's own images.
    default = "folder" if values.data_dir is not None else "digits"
    return str(values.dataset_cfg or default)


def _resolved(values: FlagValues) -> Config:
    config = resolve(values.model_name, _dataset(values), *_overrides(values))
    # A wrong folder or address is answered at once.
    if config.data.source == "folder":
        scan_folder(pathlib.Path(config.data.data_dir))
    elif config.data.source == "tfrecord":
        find_shards(pathlib.Path(config.data.data_dir))
    if config.data.service is not None:
        require_answer("data.service", config.data.service)
    return config


def _overrides(values: FlagValues) -> list[Overrides]:
    flags: dict[str, Any] = {}
    if values.weights is not None:
        flags["train.ft_init_ckpt"] = values.weights
        if values.weights in NAMES:
            release = find_release(values.model_name, values.weights)
            flags["model.preprocess"] = release.preprocess
    if values.mode == "export":  # LiteRT knows no other order, and the weights are the same
        flags["model.data_format"] = "channels_last"
    if values.data_dir is not None:
        flags["data.data_dir"] = values.data_dir
    if values.use_tpu or values.tpu:
        flags["runtime.strategy"] = "tpu"
    flags.update({key: values[flag].value for flag, key in TPU_FLAGS.items() if values[flag].value})
    return [flags, values.hparam_str, values.sweeps]


def _run_directory(values: FlagValues) -> RunDirectory:
    model = MODELS.canonical(values.model_name)
    dataset, row = find_dataset(_dataset(values))
    if row.source == "folder" and values.data_dir is not None:
        folder = pathlib.Path(values.data_dir).resolve().name
        dataset = folder if dataset == "folder" else f"{folder}-{dataset}"
    name = f"{model}-{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset)}"
    return RunDirectory(values.model_dir or pathlib.Path("runs") / name)


def _trained(values: FlagValues) -> tuple[RunDirectory | None, Config]:
    """Returns the run to read, None for pretrained weights, and the configuration."""
    if values.weights is not None:
        return None, _pretrained(values)
    run = _run_directory(values)
    config = run.config(*_overrides(values))
    for flag, asked, is_name in (
        ("model_name", MODELS.canonical(values.model_name), config.model.model_name),
        ("dataset_cfg", find_dataset(_dataset(values))[0], config.data.ds_name),
    ):
        if values[flag].present and asked != is_name:
            raise UserError(f"--{flag}={asked}, but '{run.path}' holds a training of {is_name}")
    require_usable(run)
    return run, config


def _pretrained(values: FlagValues) -> Config:
    if values["model_dir"].present and values.mode in ("infer", "export"):
        raise UserError("--weights and --model_dir both name weights; give one of them")
    classes: dict[str, Any] = {}
    if values.weights in NAMES:
        classes["model.num_classes"] = find_release(values.model_name, values.weights).num_classes
    dataset = values.dataset_cfg or "imagenet2012"
    config = resolve(values.model_name, dataset, classes, *_overrides(values))
    if config.train.ft_init_ckpt == RANDOM:
        raise UserError("--weights=random names no weights")
    require_weights(config.train.ft_init_ckpt, model_name=config.model.model_name)
    return config


def _train(values: FlagValues, *, validate: bool = False) -> int:
    config = _resolved(values)
    require_trainable(config)
    if config.train.patience and not validate:
        raise UserError("train.patience needs the minival accuracy of --mode=traineval")
    require_devices(config, tpu=values.tpu, trains=values.mode != "eval")
    run = _run_directory(values)
    is_chief = find_cluster(config.runtime.strategy).is_chief
    lock = training_lock(run.lock_file) if is_chief else contextlib.nullcontext()
    with lock, StopRequest().listening() as stop:
        run.require_same(config)
        require_usable(run)
        _quiet_tensorflow()
        from efficientnetv2 import modes

        return modes.train(
            config,
            run,
            validate=validate,
            archive_best=validate and values.archive_ckpt,
            eval_name=values.eval_name,
            stop=stop,
        )


def _traineval(values: FlagValues) -> int:
    return _train(values, validate=True)


def _eval(values: FlagValues) -> int:
    if values.weights is not None:
        return _eval_pretrained(values)
    wait_for_config(_run_directory(values))
    run, config = _trained(values)
    assert run is not None  # only pretrained weights have none
    require_devices(config, tpu=values.tpu, trains=values.mode != "eval")
    _quiet_tensorflow()
    from efficientnetv2.evaluating import evaluate

    return evaluate(config, run, eval_name=values.eval_name)


def _eval_pretrained(values: FlagValues) -> int:
    config = _resolved(values)
    require_weights(values.weights, model_name=config.model.model_name)
    require_devices(config, tpu=values.tpu, trains=values.mode != "eval")
    run = RunDirectory(values.model_dir or f"{_run_directory(values).path}-pretrained")
    _quiet_tensorflow()
    from efficientnetv2.evaluating import evaluate_pretrained

    return evaluate_pretrained(config, run, eval_name=values.eval_name)


def _infer(values: FlagValues) -> int:
    if values.image_path is None:
        raise UserError("--mode=infer needs --image_path=FILE_OR_FOLDER")
    images = find_images(pathlib.Path(values.image_path))
    output = pathlib.Path(values.output) if values.output else None
    if output is not None:
        require_writable(output)
    run, config = _trained(values)
    _quiet_tensorflow()
    from efficientnetv2.predicting import Wanted, infer

    wanted = Wanted(
        top_k=values.top_k,
        output=output,
        crops=int(values.crops),
        flip=values.flip,
        features=values.features,
        explain=values.explain,
        folder=pathlib.Path(values.output_dir)
        if values.output_dir
        else _run_directory(values).path,
    )
    return infer(config, run, images, wanted)


def _export(values: FlagValues) -> int:
    if values.weights is not None and values.image_path is None:
        raise UserError(
            "--mode=export with --weights needs --image_path=FOLDER, images to check the files with"
        )
    for name in ("onnx", "onnxruntime", "tf2onnx") if "onnx" in values.format else ():
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--format=onnx needs the package {name} (Python 3.10 or newer)")
    images = find_images(pathlib.Path(values.image_path)) if values.image_path else []
    run, config = _trained(values)
    base = run.path if run else pathlib.Path(f"{_run_directory(values).path}-pretrained")
    folder = pathlib.Path(values.output_dir) if values.output_dir else base / "export"
    RunDirectory(folder)  # not a file
    _quiet_tensorflow()
    from efficientnetv2.exporting import Wanted, export

    wanted = Wanted(
        formats=list(dict.fromkeys(values.format)),
        folder=folder,
        image_files=images,
        preprocessing=values.preprocessing,
        logits=values.logits,
        integer_io=values.integer_io,
        debug_int8=values.debug_int8,
        with_xla=values.export_to_tpu,
    )
    return export(config, run, wanted)


def _preview(values: FlagValues) -> int:
    config = _resolved(values)
    run = _run_directory(values)
    _quiet_tensorflow()
    from efficientnetv2 import modes

    return modes.preview(config, run)


def _benchmark(values: FlagValues) -> int:
    names = (values.models or values.model_name).split(",")
    configs = [_benchmarked(values, name.strip()) for name in names]
    folder = pathlib.Path(values.model_dir or "runs/benchmark")
    RunDirectory(folder)  # not a file
    _quiet_tensorflow()
    from efficientnetv2.benchmarking import benchmark

    return benchmark(configs, folder, steps=values.steps)


def _benchmarked(values: FlagValues, model_name: str) -> Config:
    plain = resolve(model_name, "imagenet2012")
    sizes = {
        key: max(_SMALLEST, round(size * values.image_scale / 8) * 8)
        for key, size in (("train.isize", plain.train.isize), ("eval.isize", plain.eval.isize))
    }
    settings = {"train.stages": 1, "train.batch_size": values.batch_size, **sizes}
    return resolve(model_name, "imagenet2012", settings, *_overrides(values))


def _search(values: FlagValues) -> int:
    config = _resolved(values)
    require_trainable(config)
    require_devices(config, tpu=values.tpu, trains=True)
    if len(find_cluster(config.runtime.strategy).workers) > 1:
        raise UserError("--mode=search spreads by search.storage, not by TF_CONFIG")
    folder = pathlib.Path(values.model_dir or f"{_run_directory(values).path}-search")
    require_startable(config, folder)
    _quiet_tensorflow()
    from efficientnetv2.search.engine import search

    with StopRequest().listening() as stop:
        return search(config, folder, stop)


COMMANDS: dict[str, Callable[[FlagValues], int]] = {
    "train": _train,
    "traineval": _traineval,
    "eval": _eval,
    "infer": _infer,
    "export": _export,
    "preview": _preview,
    "benchmark": _benchmark,
    "search": _search,
}
