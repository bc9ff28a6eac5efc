"""Flags in; a resolved configuration, then the mode's work; an exit code out. One function a mode.

TensorFlow is imported after everything that can be checked without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from efficientnetv2.asked import (
    overrides,
    resolved,
    run_directory,
    trained,
)
from efficientnetv2.following import wait_for_config
from efficientnetv2.image_files import find_images
from efficientnetv2.preflight import require_devices
from efficientnetv2.quiet import import_tensorflow
from efficientnetv2.report.predictions import require_writable
from efficientnetv2.search.storage import require_startable
from efficientnetv2.train.checkpoint_files import require_usable
from efficientnetv2.train.cluster import find_cluster
from efficientnetv2.train.lock import training_lock
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.stopping import StopRequest
from hparams.errors import UserError
from hparams.models import MODELS
from hparams.resolve import Config, require_trainable, resolve
from hparams.weights import require_weights

if TYPE_CHECKING:
    from absl.flags import FlagValues


_SMALLEST = 32  # pixels that leave one place after five halvings


def _train(values: FlagValues, *, validate: bool = False) -> int:
    config = resolved(values)
    require_trainable(config)
    if config.train.patience and not validate:
        raise UserError("train.patience needs the minival accuracy of --mode=traineval")
    require_devices(config, tpu=values.tpu, trains=values.mode != "eval")
    run = run_directory(values)
    is_chief = find_cluster(config.runtime.strategy).is_chief
    lock = training_lock(run.lock_file) if is_chief else contextlib.nullcontext()
    with lock, StopRequest().listening() as stop:
        run.require_same(config)
        require_usable(run)
        import_tensorflow()
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
    wait_for_config(run_directory(values))
    run, config = trained(values)
    assert run is not None  # only pretrained weights have none
    require_devices(config, tpu=values.tpu, trains=values.mode != "eval")
    import_tensorflow()
    from efficientnetv2.evaluating import evaluate

    return evaluate(config, run, eval_name=values.eval_name)


def _eval_pretrained(values: FlagValues) -> int:
    config = resolved(values)
    require_weights(values.weights, model_name=config.model.model_name)
    require_devices(config, tpu=values.tpu, trains=values.mode != "eval")
    run = RunDirectory(values.model_dir or f"{run_directory(values).path}-pretrained")
    import_tensorflow()
    from efficientnetv2.evaluating import evaluate_pretrained

    return evaluate_pretrained(config, run, eval_name=values.eval_name)


def _infer(values: FlagValues) -> int:
    if values.image_path is None:
        raise UserError("--mode=infer needs --image_path=FILE_OR_FOLDER")
    images = find_images(pathlib.Path(values.image_path))
    output = pathlib.Path(values.output) if values.output else None
    if output is not None:
        require_writable(output)
    run, config = trained(values)
    import_tensorflow()
    from efficientnetv2.predicting import Wanted, infer

    wanted = Wanted(
        top_k=values.top_k,
        output=output,
        crops=int(values.crops),
        flip=values.flip,
        features=values.features,
        explain=values.explain,
        folder=pathlib.Path(values.output_dir) if values.output_dir else run_directory(values).path,
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
    run, config = trained(values)
    base = run.path if run else pathlib.Path(f"{run_directory(values).path}-pretrained")
    folder = pathlib.Path(values.output_dir) if values.output_dir else base / "export"
    RunDirectory(folder)  # not a file
    import_tensorflow()
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
    config = resolved(values)
    run = run_directory(values)
    import_tensorflow()
    from efficientnetv2 import modes

    return modes.preview(config, run)


def _benchmark(values: FlagValues) -> int:
    if math.isnan(values.image_scale):  # is in no range, and passes as a flag
        raise UserError("--image_scale must be a number from 0.01 to 4, got nan")
    configs = [_benchmarked(values, name) for name in _models(values)]
    folder = pathlib.Path(values.model_dir or "runs/benchmark")
    RunDirectory(folder)  # not a file
    import_tensorflow()
    from efficientnetv2.benchmarking import benchmark

    return benchmark(configs, folder, steps=values.steps)


def _models(values: FlagValues) -> list[str]:
    text = values.model_name if values.models is None else values.models
    names = [MODELS.canonical(name.strip()) for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--models names nothing; it takes names with commas")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--models names {name} {names.count(name)} times")
    return names


def _benchmarked(values: FlagValues, model_name: str) -> Config:
    plain = resolve(model_name, "imagenet2012")
    sizes = {
        key: max(_SMALLEST, round(size * values.image_scale / 8) * 8)
        for key, size in (("train.isize", plain.train.isize), ("eval.isize", plain.eval.isize))
    }
    settings = {"train.stages": 1, "train.batch_size": values.batch_size, **sizes}
    return resolve(model_name, "imagenet2012", settings, *overrides(values))


def _search(values: FlagValues) -> int:
    config = resolved(values)
    require_trainable(config)
    require_devices(config, tpu=values.tpu, trains=True)
    if len(find_cluster(config.runtime.strategy).workers) > 1:
        raise UserError("--mode=search spreads by search.storage, not by TF_CONFIG")
    folder = pathlib.Path(values.model_dir or f"{run_directory(values).path}-search")
    require_startable(config, folder)
    import_tensorflow()
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
