"""Sets up and runs a training with its data, devices, checkpoints and validation.

``--mode=train``, the trials of a search and the Python API all use this set-up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from efficientnetv2.checkpoints.loader import WeightsReport
from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.open_data import open_data, open_split
from efficientnetv2.data.sample_images import calibration_images
from efficientnetv2.data.sources import Source
from efficientnetv2.evaluation.calibration import fit_on_minival
from efficientnetv2.evaluation.evaluator import (
    AnyPredictions,
    EvaluationResult,
    Evaluator,
    Metrics,
    add_best,
    evaluate_raw_and_ema,
    evaluate_split,
    open_evaluator,
)
from efficientnetv2.evaluation.label_scores import with_label_metrics
from efficientnetv2.evaluation.loaded_model import load_trained
from efficientnetv2.evaluation.thresholds import fit_thresholds
from efficientnetv2.evaluation.unknown_images import open_unknown, scores, unknown_metrics
from efficientnetv2.runtime.best_weights import best_weights
from efficientnetv2.runtime.calibration_file import (
    read_temperature,
    read_threshold,
    takes_temperature,
    takes_unknown,
    write_calibration,
)
from efficientnetv2.runtime.cluster import require_for_replicas
from efficientnetv2.runtime.console import open_bar
from efficientnetv2.runtime.float_run import find_float_run
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.teacher_run import find_teacher, require_same_classes
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.checkpoint_manager import BestCheckpoint, repair
from efficientnetv2.train.early_stop import SIZE
from efficientnetv2.train.loop import Training
from efficientnetv2.train.quantised_network import start_from_float
from efficientnetv2.train.train_state import TrainState, start_from_pretrained
from efficientnetv2.train.workers import Workers, build_workers, settings_checksum
from hparams.config import Config
from hparams.label_kinds import SEVERAL, best_metric, label_kind
from hparams.quantisation import is_quantised
from hparams.resolve import require_full_batch, with_overrides


@dataclasses.dataclass(frozen=True)
class TrainingSession:
    """A training that is ready to run.

    Attributes:
      config: the complete config.
      source: the data set.
      run: the run directory of this process.
      workers: the devices and processes.
      training: the outer loop, resumed from the newest checkpoint if there is one.
      pretrained: the pretrained weights that were loaded; None: started from scratch, or resumed.
      stop: the signals that stop it.
    """

    config: Config
    source: Source
    run: RunDirectory
    workers: Workers
    training: Training
    pretrained: WeightsReport | None
    stop: StopRequest

    @property
    def train_state(self) -> TrainState:
        """The network, its optimizer and its moving average."""
        return self.training.train_state

    def train(self, *, validate: bool, keep_best: bool) -> int | None:
        """Trains to the last epoch, or until a signal stops it; see ``Training.run``.

        Args:
          validate: evaluate on the minival split after each epoch.
          keep_best: with ``validate``, keep the checkpoint that was best on minival in ``best/``.

        Returns:
          The number of the signal that stopped it, or None.

        Raises:
          DataError: with ``validate``, if minival has no images.
        """
        after_epoch = None
        if validate:
            self.source.num_images(self.config.data.minival_split)  # which must not be empty
            best = None
            if keep_best and self.workers.is_chief:
                best = BestCheckpoint(self.train_state, self.run, metric=best_metric(self.config))
            after_epoch = self._validation(best)
        if self.workers.is_chief and not self.training.is_finished:
            for file in (self.run.thresholds_file, self.run.calibration_file):
                file.unlink(missing_ok=True)  # of the weights so far
        return self.training.run(after_epoch=after_epoch)

    def evaluate(self) -> EvaluationResult:
        """Evaluates the raw weights, the moving average and those of best/ on the final split.

        Where images have several classes, the chief chooses their thresholds first; then it fits
        the temperature of the probabilities and the threshold of unknown images. It writes them
        into the run directory, unless they are there: somebody may have changed them.
        """
        images = open_split(self.config, self.source, self.run, split=self.config.data.eval_split)
        is_several = label_kind(self.config) == SEVERAL
        if is_several and self.workers.is_chief and not self.run.thresholds_file.exists():
            thresholds = fit_thresholds(
                self.config,
                self.source,
                self.run,
                workers=self.workers,
                images=self._minival(self.config.eval.isize),
            )
            if thresholds is not None:
                self.run.write_thresholds(self.source.class_names, thresholds.tolist())
        calibration = self._calibrate()
        metrics, predictions = self._evaluate(images)
        metrics = self._with_unknown(metrics, predictions)
        thresholds = None
        if is_several:
            thresholds = np.array(self.run.thresholds(self.source.class_names))
            metrics = with_label_metrics(metrics, predictions, thresholds)
        return EvaluationResult(
            images, self.source.class_names, metrics, predictions, thresholds, calibration
        )

    def _evaluate(self, images: EvaluationInput) -> tuple[Metrics, dict[str, AnyPredictions]]:
        """Returns metrics and predictions of "raw", "ema" and "best", if there are such weights.

        With several processes the best weights are left out: only the chief has them.
        """
        best = best_weights(self.run) if self.workers.is_alone else None
        evaluator, state = self._final_evaluator(), self.train_state
        lists: dict[str, list[AnyPredictions]] = {"raw": [], "ema": []}
        metrics = evaluate_raw_and_ema(
            state, evaluator, images, workers=self.workers, predictions=lists
        )
        predictions = {name: found[0] for name, found in lists.items() if found}

        def evaluate() -> tuple[dict[str, float], AnyPredictions | None]:
            found: list[AnyPredictions] = []
            values = evaluate_split(evaluator, images, workers=self.workers, predictions=found)
            return values, found[0] if found else None

        add_best(best, state.model, metrics, predictions, step=state.step, evaluate=evaluate)
        return metrics, predictions

    def _with_unknown(self, metrics: Metrics, predictions: Mapping[str, AnyPredictions]) -> Metrics:
        """Returns metrics with those of the images of classes that were left out, if any were."""
        unknown = open_unknown(self.config, self.source, None)
        if unknown is None:
            return metrics
        _, others = self._evaluate(unknown)
        threshold = read_threshold(self.run, self.config) if self.workers.is_alone else None
        return {
            name: {
                **values,
                **unknown_metrics(scores(predictions[name]), scores(others[name]), threshold),
            }
            for name, values in metrics.items()
        }

    def _calibrate(self) -> str:
        """Fits calibration.json, unless it exists; returns the result as text."""
        is_there = self.run.calibration_file.exists()
        if not takes_unknown(self.config) or not self.workers.is_chief or is_there:
            return ""
        fit = fit_on_minival(
            self.config,
            self.source,
            self.run,
            workers=self.workers,
            images=self._minival(self.config.eval.isize),
        )
        calibration = None if isinstance(fit.calibration, str) else fit.calibration
        rule = None if isinstance(fit.unknown, str) else fit.unknown
        if calibration is not None or rule is not None:
            write_calibration(self.run, calibration, rule)
        lines = []
        if calibration is not None:
            lines.append(
                f"probabilities are calibrated: temperature {calibration.temperature:.3f}, ECE "
                f"{calibration.ece:.4f} -> {calibration.ece_calibrated:.4f} on "
                f"{calibration.images:,} minival images"
            )
        elif takes_temperature(self.config):
            lines.append(f"probabilities are not calibrated: {fit.calibration}")
        if rule is None:
            lines.append(f"there is no threshold for unknown images: {fit.unknown}")
        else:
            lines.append(
                f"an image is unknown if its best probability is below {rule.threshold:.4f}, as "
                f"for {1 - rule.kept:.1%} of {rule.images:,} minival images"
            )
        return "\n".join(lines)

    def _final_evaluator(self) -> Evaluator:
        """Returns the evaluator; a single process, which knows the temperature, also applies it."""
        temperature = read_temperature(self.run, self.config) if self.workers.is_alone else None
        if temperature is None:
            return self._evaluator
        model, strategy = self.train_state.model, self.training.strategy
        return open_evaluator(self.config, model, strategy=strategy, temperature=temperature)

    @functools.cached_property
    def _evaluator(self) -> Evaluator:
        model, strategy = self.train_state.model, self.training.strategy
        return open_evaluator(self.config, model, strategy=strategy)

    @functools.cached_property
    def _minival(self) -> Callable[[int], EvaluationInput]:
        """Opens the images of minival at a size in pixels; those of the last size stay open."""

        @functools.lru_cache(maxsize=1)  # stages follow each other
        def minival(image_size: int) -> EvaluationInput:
            config = with_overrides(self.config, {"eval.isize": image_size})
            return open_split(config, self.source, self.run, split=config.data.minival_split)

        return minival

    def _validation(self, best: BestCheckpoint | None) -> Callable[[], dict[str, float]]:
        """Returns the function that evaluates on the minival split after each epoch."""

        def after_epoch() -> dict[str, float]:
            size = self.training.validation_size
            metrics = evaluate_raw_and_ema(
                self.train_state,
                self._evaluator,
                self._minival(size),
                workers=self.workers,
                stop=self.stop,
            )
            record = {
                f"minival{'_ema' if name == 'ema' else ''}_{key}": values[key]
                for name, values in metrics.items()
                for key in values
                if key != "images"
            }
            if best is not None:
                metric = best_metric(self.config)
                results = {name: values[metric] for name, values in metrics.items()}
                best.offer(results, image_size=size)
            return {SIZE: size, **record}

        return after_epoch


def _calibrate(config: Config, source: Source, train_state: TrainState) -> None:
    """Starts an 8-bit training from the float run, calibrated on images of the training split.

    Both are the same at each start, and so are the weights and ranges: a training that is killed
    before its first checkpoint begins as it did.
    """
    run = find_float_run(config.train.ft_init_ckpt)
    trained = load_trained(run.config(), run)
    with open_bar(unit="layer", desc="int8") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        pixels = calibration_images(config, source).pixels
        start_from_float(train_state.model, config, trained.model, pixels=pixels, progress=progress)
    if train_state.average is not None:
        train_state.average.restart()


@contextlib.contextmanager
def open_training(
    config: Config,
    run: RunDirectory,
    *,
    stop: StopRequest,
    callback: Callable[[bool], TrainingCallback],
    data_run: RunDirectory | None = None,
) -> Iterator[TrainingSession]:
    """Sets up a training that can be run within the context.

    The caller must hold the lock of the run directory.

    Args:
      config: the config of the training.
      run: a new run directory, or one with an unfinished training of the same config.
      stop: the signals that stop the training.
      callback: builds the callback of the training; called with whether this process is the chief.
      data_run: the run directory that holds the splits of a folder of images; None: ``run``.

    Raises:
      UserError: if the data, the devices or the checkpoints cannot be used.
      Stopped: if a signal came before the first step or after the last; everything is saved.
    """
    workers = build_workers(config)
    stop.reinstall_handlers()  # with several processes, TensorFlow has just set its own
    require_for_replicas(config, workers.strategy.num_replicas_in_sync)
    with workers.report_worker_loss(), workers.run_directory(run) as own_run:
        with workers.chief_first():
            config, source = open_data(config, data_run or run, is_chief=workers.is_chief)
            run.require_same(config)
            if workers.is_chief:
                repair(run)
        num_images = source.num_images(config.data.train_split)
        require_full_batch(config, num_images=num_images)
        network = find_teacher(config)
        if network is not None:
            require_same_classes(network, source.class_names)
        workers.require_same({**settings_checksum(config), "number of training images": num_images})
        own_run.start(config, source.class_names)
        training = Training(
            config,
            source,
            run=own_run,
            callback=callback(workers.is_chief),
            stop=stop,
            workers=workers,
            resume_from=run,
        )
        step, teacher = training.train_state.step, training.trainer.teacher
        pretrained = start_from_pretrained(config, training.train_state)
        if is_quantised(config) and step == 0:
            _calibrate(config, source, training.train_state)
        workers.require_same({"step in the checkpoints of --model_dir": step})
        if teacher is not None:
            workers.require_same({"checksum of the teacher's weights": teacher.checksum})
            own_run.require_teacher(teacher.origin, checksum=teacher.checksum, is_new=step == 0)
        yield TrainingSession(config, source, own_run, workers, training, pretrained, stop)
