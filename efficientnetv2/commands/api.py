"""Python functions for the modes of the command line; each passes its arguments to its mode.

So Python and the command line check the same things, write the same files and get the same numbers.
The modes that are used before a training are in ``api_outlook``.
"""

from __future__ import annotations

import functools
import os
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Union

from efficientnetv2.commands.python_call import call_mode, show
from efficientnetv2.commands.trained_run import Run
from efficientnetv2.data.sources.image_list import ImageList
from hparams.arguments import check_text
from hparams.errors import UserError, shown
from hparams.overrides import Overrides

if TYPE_CHECKING:
    from tensorflow import keras

    from efficientnetv2.evaluation.image_prediction import Prediction

Path = Union[str, "os.PathLike[str]"]
_SHOWN = 8  # heat maps in a notebook
_CLOCK_STEP = 20_000_000  # nanoseconds; file systems count time in steps of a few milliseconds


def train(
    model: str | None = None,
    data: Path | None = None,
    *,
    dataset_cfg: str | None = None,
    preset: str | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | str | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    optimizer: str | None = None,
    resize: str | None = None,
    augment: str | None = None,
    precision: str | None = None,
    quantise: str | None = None,
    teacher: Path | None = None,
    seed: int | None = None,
    validate: bool = False,
    extend: bool = False,
    weights: Path | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    eval_name: str | None = None,
    verbose: bool = False,
) -> Run:
    """Trains with progressive learning, then evaluates on the final split.

    >>> run = env2.train("efficientnetv2-b0", "photos", epochs=2, overrides="settings.yaml")
    >>> run
    Run('runs/efficientnetv2-b0-photos')
    >>> [record["epoch"] for record in run.history]
    [1, 2]

    A training that was stopped goes on where it was when the function is called again with the same
    arguments.

    Args:
      model: one of ``list_models()``, in anyone's spelling; with weights behind it, as in
        ``tf_efficientnetv2_s.in21k_ft_in1k``, the training starts from these; None: that of the
        run that ``quantise`` goes on with, or that ``weights`` name, or else ``efficientnetv2-s``.
      data: a folder ``photos/<class>/*.jpg`` or ``photos/{train,val,test}/<class>/*.jpg``, a table
        of labels (``labels.csv``; ``overrides`` may name its columns, docs/data.md), or the name of
        a data set; None: ``digits``.
      dataset_cfg: recipe for a folder of images, such as ``ft`` to fine-tune (docs/finetuning.md).
      preset: of your own images: ``auto``, ``fast`` or ``best`` chooses size, length and
        regularisation of the training (docs/data.md); ``none``: no choice; None: ``auto``.
      recipe: settings that belong together, ``paper``, ``official``, ``torchvision``, ``fast`` or
        ``fixres`` (docs/recipes.md); None: those that come with the data set.
      epochs: passes over the training images.
      batch_size: images a step; ``auto``: as many as fit into memory (docs/training.md).
      learning_rate: its peak for a batch of 256; proportional to the batch size.
      image_size: pixels, of the last stage and of evaluation; the first stage has half of it.
      optimizer: a value of ``train.optimizer`` in docs/hparams.md.
      resize: how an image that is not square becomes a square: ``published``, ``squash``, ``crop``
        or ``letterbox`` (docs/data.md); None: as the data set has it.
      augment: of single images: a value of ``data.augname`` in docs/hparams.md.
      precision: ``float32``, ``bfloat16`` or ``float16``.
      quantise: ``int8``: fine-tune the run of ``weights`` as its 8-bit file will compute, with its
        settings of model and data (docs/int8.md); None: train in float.
      teacher: a trained network to learn from besides the labels: a run directory of the same
        classes, the name of a release, or a weights file (docs/finetuning.md); None: none.
      seed: of everything random; the same seed gives the same weights.
      validate: evaluate on the minival split after each epoch, and keep the best weights.
      extend: continue the training in ``model_dir``, which had fewer epochs, up to ``epochs``.
      weights: to start from: the name of a release, or a path; None: random.
      overrides: all other settings, for example ``{"data.augname": "randaug"}``; docs/hparams.md.
      model_dir: the run directory; None: ``runs/<model>-<data>``; with ``quantise``,
        ``<weights>-int8``.
      eval_name: metrics go to ``eval_<eval_name>.json``; None: ``eval.json``.
      verbose: print what the command line prints.

    Returns:
      The training, with its metrics and its network.

    Raises:
      UserError: if an argument, the data or the run directory cannot be used; it is a ValueError.
      KeyboardInterrupt: after an interrupt; the training is saved.
    """
    run: Run = call_mode("train", locals())
    show(run.path / "curves.png")
    return run


def evaluate(
    model: str | None = None,
    data: Path | None = None,
    *,
    dataset_cfg: str | None = None,
    weights: Path | None = None,
    model_dir: Path | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    resize: str | None = None,
    crops: int = 1,
    flip: bool = False,
    unknown: Path | None = None,
    corruptions: bool = False,
    overrides: Overrides = None,
    eval_name: str | None = None,
    verbose: bool = False,
) -> dict[str, dict[str, float]]:
    """Evaluates a training, or pretrained weights, on the final split of the data.

    >>> metrics = env2.evaluate(model_dir="runs/efficientnetv2-b0-photos")
    >>> sorted(metrics), sorted(metrics["ema"])[:3]
    (['ema', 'raw'], ['balanced_accuracy', 'ece', 'images'])

    Args:
      model: name of the network; None: that of the training.
      data: as in ``train``; None: that of the training.
      dataset_cfg: as in ``train``.
      weights: a file, the name of a release, or a run directory; None: those of ``model_dir``.
      model_dir: the run directory; None: ``runs/<model>-<data>``.
      batch_size: images evaluated at once.
      image_size: pixels; None: that of the training.
      resize: as in ``train``; None: that of the training.
      crops: as in ``predict``.
      flip: as there.
      unknown: file, folder or pattern, images of none of the classes; the metrics then say how
        well they are recognised (docs/training.md).
      corruptions: also evaluate under mild blur, noise, brightness and JPEG.
      overrides: other settings, as in ``train``.
      eval_name: results go to ``eval_<eval_name>.json`` and pictures of this name.
      verbose: print what the command line prints.

    Returns:
      ``{"raw": {"images": ..., "loss": ..., "top1": ..., "top5": ...}, "ema": {...}}``: of the
      weights as they were trained, and of their moving average if there is one; after a training
      with ``validate`` also "best": of those that were best on minival, which ``predict`` and
      ``export`` use. All but the loss are 0..1. Where images have several classes or numbers, there
      are others (docs/data.md).

    Raises:
      UserError: if an argument, the data or the weights cannot be used.
    """
    metrics: dict[str, dict[str, float]] = call_mode("eval", locals())
    return metrics


def predict(
    images: Path | Iterable[Path],
    model: str | None = None,
    *,
    weights: Path | None = None,
    model_dir: Path | None = None,
    top_k: int = 5,
    crops: int = 1,
    flip: bool = False,
    calibrated: bool = True,
    allow_unknown: bool = False,
    features: bool = False,
    explain: bool = False,
    output: Path | None = None,
    output_dir: Path | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    resize: str | None = None,
    overrides: Overrides = None,
    verbose: bool = False,
) -> list[Prediction]:
    """Predicts the classes of images.

    >>> predictions = env2.predict("photos/flower", model_dir="runs/efficientnetv2-b0-photos")
    >>> len(predictions), predictions[0].path
    (20, PosixPath('photos/flower/000.jpg'))
    >>> predictions[0].class_names, predictions[0].probabilities.shape
    (['china', 'flower'], (2,))

    Images that cannot be read are left out, each with a warning.

    Args:
      images: a file, a folder, a pattern such as ``photos/*.jpg``, a ``.txt`` list of paths, or any
        number of paths.
      model: name of the network; None: that of the training.
      weights: a file, the name of a release, or a run directory; None: those of ``model_dir``.
      model_dir: the run directory; None: ``runs/<model>-digits``.
      top_k: classes of an image that are printed and written.
      crops: crops of each image, 1 or 5, to average over.
      flip: average over each image and its mirror image.
      calibrated: divide logits by the temperature that the training fitted, if it did
        (docs/training.md); ``False``: raw probabilities, and no image is unknown.
      allow_unknown: print and write the answer for each image: its class, or ``unknown``
        (docs/training.md); ``is_unknown`` and ``answer`` of the predictions say it in any case.
      features: also return the input of the classifier, and write it to ``features.npz``.
      explain: draw a heat map of the top class over each image, in ``explain/``.
      output: file for all predictions: ``.csv``, ``.json``, ``.jsonl`` or ``.parquet``.
      output_dir: folder for ``features`` and ``explain``; None: the run directory.
      batch_size: images predicted at once.
      image_size: pixels; None: that of the training.
      resize: as in ``train``; None: that of the training.
      overrides: other settings, as in ``train``.
      verbose: print what the command line prints.

    Returns:
      A prediction for each image, in the order of the paths, with ``path``, ``class_name``,
      ``class_names``, ``probabilities`` (float32 ``[K]``, 0..1), ``top(count)``, ``answer`` and
      ``is_unknown``; also ``labels`` where an image may have several classes, and ``numbers`` where
      it has numbers. ``predictions_to_frame`` makes a table of pandas of them.

    Raises:
      UserError: if an argument or the weights cannot be used, or no image can be read.
    """
    kept: list[Prediction] = []
    listed, image_path = None, None
    if isinstance(images, (str, os.PathLike)):
        image_path = images
    else:
        if not isinstance(images, Iterable):
            raise UserError(f"images must be a path, or paths, got {shown(images)}")
        listed = ImageList.of(check_text("images", path, what="paths") for path in images)
        if not listed:
            raise UserError("images lists no image; give paths, or a folder")
    arguments = {**locals(), "image_path": image_path}
    from efficientnetv2.commands import infer

    for name in ("images", "kept", "listed"):
        del arguments[name]
    work = functools.partial(infer.run, listed=listed, kept=kept)
    began = time.time_ns()
    folder: pathlib.Path = call_mode("infer", arguments, work)
    if not kept:
        raise UserError("none of the images can be read; the warnings say why")
    if explain:
        drawn = sorted((folder / "explain").iterdir())
        new = [file for file in drawn if file.stat().st_mtime_ns > began - _CLOCK_STEP]
        show(*(new or drawn)[:_SHOWN])
    return kept


def export(
    format: str | Sequence[str] = ("saved_model", "tflite"),
    model: str | keras.Model | None = None,
    *,
    weights: Path | None = None,
    model_dir: Path | None = None,
    images: Path | Any | None = None,
    class_names: Sequence[str] | Path | None = None,
    output_dir: Path | None = None,
    preprocessing: bool = True,
    logits: bool = False,
    calibrated: bool = True,
    integer_io: bool = False,
    debug_int8: bool = False,
    serving_dir: Path | None = None,
    license: str | None = None,
    web_runtime: Path | None = None,
    max_loss: float = 0.5,
    batch_size: int | None = None,
    image_size: int | None = None,
    resize: str | None = None,
    overrides: Overrides = None,
    verbose: bool = False,
) -> pathlib.Path | dict[str, pathlib.Path]:
    """Writes a network for servers, phones and browsers, and checks each file on real images.

    >>> env2.export("keras", model_dir="runs/efficientnetv2-b0-photos")
    PosixPath('runs/efficientnetv2-b0-photos/export/efficientnetv2-b0.keras')

    Args:
      format: one or more of ``saved_model``, ``keras``, ``tflite``, ``tflite_int8``, ``web`` and
        the others in docs/export.md.
      model: name of the network, or a Keras model to export as it is (docs/export.md); None: that
        of the training, or of a ``.keras`` file the model that it holds.
      weights: a file, the name of a release, or a run directory; None: those of ``model_dir``.
      model_dir: the run directory; None: ``runs/<model>-digits``.
      images: file, folder or pattern, to calibrate and check with; None: those of the training. For
        a Keras model also an array ``[N, H, W, C]``, a pair of it and labels, or a
        ``tf.data.Dataset`` of images or pairs, as the exported file takes them.
      class_names: of a Keras model, or of weights that do not know them: names in the order of the
        outputs, or a file with one name per line; None: ImageNet's or numbers.
      output_dir: folder of the files; None: ``export/`` in the run directory.
      preprocessing: include it: the input is pixels of 0..255.
      logits: output logits instead of probabilities.
      calibrated: as in ``predict``; the logits are divided, too.
      integer_io: uint8 input and output in the int8 file, instead of float32.
      debug_int8: write the int8 error of each layer to ``int8_layers.csv``.
      serving_dir: folder of a server, which gets the SavedModel as its next version; see
        docs/deploying.md.
      license: of the files, for their model card, as Hugging Face names it, such as
        ``apache-2.0``; None: the card states none.
      web_runtime: folder in which npm installed LiteRT.js, to be copied into the page of ``web``;
        None: the page loads it from a public server.
      max_loss: points of accuracy that the file of ``tflite_auto`` may lose.
      batch_size: images checked at once.
      image_size: pixels; None: that of the training.
      resize: as in ``train``; None: that of the training.
      overrides: other settings, as in ``train``.
      verbose: print what the command line prints.

    Returns:
      The path of the file or folder; of several formats, format -> path.

    Raises:
      UserError: if an argument or the weights cannot be used, or a file differs from the Keras
        model by more than its format allows.
    """
    arguments = {**locals(), "image_path": images}
    del arguments["images"]
    from efficientnetv2.commands import export as command

    is_array = hasattr(images, "shape") or hasattr(images, "element_spec")
    in_memory = {
        "model": hasattr(model, "to_json"),  # Keras's; told without importing Keras
        "image_path": is_array or isinstance(images, (tuple, list)),
        "class_names": isinstance(class_names, (tuple, list)),
    }
    given = {name: arguments.pop(name) for name, is_given in in_memory.items() if is_given}
    if "image_path" in given:
        given["images"] = given.pop("image_path")
    work = functools.partial(command.run, given=command.InMemory(**given))
    paths: dict[str, pathlib.Path] = call_mode("export", arguments, work)
    return paths[format] if isinstance(format, str) and format in paths else paths


def search(
    model: str | None = None,
    data: Path | None = None,
    *,
    dataset_cfg: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    optimizer: str | None = None,
    resize: str | None = None,
    augment: str | None = None,
    precision: str | None = None,
    seed: int | None = None,
    overrides: Overrides = None,
    model_dir: Path | None = None,
    verbose: bool = False,
) -> list[dict[str, Any]]:
    """Looks for the best network for your data and device, by training-aware search (section 3.3).

    With ``search.space`` it looks for the best settings of ``model`` instead. The settings of a
    search are those of the section ``search`` in docs/hparams.md, in ``overrides``. A search that
    was stopped goes on when the function is called again with the same arguments.

    Args: see ``train``; ``epochs`` and ``image_size`` are those of each trial.

    Returns:
      The rows of ``trials.csv``, those with the highest rewards first. The best network, or the
      best settings, are in ``best.yaml`` beside it, for ``overrides`` of ``train``.

    Raises:
      UserError: if an argument or the data cannot be used, or no trial succeeded.
      KeyboardInterrupt: after an interrupt; the search is saved.
    """
    rows: list[dict[str, Any]] = call_mode("search", locals())
    return rows


def convert(
    weights: Path,
    output: Path,
    *,
    model: str | None = None,
    overrides: Overrides = None,
    verbose: bool = False,
) -> pathlib.Path:
    """Writes pretrained weights in the file format of another project.

    Args:
      weights: a file, the name of a release, or a run directory.
      output: ends in ``.weights.h5`` or ``.keras`` (Keras), ``.safetensors`` (timm) or ``.index``
        (the official code).
      model: name of their network; None: that of the run, or ``efficientnetv2-s``.
      overrides: settings of the network, such as ``num_classes=10``.
      verbose: print what the command line prints.

    Returns:
      The path of the new file.

    Raises:
      UserError: if the weights cannot be read or do not fit the network, or the file cannot be
        written.
    """
    path: pathlib.Path = call_mode("convert", locals())
    return path


def average_weights(
    runs: Sequence[Path],
    model_dir: Path,
    *,
    soup: str = "greedy",
    batchnorm: str = "estimated",
    verbose: bool = False,
) -> Run:
    """Averages the weights of several trainings of one network: a model soup.

    The trainings have the same network, classes and split of the images, and should have started
    from the same weights (arXiv 2203.05482, docs/finetuning.md). Of each, the weights are those
    that ``predict`` and ``export`` use.

    Args:
      runs: at least two run directories.
      model_dir: a new run directory, for the average.
      soup: ``greedy``: add one training after another, the best on minival first, if minival does
        not get worse; ``uniform``: average all.
      batchnorm: statistics of the average: ``estimated`` on up to 1,024 training images, or
        ``averaged``.
      verbose: print what the command line prints.

    Returns:
      The average as a training, to evaluate, predict and export; ``average.json`` in its directory
      says what is part of it.

    Raises:
      UserError: if the trainings do not fit together, or an argument cannot be used.
    """
    if isinstance(runs, (str, os.PathLike)) or not isinstance(runs, Sequence):
        raise UserError(f"runs must be a list of run directories, got {shown(runs)}")
    path: pathlib.Path = call_mode("average", locals())
    return Run(path)
