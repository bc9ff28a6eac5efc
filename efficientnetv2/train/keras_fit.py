"""Progressive learning in plain Keras: data, callback and schedule for ``model.fit``.

The batches, and what changes from stage to stage, are those of our own training (``train.loop``);
loss, optimizer and loop are Keras's.
"""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.open_data import open_data
from efficientnetv2.data.schedule import SettingsSchedule
from efficientnetv2.data.sources import Source
from efficientnetv2.data.sources.image_facts import image_facts
from efficientnetv2.data.sources.own_images import images_of_run
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.model.variable_dropout import (
    dropout_layers,
    is_variable,
    set_dropout_share,
    vary_dropout,
)
from efficientnetv2.runtime.program import system_errors
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.learning_rate import LearningRate, build_learning_rate, stock_rate
from efficientnetv2.train.progressive import Stage, build_settings, build_stages, phases_of
from hparams.arguments import check_setting, check_text
from hparams.channels import count_text
from hparams.config import Config
from hparams.constraints import find_training_conflicts
from hparams.datasets import is_dataset_name
from hparams.errors import UserError, shown
from hparams.label_kinds import LABEL_KINDS
from hparams.overrides import ConfigError, Overrides, read_overrides
from hparams.presets import resolve_for_images
from hparams.resolve import require_full_batch, resolve
from hparams.short_names import short_settings
from hparams.weights import name_and_weights


def training_data(
    data: str | pathlib.Path,
    model_name: str,
    *,
    preset: str | None = None,
    epochs: int | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    augment: str | None = None,
    seed: int | None = None,
    overrides: Overrides = None,
    normalise: bool = True,
    model_dir: str | pathlib.Path | None = None,
) -> TrainingData:
    """Opens a data set for ``model.fit``, with the recipe that a model is trained by here.

    Args:
      data: a folder of images with one sub-folder a class, or the name of a data set, as ``--data``
        takes them; a ``pathlib.Path`` is always a folder.
      model_name: the model whose recipe is used; of your own model, one of about its size.
      preset: of your own images: ``auto``, ``fast`` or ``best`` chooses size, length and
        augmentation of the training; ``none``: no choice; None: ``auto``.
      epochs: passes over the training images, from 1; None, here and below: that of the recipe.
      image_size: pixels, in the last stage and in validation; the first stage has half of it.
      batch_size: images per step, over all devices together.
      learning_rate: peak of the schedule ``learning_rate`` of the result, for a batch of 256.
      augment: of single images: a value of ``data.augname`` in docs/hparams.md.
      seed: of shuffling, crops, augmentation and mixing. Weights and dropout have that of Keras:
        call ``keras.utils.set_random_seed``.
      overrides: further settings (docs/hparams.md), as ``{"data.ram": 15}`` or ``"data.ram=15"``.
      normalise: False gives pixels of 0..255, for a model that normalises them itself.
      model_dir: a run directory, which keeps the split of a folder as the command line does, so
        that photos added later move no other photo. None: nothing is written; the split follows
        from the names of the files.

    Raises:
      UserError: on wrong settings, settings that ``fit`` cannot follow, and unreadable data.
    """
    short = {
        "preset": preset,
        "epochs": epochs,
        "image_size": image_size,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "augment": augment,
        "seed": seed,
    }
    given = {name: check_setting(name, value) for name, value in short.items() if value is not None}
    check_text("data", data)
    model_name = check_text("model_name", model_name)
    with system_errors():
        run = None if model_dir is None else RunDirectory(check_text("model_dir", model_dir))
        config = _resolve(data, model_name, given, overrides, run=run)
        config, source = open_data(config, run)
    require_full_batch(config, num_images=source.num_images(config.data.train_split))
    return TrainingData(config, source, normalise=normalise)


# Settings of the section train that shape the batches or the schedules; all else in it is what
# ``model.compile`` is given.
_OF_BATCHES = (
    "preset", "epochs", "batch_size", "min_steps", "stages", "isize", "size_schedule", "size_steps",
    "stage_rule", "adaptive_regularisation", "loss_type", "seed",
)  # fmt: skip
_OF_RATE = (
    "lr_base", "lr_sched", "lr_decay_factor", "lr_decay_epoch", "lr_warmup_epoch", "lr_min",
    "lr_decay_in_warmup",
)  # fmt: skip
_FOLLOWED = {f"train.{key}" for key in (*_OF_BATCHES, *_OF_RATE)}


def _resolve(
    data: str | pathlib.Path,
    model_name: str,
    given: Mapping[str, Any],
    overrides: Overrides,
    *,
    run: RunDirectory | None,
) -> Config:
    settings = short_settings(given, {"overrides": overrides})
    if isinstance(data, str) and is_dataset_name(
        data, pathlib.Path(data), argument="data", instead=f"pathlib.Path({data!r}) for the folder"
    ):
        dataset = data
    else:
        dataset = "folder"
        settings["data.data_dir"] = str(pathlib.Path(data).expanduser())
    name, _ = name_and_weights(model_name, None)
    config = resolve(name, dataset, settings, overrides, preset_follows=True)
    facts = None
    if config.data.source == "folder":
        images = images_of_run(config, run)
        facts = image_facts(images)
        settings = {**LABEL_KINDS[images.kind].settings, **settings}
    config, _ = resolve_for_images(name, dataset, settings, overrides, facts=facts)
    problems = find_training_conflicts(config)
    for key in read_overrides(overrides)[0]:
        if not key.startswith(("model.", "data.", "eval.")) and key not in _FOLLOWED:
            problems.append(f"{key} has no effect in model.fit: it is for our own training")
    if config.data.service is not None:
        problems.append("data.service is for our own training, not for model.fit")
    if problems:
        raise ConfigError(problems)
    return config


class _Stream:
    """Hands one iterator over all epochs to ``fit``, which asks for one twice in each epoch.

    To build an iterator takes a second or two, because TensorFlow optimises its graph. Others who
    iterate over the data meanwhile get iterators of their own.

    Args:
      endless: batches from an epoch on.
      epoch: the variable that says which.
      steps_per_epoch: batches of one epoch.

    Attributes:
      is_due: whether the next iterator is for ``fit``.
      was_followed: whether ``fit`` has ever said where it is.
    """

    def __init__(
        self, endless: tf.data.Dataset, epoch: tf.Variable, *, steps_per_epoch: int
    ) -> None:
        self.is_due = self.was_followed = False
        self._endless = endless
        self._epoch = epoch
        self._steps_per_epoch = steps_per_epoch
        self._iterator: Iterator | None = None
        self._next_step = 0

    def begin_epoch(self, epoch: int, *, can_go_on: bool) -> None:
        """Says that ``fit`` begins an epoch.

        Args:
          epoch: its number, from 0.
          can_go_on: whether ``fit`` will take whole epochs, not more; otherwise each gets an
            iterator that ends with it.
        """
        self.was_followed = True
        if not can_go_on or self._next_step != epoch * self._steps_per_epoch:
            self._iterator = None
        self._epoch.assign(epoch)
        self.is_due = can_go_on

    def take_over(self) -> Iterator:
        """Returns the iterator for ``fit``."""
        self.is_due = False
        if self._iterator is None:
            self._iterator = iter(self._endless)
        return self._iterator

    def after_step(self, step: int, *, can_go_on: bool) -> None:
        """Says how many steps of the whole training are done."""
        self._next_step = step
        # At the end of an epoch, Keras asks for an iterator, which the next epoch may use.
        self.is_due = can_go_on and step % self._steps_per_epoch == 0

    def end_epoch(self) -> None:
        """Says that the next iterator is not for ``fit``."""
        self.is_due = False

    def end(self) -> None:
        """Says that ``fit`` begins or ends: the stream starts anew."""
        self.is_due = False
        self._iterator = None
        self._next_step = -1
        self._epoch.assign(0)


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What a ``TrainingData`` knows; in an object of its own because Keras tracks attributes."""

    config: Config
    source: Source
    plan: list[Stage]
    settings: SettingsSchedule
    stream: _Stream
    batches: tf.data.Dataset
    normalise: bool


class TrainingData(tf.data.Dataset):
    """The batches of one epoch, a ``tf.data.Dataset``, and all that ``model.fit`` needs with it.

    ``callbacks`` say which epoch it is, so every iteration of ``fit`` gives the next one. Without
    them, each iteration gives epoch 0.

    Yields images, float32 ``[B, S, S, 3]``, and targets, float32 ``[B, K]``: one-hot, or mixed.
    """

    def __init__(self, config: Config, source: Source, *, normalise: bool) -> None:
        plan = build_stages(config, num_images=source.num_images(config.data.train_split))
        settings = build_settings(config, plan)
        training_input = build_training_input(
            config, source, phases=phases_of(plan), settings=settings, normalised=normalise
        )
        with tf.device("cpu:0"):
            epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        endless = training_input.from_epoch(epoch).prefetch(tf.data.AUTOTUNE)
        steps = plan[-1].steps_per_epoch
        batches = endless.take(steps).apply(tf.data.experimental.assert_cardinality(steps))
        stream = _Stream(endless, epoch, steps_per_epoch=steps)
        self._facts = _Facts(config, source, plan, settings, stream, batches, normalise)
        self._was_iterated = False
        super().__init__(tf.data.experimental.to_variant(batches))

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._facts.batches]

    def __iter__(self) -> Iterator:
        stream = self._facts.stream
        if stream.is_due:
            return stream.take_over()
        if self._was_iterated and not stream.was_followed:
            warnings.warn(
                "these are the batches of epoch 0 again; if this is model.fit, give it "
                "callbacks=data.callbacks",
                stacklevel=2,
            )
        self._was_iterated = True
        return super().__iter__()

    @property
    def element_spec(self) -> Any:
        """Shapes and types of images and targets."""
        return self._facts.batches.element_spec

    @property
    def config(self) -> Config:
        """The settings, as ``hparams.resolve`` returns them."""
        return self._facts.config

    @property
    def source(self) -> Source:
        """The data set with all of its splits."""
        return self._facts.source

    @property
    def plan(self) -> list[Stage]:
        """The stages: image size, batch size and strength of regularisation of each."""
        return list(self._facts.plan)

    @property
    def settings(self) -> SettingsSchedule:
        """The same by step."""
        return self._facts.settings

    @property
    def epochs(self) -> int:
        """Length of the whole training."""
        return self._facts.plan[-1].end_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training images."""
        return self._facts.plan[-1].steps_per_epoch

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the targets."""
        return list(self.source.class_names)

    @property
    def is_normalised(self) -> bool:
        """Whether images are normalised; otherwise they are pixels of 0..255."""
        return self._facts.normalise

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """New callbacks, which make one ``fit`` follow the plan."""
        return [_Follower(self)]

    @property
    def validation(self) -> tf.data.Dataset:
        """The minival split for ``validation_data``, at ``eval.isize`` and cropped as published."""
        return self._split(self.config.data.minival_split)

    @property
    def test(self) -> tf.data.Dataset:
        """The split of the final evaluation, for ``model.evaluate``."""
        return self._split(self.config.data.eval_split)

    @property
    def learning_rate(self) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate of our own training as a schedule of stock Keras.

        Raises:
          UserError: if stock Keras has none that is equal.
        """
        rate = build_learning_rate(self.config, self.plan)
        assert isinstance(rate, LearningRate)  # all batches have the same size
        return stock_rate(rate)

    @property
    def stream(self) -> _Stream:
        """What the callbacks tell where ``fit`` is."""
        return self._facts.stream

    def _split(self, name: str) -> tf.data.Dataset:
        facts = self._facts
        split = EvaluationInput(facts.config, facts.source, split=name, normalised=facts.normalise)
        return split.batches()


def ProgressiveLearning(model: keras.Model, data: TrainingData) -> keras.Model:  # noqa: N802
    """Prepares any Keras model for ``fit`` with ``training_data``, and checks that they fit.

    The rates of its ``Dropout`` layers become variable. The rate that a layer was built with is
    that of the last stage; before, it is a smaller share of it, as in the plan. Stochastic depth
    (a ``noise_shape``) stays as it is. ``get_model(..., for_training=True)`` is prepared already.

    Args:
      model: takes images of any size, and has as many outputs as there are classes. It is changed
        in place, and stays stock Keras for saving.
      data: what it will be trained on.

    Returns:
      The same model, to be compiled and trained.

    Raises:
      UserError: if the model cannot be trained on the data.
    """
    _require_suitable(model, data)
    return vary_dropout(model)


class _Follower(keras.callbacks.Callback):
    """Tells the data which epoch it is, and the model's dropout which step.

    The log of each epoch holds those of its settings that change, such as ``image_size``.
    """

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        self._data = data
        self._first_step = 0
        self._can_go_on = False
        self._share: float | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        del logs
        _require_suitable(self.model, self._data)
        _require_compiled_for_mixed_targets(self.model)
        fixed = [layer.name for layer in dropout_layers(self.model) if not is_variable(layer)]
        if fixed:
            raise UserError(
                f"the rate of the layer {shown(fixed[0])} cannot change in training; build the "
                "model by get_model(..., for_training=True), or give it to ProgressiveLearning"
            )
        if self.params["steps"] != self._data.steps_per_epoch:
            raise UserError(
                f"steps_per_epoch={self.params['steps']}: an epoch of the data has "
                f"{self._data.steps_per_epoch} steps; leave the argument out"
            )
        self._share = None
        self._data.stream.end()
        steps_at_once = self.model.steps_per_execution
        self._can_go_on = (
            self._data.steps_per_epoch % steps_at_once == 0
            # A strategy with several replicas builds its own iterators from the dataset.
            and self.model.distribute_strategy.num_replicas_in_sync == 1
        )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        del logs
        self._data.stream.begin_epoch(epoch, can_go_on=self._can_go_on)
        self._first_step = epoch * self._data.steps_per_epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        del logs
        step = self._first_step + batch
        last = self._data.config.model.dropout_rate
        rate = self._data.settings.mean(step, step + 1)["dropout_rate"]
        share = rate / last if last else 1.0
        if share != self._share:
            set_dropout_share(self.model, share)
            self._share = share

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        del logs
        step = self._first_step + batch + 1
        self._data.stream.after_step(step, can_go_on=self._can_go_on)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        del epoch
        self._data.stream.end_epoch()
        settings = self._data.settings
        means = settings.mean(self._first_step, self._first_step + self._data.steps_per_epoch)
        if logs is not None:
            rows = settings.rows.asdict()
            logs.update({name: means[name] for name in means if len(set(rows[name])) > 1})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        del logs
        set_dropout_share(self.model, 1.0)
        self._data.stream.end()


def _require_suitable(model: keras.Model, data: TrainingData) -> None:
    """Raises a UserError if a model cannot be trained on the data."""
    sizes = sorted(set(data.settings.rows.image_size.tolist()))
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4:
        fixed = {size for size in shape[1:3] if size is not None}
        channels = data.config.model.channels
        if shape[-1] != channels or (fixed and fixed != set(sizes)):
            wanted = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            raise UserError(
                f"the model takes images of shape {shown(shape[1:])}, but those of the data have "
                f"{wanted} pixels a side and {count_text(channels)}: give it "
                f"input_shape=(None, None, {channels})"
            )
    outputs = (getattr(model, "output_shape", None) or (None,))[-1]
    if isinstance(outputs, int) and outputs != len(data.class_names):
        raise UserError(
            f"the model has {outputs} outputs, but the data has {len(data.class_names)} classes"
        )
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    inside = [layer.name for layer in model._flatten_layers() if isinstance(layer, kinds)]
    if inside and data.is_normalised:
        raise UserError(
            f"the model normalises images itself (layer {shown(inside[0])}), and so does the data: "
            "give training_data normalise=False"
        )


def _require_compiled_for_mixed_targets(model: keras.Model) -> None:
    loss = getattr(model, "loss", None)
    if "sparse" in str(getattr(loss, "name", loss)):
        raise UserError(
            f"the loss {shown(getattr(loss, 'name', loss))} takes class numbers, but mixup mixes "
            "targets, which are one-hot: compile with CategoricalCrossentropy"
        )
