"""Finds the trained network that ``train.teacher`` names, and checks that it can teach."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from efficientnetv2.runtime.checkpoint_store import steps
from efficientnetv2.runtime.float_run import require_float_weights
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.weights_run import run_of_weights
from hparams.channels import count_text
from hparams.choices import LOSSES
from hparams.config import Config, ModelSection
from hparams.errors import UserError, shown
from hparams.models import MODELS
from hparams.resolve import resolve_model
from hparams.weights import NAMES, find_release, require_weights


@dataclasses.dataclass(frozen=True)
class TeacherNetwork:
    """The network that ``train.teacher`` names.

    Attributes:
      weights: the value of ``train.teacher``.
      model: its ``model`` section.
      image_size: pixels, of the images that it is evaluated at.
      run: the run directory that it comes from; None: a release or a file.
    """

    weights: str
    model: ModelSection
    image_size: int
    run: RunDirectory | None


def find_teacher(config: Config) -> TeacherNetwork | None:
    """Returns the network that ``train.teacher`` names; None: the training has no teacher.

    Nothing is read but the config of a run.

    Raises:
      UserError: if it is not there, or cannot teach a network of this config.
    """
    name = config.train.teacher
    if name is None:
        return None
    run = run_of_weights(name)
    teacher = _of_weights(config, name) if run is None else _of_run(config, name, run)
    own, its = config.model.channels, teacher.model.channels
    if own != its:
        raise UserError(
            f"the teacher {shown(name)} takes images of {count_text(its)}, but model.channels is "
            f"{own}"
        )
    taught, known = config.model.num_classes, teacher.model.num_classes
    if None not in (taught, known) and taught != known:
        raise UserError(f"the teacher {shown(name)} has {known} classes, but the data has {taught}")
    return teacher


def _of_run(config: Config, name: str, run: RunDirectory) -> TeacherNetwork:
    require_float_weights(name)
    trained, requested = run.config(), config.train.teacher_model
    model = trained.model.model_name
    if requested is not None and MODELS.canonical(requested) != model:
        raise UserError(
            f"train.teacher_model={requested}, but '{run.path}' holds a training of {model}"
        )
    if trained.model.family == "resnet":
        raise UserError(f"train.teacher={name} is a {model}, whose weights cannot be read")
    if not (steps(run.best) or steps(run.checkpoints)):
        raise UserError(f"the teacher '{run.path}' holds no checkpoint; train it first")
    own, others = config.train.loss_type, trained.train.loss_type
    if LOSSES[own].activation != LOSSES[others].activation:
        raise UserError(
            f"the teacher '{run.path}' was trained with train.loss_type={others}, whose logits "
            f"mean something else than those of train.loss_type={own}"
        )
    run.require_labels(trained.model.num_classes)
    return TeacherNetwork(name, trained.model, trained.eval.isize, run)


def _of_weights(config: Config, name: str) -> TeacherNetwork:
    model_name = config.train.teacher_model
    try:
        if name not in NAMES or model_name is not None:
            require_weights(name, model_name=model_name or "")
    except UserError as error:
        raise UserError(f"train.teacher: {error}") from None
    if model_name is None:
        raise UserError(
            f"train.teacher={name} is no run directory, so train.teacher_model must name its "
            "network"
        )
    settings: dict[str, Any] = {"num_classes": config.model.num_classes}
    if name in NAMES:
        release = find_release(model_name, name)
        settings = {"num_classes": release.num_classes, "preprocess": release.preprocess}
    section = resolve_model(model_name, settings)
    return TeacherNetwork(name, section, MODELS[model_name].eval_size, None)


def require_same_classes(teacher: TeacherNetwork, class_names: Sequence[str]) -> None:
    """Checks that the run that a teacher comes from has the classes of the data, in their order.

    The classes of a release or a file have no names; of these, only the number is checked, by
    ``find_teacher`` or when the weights are read.

    Args:
      teacher: from ``find_teacher``.
      class_names: of the data set.

    Raises:
      UserError: names the first class that differs.
    """
    if teacher.run is None:
        return
    known = teacher.run.class_names()
    where = f"the teacher '{teacher.run.path}'"
    if len(known) != len(class_names):
        raise UserError(f"{where} has {len(known)} classes, but the data has {len(class_names)}")
    for number, (theirs, ours) in enumerate(zip(known, class_names), start=1):
        if theirs != ours:
            raise UserError(
                f"{where} has other classes than the data: class {number} is {shown(theirs)}, not "
                f"{shown(ours)}"
            )


def require_other_run(teacher: TeacherNetwork, run: RunDirectory) -> None:
    """Checks that a teacher is not the run that it would teach.

    Raises:
      UserError: if it is.
    """
    if teacher.run is not None and _real(teacher.run.path) == _real(run.path):
        raise UserError(
            f"'{run.path}' cannot be its own teacher: give the training another --model_dir"
        )


def _real(path: pathlib.Path) -> pathlib.Path:
    return path.expanduser().resolve()
