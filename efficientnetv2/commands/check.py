"""Looks for what is wrong with a user's own images: ``--mode=check``.

Without ``--weights``, TensorFlow is not used.
"""

from __future__ import annotations

import pathlib
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import (
    dataset_from_flags,
    overrides_from_flags,
    pretrained_config,
    run_from_flags,
)
from efficientnetv2.commands.flag_table import short_flags
from efficientnetv2.commands.flag_values import command_of
from efficientnetv2.data.quality.copies import MOST_BITS, Copy, find_copies
from efficientnetv2.data.quality.findings import (
    CheckedImage,
    checked_images,
    find_problems,
    images_in_order,
)
from efficientnetv2.data.quality.image_measures import ImageMeasures, measure_images
from efficientnetv2.data.quality.label_errors import SuspectLabel, find_label_errors
from efficientnetv2.data.sources.image_splits import ImageSplits
from efficientnetv2.data.sources.own_images import images_of_run
from efficientnetv2.data.sources.table_file import is_table
from efficientnetv2.runtime.console import open_bar
from efficientnetv2.runtime.float_run import require_float_weights
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.runtime.weights_run import whole_run
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import NUMBERS, ONE
from hparams.overrides import merge_overrides
from hparams.resolve import resolve

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.loaded_model import LoadedModel

# Without weights, only how the labels are read can be set.
_READ = re.compile(r"data\.(data_dir|multi_label|\w+_columns?)|model\.channels")
_WITH_WEIGHTS = re.compile(r"(model|eval)\.|train\.ft_init_ckpt")


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Checks the images that the flags name; the value is the ``DataCheck``."""
    del stop  # ends it at once: there is nothing to save
    config = _config(values)
    splits = images_of_run(config, run_from_flags(values) if values.model_dir else None)
    if values.weights is not None and splits.kind != ONE:
        raise UserError(
            "--weights looks for wrong labels where an image has one class; these images have "
            f"{'numbers' if splits.kind == NUMBERS else 'any number of classes'}"
        )
    folder = _folder(values)
    network = _load_network(values) if values.weights is not None else None
    from efficientnetv2.reporting.check_report import DataCheck, report_check

    folder.create()
    for line in splits.notices:  # such as which files are left out
        print(line, file=sys.stderr)
    images = checked_images(splits)
    measures, copies, notes = _measured(images)
    notes = [*splits.notices, *notes]
    suspects: list[SuspectLabel] = []
    if network is not None:
        measures, suspects = _label_errors(network, images, splits, measures, copies)
    elif splits.kind == ONE:
        notes.append("wrong labels were not looked for: that needs --weights")
    names = [] if splits.kind == NUMBERS else splits.class_names
    findings = find_problems(images, measures, copies, suspects, names)
    check = DataCheck(images, findings, folder.path)
    title, command = f"check of {values.data_dir}", command_of(values)
    report_check(check, measures, names, title=title, notes=notes, command=command)
    return Outcome(check, 1 if values.strict and check.has_problems else 0)


def _config(values: FlagValues) -> Config:
    """Returns the config that says how the labels are read.

    Raises:
      UserError: if the images are not one's own, or a setting has no effect.
    """
    if values.data_dir is None and values.dataset_cfg is None:
        raise UserError("--mode=check needs --data=FOLDER or a table: your own images")
    if values.weights is None and values["model_name"].present:
        raise UserError("--model_name has no effect with --mode=check without --weights")
    overrides = overrides_from_flags(values)
    for key, value in merge_overrides(overrides)[0].items():
        is_used = _READ.fullmatch(key) or (values.weights and _WITH_WEIGHTS.match(key))
        if not is_used and value is not None:
            needs = " without --weights" if _WITH_WEIGHTS.match(key) else ""
            flag = short_flags(values).get(key)
            name = f"--{flag}" if flag else key
            raise UserError(f"{name} has no effect with --mode=check{needs}")
    # An image that a table lists and that is gone is one of the findings.
    own: dict[str, Any] = {"data.on_bad_image": "skip"}
    run = RunDirectory(values.model_dir) if values.model_dir else None
    if run is not None and run.config_file.exists() and run.split_file.exists():
        own["data.fold"] = run.config().data.fold  # as its split.csv says
    config = resolve(values.model_name, dataset_from_flags(values), *overrides, own)
    if config.data.source != "folder" or values.data_dir is None:
        raise UserError(
            f"--mode=check is for your own images, not for the data set {config.data.ds_name}"
        )
    return config


def _load_network(values: FlagValues) -> LoadedModel:
    """Loads the network that ``--weights`` names, which imports TensorFlow."""
    require_float_weights(values.weights)
    named = whole_run(values.weights)
    config = pretrained_config(values) if named is None else named.config()
    import_tensorflow()
    from efficientnetv2.evaluation.loaded_model import load_trained

    return load_trained(config, named)


def _folder(values: FlagValues) -> RunDirectory:
    """Returns the folder for the results: ``--model_dir``, or in it, if a training is there."""
    if values.model_dir is None:
        path = pathlib.Path(values.data_dir).resolve()
        name = path.stem if is_table(path) else path.name
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        return RunDirectory(pathlib.Path("runs") / f"check-{name}")
    run = RunDirectory(values.model_dir)
    if run.folds_config() is not None:
        raise UserError(
            f"'{values.model_dir}' holds a cross-validation; give one of its folds, or another "
            "--model_dir"
        )
    # The report of a training stays.
    return RunDirectory(run.path / "check") if run.config_file.exists() else run


def _measured(
    images: list[CheckedImage],
) -> tuple[list[ImageMeasures], list[Copy], list[str]]:
    """Measures the images and finds copies; returns notes on what was not looked for, too."""
    paths = [image.path for image in images]
    with open_bar(total=len(paths), desc="measure", unit="image") as bar:
        measures = []
        for measured in measure_images(paths):
            measures.append(measured)
            bar.update()
    search = find_copies(paths, measures)
    notes = []
    if search.bits < MOST_BITS:
        notes.append(
            "these images are much alike: only pairs whose hashes differ in at most "
            f"{search.bits} of 64 bits were compared, so some copies may be missed"
        )
    return measures, list(search.copies), notes


def _label_errors(
    loaded: LoadedModel,
    images: list[CheckedImage],
    splits: ImageSplits,
    measures: list[ImageMeasures],
    copies: list[Copy],
) -> tuple[list[ImageMeasures], list[SuspectLabel]]:
    """Looks for wrong labels with a network; returns measures with what it could not read, too."""
    from efficientnetv2.evaluation.image_features import image_features

    print(f"looking for wrong labels with {loaded.origin}", flush=True)
    numbers = [n for n, measured in enumerate(measures) if not measured.problem]
    if not numbers:
        return measures, []
    with open_bar(total=len(numbers), desc="features", unit="image") as bar:
        features, unreadable = image_features(
            loaded, [images[n].path for n in numbers], after_image=bar.update
        )
    for row, reason in unreadable.items():
        measures[numbers[row]] = ImageMeasures(problem=reason)
    labels: list[Any] = [image.label for _, image in images_in_order(splits)]
    groups = np.arange(len(images))
    for copy in copies:
        groups[copy.image] = copy.group
    rows = [row for row in range(len(numbers)) if row not in unreadable]
    chosen = [numbers[row] for row in rows]
    found = find_label_errors(features[rows], [labels[n] for n in chosen], groups[chosen])
    suspects = [
        SuspectLabel(chosen[one.image], one.suggestion, one.probability, one.own_probability)
        for one in found
    ]
    return measures, suspects
