"""Builds a validated config and the run directory from the command line's flags.

Needs no TensorFlow, so that the error of a wrong flag comes at once.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from efficientnetv2.checkpoints.file_settings import settings_of_weights
from efficientnetv2.commands.auto_batch import is_auto, provisional_batch
from efficientnetv2.commands.flag_values import give
from efficientnetv2.data.sources.image_facts import image_facts, require_arrays
from efficientnetv2.data.sources.own_images import images_of_run
from efficientnetv2.data.sources.table_file import is_table
from efficientnetv2.data.sources.tfrecord_files import find_shards
from efficientnetv2.runtime.best_weights import best_weights
from efficientnetv2.runtime.calibration_file import read_temperature, read_threshold
from efficientnetv2.runtime.checkpoint_store import require_usable
from efficientnetv2.runtime.cluster import require_tpu_here, tpu_name
from efficientnetv2.runtime.float_run import find_float_run, require_float_weights
from efficientnetv2.runtime.preflight import require_devices, require_server
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.teacher_run import (
    find_teacher,
    require_other_run,
    require_same_classes,
)
from efficientnetv2.runtime.weights_run import run_of_weights, whole_run
from hparams.channels import RGB, normalisation_of, require_files
from hparams.config import Config
from hparams.datasets import find_dataset
from hparams.errors import UserError
from hparams.facts import ImageFacts
from hparams.folds import Fold, parse_count
from hparams.label_kinds import LABEL_KINDS, require_kind
from hparams.models import MODELS
from hparams.overrides import Overrides, checked, merge_overrides
from hparams.presets import resolve_for_images
from hparams.quantisation import INT8, is_requested, settings_of_run
from hparams.resolve import flat, require_full_batch, resolve, with_facts, with_overrides
from hparams.short_names import SHORT_NAMES, short_settings
from hparams.weights import NAMES, RANDOM, find_release, require_weights

if TYPE_CHECKING:
    from absl.flags import FlagValues


_TRAINING = ("train", "traineval", "preview")  # modes for an 8-bit training
# Flags of the official code that select a TPU -> their config keys.
_TPU_FLAGS = {
    "tpu": "runtime.tpu",
    "gcp_project": "runtime.gcp_project",
    "tpu_zone": "runtime.tpu_zone",
    "tpu_job_name": "runtime.tpu_job_name",
}


def dataset_from_flags(values: FlagValues) -> str:
    """Returns the name of the data set that the flags select."""
    # --data_dir alone names a folder or table of the user's own images.
    default = "folder" if values.data_dir is not None else "digits"
    return str(values.dataset_cfg or default)


def config_from_flags(values: FlagValues) -> Config:
    """Returns the config of a new training, and checks that its folder or server exists.

    Raises:
      UserError: on any wrong setting, folder or address.
    """
    _take_weights(values)
    settings = _take_float_run(values)
    dataset, overrides = dataset_from_flags(values), overrides_from_flags(values)
    overrides.insert(0, settings)
    run = run_of_weights(values.weights) if values.mode == "eval" else None
    plans = values.mode in SHORT_NAMES["preset"].keys
    if run is not None:
        config = _config_of_weights(values, run, dataset=dataset)
    else:
        config = resolve(values.model_name, dataset, *overrides, preset_follows=plans)
    given = merge_overrides(overrides)[0]
    for key in () if plans else ("train.preset", "train.recipe", "train.teacher", "train.quantise"):
        if given.get(key) is not None:
            raise UserError(f"{key} has no effect with --mode={values.mode}")
    facts, class_names = None, None
    if config.data.source == "folder":
        images = images_of_run(config, run_from_flags(values) if plans else None)
        if config.data.on_bad_image != "skip":
            require_arrays(images, channels=config.model.channels)
        facts, class_names = image_facts(images) if plans else None, images.class_names
        overrides.insert(0, LABEL_KINDS[images.kind].settings)
        if run is None:
            config = resolve(values.model_name, dataset, *overrides, preset_follows=plans)
        require_kind(config, images.kind)
    else:
        require_files(config)
    if config.data.source == "tfrecord":
        find_shards(pathlib.Path(config.data.data_dir or ""))
    if plans:
        config = _with_preset(values, dataset, overrides, facts=facts)
        _check_teacher(config, run_from_flags(values), class_names=class_names)
    _check_classes(config, class_names)
    if config.data.service is not None:
        require_server("data.service", config.data.service)
    return _with_crop_of_weights(values, config)


def _take_weights(values: FlagValues) -> None:
    """Makes ``train.ft_init_ckpt``, given as a key, the flag ``--weights``, which says the same.

    So the network gets the padding and the normalisation of the weights in either way.

    Raises:
      UserError: if both are given, and differ.
    """
    key = "train.ft_init_ckpt"
    given = merge_overrides([values.hparam_str, values.sweeps])[0]
    if key not in given or values.mode not in (*SHORT_NAMES["preset"].keys, "search"):
        return
    weights = checked(key, given[key])
    own = checked(key, values.weights)
    if own not in (None, weights):
        raise UserError(f"--weights={values.weights} contradicts {key}={weights}; give one of them")
    if weights is not None:
        give(values, "weights", weights)


def _take_float_run(values: FlagValues) -> dict[str, Any]:
    """Reads the float run of an 8-bit training; returns the settings that go on with it.

    Model, data set and folder, unless they are given, become flags as if they had been written.

    Raises:
      UserError: if there is no such run, or the flags name another model or data set.
    """
    given = merge_overrides(overrides_from_flags(values))[0]
    if not is_requested(given):
        require_float_weights(values.weights if values.mode in _TRAINING else None)
        return {}
    if values.mode not in _TRAINING:
        raise UserError(f"train.quantise has no effect with --mode={values.mode}")
    if values.folds is not None:
        raise UserError("train.quantise does not go with --folds: train one network on all images")
    run = find_float_run(given.get("train.ft_init_ckpt"))
    trained = run.config()
    for flag, requested, own in (
        ("model_name", MODELS.canonical(values.model_name), trained.model.model_name),
        ("dataset_cfg", find_dataset(dataset_from_flags(values))[0], trained.data.ds_name),
    ):
        if values[flag].present and requested != own:
            raise UserError(f"--{flag}={requested}, but '{run.path}' holds a training of {own}")
        if not values[flag].present:
            give(values, flag, own)
    if not values["data_dir"].present and trained.data.data_dir is not None:
        give(values, "data_dir", trained.data.data_dir)
    if not values["model_dir"].present:
        give(values, "model_dir", f"{run.path}-{INT8}")
    return settings_of_run(flat(trained))


def _with_preset(
    values: FlagValues, dataset: str, overrides: list[Overrides], *, facts: ImageFacts | None
) -> Config:
    """Resolves the config with what ``train.preset`` chooses; a preview says what and why."""
    kept = run_from_flags(values).trained_config()
    config, reasons = resolve_for_images(
        values.model_name, dataset, *overrides, facts=facts, kept=kept
    )
    if facts is not None and not is_auto(values):
        require_full_batch(config, num_images=facts.num_images)
    if values.mode == "preview":
        for reason in reasons:
            print(reason, flush=True)
    return config


def _check_classes(config: Config, class_names: Sequence[str] | None) -> None:
    """Checks settings that depend on the number of classes, if it is known."""
    if class_names is not None:
        with_facts(config, {"model.num_classes": len(class_names)})


def _check_teacher(config: Config, run: RunDirectory, *, class_names: Sequence[str] | None) -> None:
    """Checks ``train.teacher``; the names of its classes only where those of the data are known."""
    teacher = find_teacher(config)
    if teacher is not None:
        require_other_run(teacher, run)
        if class_names is not None:
            require_same_classes(teacher, class_names)


def overrides_from_flags(values: FlagValues, *, with_weights: bool = True) -> list[Overrides]:
    """Returns the config overrides that the flags give, in rising order of precedence.

    Args:
      values: of the flags.
      with_weights: whether to include those of ``--weights``.
    """
    flags: dict[str, Any] = {}
    if values.weights is not None and with_weights:
        flags["train.ft_init_ckpt"] = values.weights
        flags.update(settings_of_weights(values.weights, model_name=values.model_name))
        flags.pop("eval.crop_pct", None)  # set by _with_crop_of_weights, where it has an effect
        if values.mode not in ("eval", "infer", "export"):
            flags.pop("eval.isize", None)  # that of a training follows from its images
    if values.mode == "export":  # the only order of LiteRT; the weights are the same in both
        flags["model.data_format"] = "channels_last"
    if values.folds is not None:  # what holds for the first holds for all
        flags["data.fold"] = str(Fold(1, parse_count(values.folds)))
    if values.data_dir is not None:
        flags["data.data_dir"] = values.data_dir
    if values.use_tpu or values.tpu:
        flags["runtime.strategy"] = "tpu"
    flags.update(
        {key: values[flag].value for flag, key in _TPU_FLAGS.items() if values[flag].value}
    )
    short = {name: values[name].value for name in SHORT_NAMES if values[name].present}
    longhand = {"--hparam_str": values.hparam_str, "--sweeps": values.sweeps}
    if is_auto(values):
        short["batch_size"] = provisional_batch(longhand)
    flags.update(short_settings(short, longhand, mode=values.mode, prefix="--"))
    return [flags, values.hparam_str, values.sweeps]


def _with_crop_of_weights(values: FlagValues, config: Config) -> Config:
    """Sets ``eval.crop_pct`` to that of the weights, where it has an effect and is not given."""
    settings = settings_of_weights(values.weights, model_name=values.model_name)
    crop_pct = settings.get("eval.crop_pct")
    is_used = config.data.resize == "published" and config.eval.crop_pct is None
    if crop_pct is None or not is_used or config.model.preprocess != settings["model.preprocess"]:
        return config
    return with_overrides(config, {"eval.crop_pct": crop_pct})


def run_from_flags(values: FlagValues) -> RunDirectory:
    """Returns the run directory ``--model_dir``, or one named after the model and the data set."""
    model = MODELS.canonical(values.model_name)
    dataset, row = find_dataset(dataset_from_flags(values))
    if row.source == "folder" and values.data_dir is not None:
        path = pathlib.Path(values.data_dir).resolve()
        folder = path.stem if is_table(path) else path.name
        dataset = folder if dataset == "folder" else f"{folder}-{dataset}"
    name = f"{model}-{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset)}"
    return RunDirectory(values.model_dir or pathlib.Path("runs") / name)


def trained_run_from_flags(values: FlagValues) -> tuple[RunDirectory | None, Config]:
    """Returns the trained run, or None for pretrained weights, and its config.

    ``--weights`` can name a run directory too; then all of its settings hold.
    """
    if values.weights is not None:
        _require_no_other_weights(values)
    named = whole_run(values.weights)
    if values.weights is not None and named is None:
        return None, pretrained_config(values)
    run = named or run_from_flags(values)
    config = run.config(*overrides_from_flags(values, with_weights=False))
    for flag, requested, trained in (
        ("model_name", MODELS.canonical(values.model_name), config.model.model_name),
        ("dataset_cfg", find_dataset(dataset_from_flags(values))[0], config.data.ds_name),
    ):
        if values[flag].present and requested != trained:
            raise UserError(f"--{flag}={requested}, but '{run.path}' holds a training of {trained}")
    _require_effect(values.mode, flat(run.config()), flat(config))
    require_usable(run)
    best_weights(run)  # says now if they are damaged
    if values.mode != "eval":  # which takes the names from the data set
        run.require_labels(config.model.num_classes)
    return run, config


def takes_arrays(values: FlagValues) -> bool:
    """Returns whether ``.npy`` files are images of the network that the flags name."""
    try:
        return trained_run_from_flags(values)[1].model.channels != RGB
    except UserError:  # said when the network is opened, after what is wrong with the images
        return False


def temperature_from_flags(
    values: FlagValues, run: RunDirectory | None, config: Config
) -> float | None:
    """Returns what logits are divided by before the softmax; None: probabilities stay raw.

    Args:
      values: the flags of ``infer`` or ``export``.
      run: the run directory; None: the weights are of no run.
      config: of the network.

    Raises:
      UserError: if calibration.json is damaged, or is asked for and not there.
    """
    if not values.calibrated:
        return None
    temperature = read_temperature(run, config)
    if temperature is None and values["calibrated"].present:
        raise UserError(
            "--calibrated needs a run directory with calibration.json, which training writes where "
            "a network names one class; leave it out for raw probabilities"
        )
    return temperature


def threshold_from_flags(
    values: FlagValues, run: RunDirectory | None, config: Config
) -> float | None:
    """Returns the probability below which an image is unknown; None: there is none.

    It belongs to the calibrated probabilities.

    Args: as ``temperature_from_flags``.

    Raises:
      UserError: if calibration.json is damaged, or the threshold is needed and not there.
    """
    threshold = read_threshold(run, config) if values.calibrated else None
    if values.allow_unknown and threshold is None:
        if not values.calibrated:
            raise UserError("--allow_unknown needs calibrated probabilities; drop --nocalibrated")
        raise UserError(
            "--allow_unknown needs a run directory whose calibration.json has a threshold, which "
            "training writes where a network predicts classes; there is none"
        )
    return threshold


def _require_effect(mode: str, trained: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Checks that no setting is changed that only training or search uses."""
    for key, value in requested.items():
        if value != trained[key] and key.startswith(("train.", "search.")):
            raise UserError(
                f"{key}={value} has no effect with --mode={mode}: the training is over, with "
                f"{key}={trained[key]}"
            )


def require_devices_from_flags(values: FlagValues, config: Config, *, trains: bool) -> None:
    """Checks the TPU and the other machines that the flags ask for, as ``require_devices``.

    Where only the default of main.py asks for a TPU, the error names main_tf2.py: most who run
    main.py without flags have no TPU and look for the program to start with.

    Raises:
      UserError: if they are not there, or the batch does not divide by them.
    """
    is_default = values.use_tpu and not values["use_tpu"].present and not values.tpu
    if is_default and config.runtime.strategy == "tpu":
        try:
            require_tpu_here(tpu_name(config.runtime.tpu))
        except UserError:
            raise UserError(
                "main.py trains ImageNet on a TPU by default, but this machine has no TPU; start "
                "with `python main_tf2.py`, or name a TPU with --tpu, or give --nouse_tpu"
            ) from None
    require_devices(config, tpu=values.tpu, trains=trains)


def _require_no_other_weights(values: FlagValues) -> None:
    if values["model_dir"].present and values.mode in ("infer", "export"):
        raise UserError("--weights and --model_dir both name weights; give one of them")
    if values["data_dir"].present and values.mode in ("infer", "export"):
        raise UserError(
            f"--data_dir has no use with --mode={values.mode} and --weights; give "
            f"--image_path={values.data_dir}"
        )


# Settings of a training that its network needs wherever it is used, besides the section model.
_OF_NETWORK = (
    *("eval.isize", "data.resize", "data.multi_label"),
    *("train.loss_type", "train.quantise"),
)


def _config_of_weights(values: FlagValues, run: RunDirectory, *, dataset: str) -> Config:
    """Returns the config for the network of a run on the data set that the flags name."""
    trained = run.config()
    requested = MODELS.canonical(values.model_name)
    if values["model_name"].present and requested != trained.model.model_name:
        raise UserError(
            f"--model_name={requested}, but '{run.path}' holds a training of "
            f"{trained.model.model_name}"
        )
    network = {
        key: value
        for key, value in flat(trained).items()
        if (key.startswith("model.") and key != "model.model_name") or key in _OF_NETWORK
    }
    return resolve(trained.model.model_name, dataset, network, *overrides_from_flags(values))


def pretrained_config(values: FlagValues) -> Config:
    """Returns the config of the pretrained network that ``--weights`` names."""
    run = run_of_weights(values.weights)
    classes: dict[str, Any] = {}
    if values.weights in NAMES:
        classes["model.num_classes"] = find_release(values.model_name, values.weights).num_classes
    elif values.dataset_cfg is None:
        classes["model.num_classes"] = None  # as many as the file has
    dataset = values.dataset_cfg or "imagenet2012"
    if run is not None:
        config = _config_of_weights(values, run, dataset=dataset)
    else:
        config = resolve(values.model_name, dataset, classes, *overrides_from_flags(values))
    weights = config.train.ft_init_ckpt
    if weights is None or weights == RANDOM:
        raise UserError(
            "--weights=random has no pretrained weights to load; name a release or a file"
        )
    require_weights(weights, model_name=config.model.model_name)
    normalisation_of(config.model)  # says if it is not known
    return _with_crop_of_weights(values, config)
