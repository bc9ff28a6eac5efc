"""Lists the flags of the command line; to add one, add a row, and the mode reads its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from efficientnetv2.commands import MODES
from efficientnetv2.export.formats import FORMATS
from hparams.short_names import SHORT_NAMES

if TYPE_CHECKING:
    from absl import flags

_TRAINING = ("train", "traineval")
_DEVICE_MODES = (*_TRAINING, "eval", "find_lr", "search")
_WITH_MODEL = tuple(mode for mode in MODES if mode not in ("models", "average"))
_WITH_RUN = tuple(mode for mode in _WITH_MODEL if mode != "convert")
_WITH_DATA = tuple(mode for mode in _WITH_RUN if mode != "benchmark")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of the command line.

    Attributes:
      default: its type is the flag's: bool, int, float, list of str, or str (None: not given).
      text: one line for ``--helpfull``.
      modes: the modes that use it; the others refuse it.
      instead: mode -> what does the same there, with ``{value}`` for the value of the flag.
      choices: the allowed values; empty: any.
      limits: smallest and largest number; None: no limit.
      is_path: whether it names a file or folder, so that ``~`` is the home folder.
      keys: mode -> the config keys that it is a short name for there.
      defaults: mode -> the default there, where it is another.
    """

    default: Any
    text: str
    modes: Sequence[str] = tuple(MODES)
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)
    choices: Sequence[str] = ()
    limits: tuple[float | None, float | None] = (None, None)
    is_path: bool = False
    keys: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def default_in(self, mode: str) -> Any:
        """Returns the default in a mode."""
        return self.defaults.get(mode, self.default)


def _for(modes: Sequence[str], text: str) -> dict[str, str]:
    return dict.fromkeys(modes, text)


_DATA_INSTEAD = _for((*_TRAINING, "eval", "preview", "find_lr", "search"), "--data_dir={value}")
_RUN_INSTEAD = _for(
    (*_TRAINING, "preview", "find_lr", "search", "benchmark"), "--model_dir={value}"
)


FLAGS: Mapping[str, Flag] = {
    "mode": Flag("train", f"one of {', '.join(MODES)}"),
    "model_name": Flag("efficientnetv2-s", "name of the model", _WITH_MODEL),
    "dataset_cfg": Flag(None, "name of the data set", _WITH_DATA),
    "model_dir": Flag(
        None,
        "run directory; default: runs/<model>-<data set>; check: folder for its files",
        (*_WITH_RUN, "average"),
        is_path=True,
    ),
    "data_dir": Flag(
        None,
        "folder or table of your own images, or folder of the data set of --dataset_cfg",
        _WITH_DATA,
        is_path=True,
    ),
    "hparam_str": Flag(
        "", "comma-separated key=value settings, or a .yaml file", _WITH_MODEL, is_path=True
    ),
    "sweeps": Flag(
        "", "more key=value settings, applied after --hparam_str", _WITH_RUN, is_path=True
    ),
    "weights": Flag(
        None,
        "pretrained weights: the name of a release or of a store (timm:NAME, hf://...), best (of "
        "the published accuracies), or a path",
        (*_WITH_DATA, "convert"),
        is_path=True,
    ),
    "eval_name": Flag(None, "write the evaluation to eval_<name>.json", (*_TRAINING, "eval")),
    "archive_ckpt": Flag(
        True, "keep the checkpoint with the best minival accuracy in best/", ("traineval",)
    ),
    # ------------------------------------------- what everyone sets, by a short name
    "model": Flag(None, "the same as --model_name", _WITH_MODEL),
    "data": Flag(
        None,
        "folder or table of your own images (--data_dir), or name of a data set (--dataset_cfg); "
        "for infer and export the images (--image_path)",
        _WITH_DATA,
    ),
    **{
        name: Flag(None, row.text, tuple(row.keys), keys=row.keys, is_path=row.is_path)
        for name, row in SHORT_NAMES.items()
    },
    "validate": Flag(
        False, "train: evaluate on the minival split after each epoch, as traineval does", _TRAINING
    ),
    "write_table": Flag(
        None,
        "write the images, their labels and splits as a table (.csv, .tsv), and do not train",
        ("train",),
        is_path=True,
    ),
    "folds": Flag(
        None,
        "cross-validation on your own images: the number of trainings, each of which holds out "
        "another part to evaluate on",
        _TRAINING,
    ),
    "extend": Flag(
        False,
        "add epochs to a training that was started with fewer, in the same --model_dir",
        _TRAINING,
    ),
    "strict": Flag(False, "end with exit code 1 if there is a problem", ("check",)),
    # ------------------------------------------------------------------------ TPU
    "use_tpu": Flag(False, "use a TPU: the same as runtime.strategy=tpu", _DEVICE_MODES),
    "tpu": Flag(
        None,
        "TPU name or grpc:// address; implies --use_tpu; default: this machine's",
        _DEVICE_MODES,
    ),
    "gcp_project": Flag(None, "project of the Cloud TPU", _DEVICE_MODES),
    "tpu_zone": Flag(None, "zone of the Cloud TPU", _DEVICE_MODES),
    "tpu_job_name": Flag(None, "job name of the TPU workers", _DEVICE_MODES),
    # ------------------------------------------------------------------ inference
    "image_path": Flag(
        None,
        "image file, folder, pattern such as 'photos/*.jpg', list of paths (.txt), or -: a list on "
        "standard input",
        ("infer", "export"),
        _DATA_INSTEAD,
        is_path=True,
    ),
    "output": Flag(
        None,
        "file for all predictions: .csv, .json, .jsonl or .parquet; convert: the file to write, "
        ".keras, .weights.h5, .safetensors or .index",
        ("infer", "convert"),
        {**_RUN_INSTEAD, "eval": "--eval_name=NAME", "export": "--output_dir={value}"},
        is_path=True,
    ),
    "shard": Flag(
        None,
        "predict a part of the images, for many processes or machines: 3/64 is the third of 64",
        ("infer",),
    ),
    "output_dir": Flag(
        None,
        "folder of the exported files, or of what --features and --explain write; default: inside "
        "the run directory",
        ("infer", "export"),
        {**_RUN_INSTEAD, "eval": "--model_dir={value}"},
        is_path=True,
    ),
    "flip": Flag(
        False,
        "average over each image and its mirror image",
        ("infer", "eval"),
        _for(_TRAINING, '--hparam_str="data.flip={value}"'),
    ),
    "features": Flag(False, "write the input of the classifier to features.npz", ("infer",)),
    "explain": Flag(False, "draw a heat map of the top class over each image", ("infer",)),
    "crops": Flag(
        "1", "crops of each image to average over", ("infer", "eval"), choices=("1", "5")
    ),
    "unknown": Flag(
        None,
        "images of none of the classes (as --image_path): measures how well they are recognised",
        ("eval",),
        {"infer": "--allow_unknown"},
        is_path=True,
    ),
    "corruptions": Flag(
        False, "also evaluate under mild blur, noise, brightness and JPEG", ("eval",)
    ),
    "top_k": Flag(5, "number of classes to show for each image", ("infer",), limits=(1, 1_000_000)),
    "calibrated": Flag(
        True,
        "divide logits by the temperature in calibration.json of the run, if there is one; "
        "--nocalibrated: raw probabilities",
        ("infer", "export"),
    ),
    "allow_unknown": Flag(
        False,
        "add the answer for each image: its likeliest class, or unknown where the probability is "
        "below the threshold in calibration.json of the run",
        ("infer",),
    ),
    # --------------------------------------------------------------------- export
    "format": Flag(
        ["saved_model", "tflite"],
        f"formats to write, separated by commas, of {', '.join(FORMATS)}",
        ("export",),
        {"infer": "--output=FILE.csv (or .json, .jsonl, .parquet)"},
    ),
    "preprocessing": Flag(
        True, "include the preprocessing: the input is pixels of 0..255", ("export",)
    ),
    "logits": Flag(False, "output logits instead of probabilities", ("export",)),
    "class_names": Flag(
        None,
        "file with the class names, one per line, for --weights that do not have them",
        ("export",),
        is_path=True,
    ),
    "integer_io": Flag(
        False, "uint8 input and output in the int8 file, instead of float32", ("export",)
    ),
    "debug_int8": Flag(False, "write the int8 error of each layer to int8_layers.csv", ("export",)),
    "max_loss": Flag(
        0.5,
        "points of accuracy that the file of --format=tflite_auto may lose",
        ("export",),
        limits=(0.0, 100.0),
    ),
    "export_to_tpu": Flag(False, "add an XLA signature to the SavedModel", ("export",)),
    "license": Flag(
        None,
        "licence to state in the model card, as Hugging Face names it, such as apache-2.0; "
        "default: none",
        ("export",),
    ),
    "serving_dir": Flag(
        None,
        "folder of TensorFlow Serving, into which the SavedModel is copied as its next version, "
        "1/, 2/ and so on",
        ("export",),
        is_path=True,
    ),
    "web_runtime": Flag(
        None,
        "folder where npm installed LiteRT.js, which is copied into the page of --format=web; "
        "default: the page loads it from a public server",
        ("export",),
        is_path=True,
    ),
    # ------------------------------------------------------------------ benchmark
    "models": Flag(
        None,
        "model names, separated by commas; default: --model_name",
        ("benchmark",),
        _for(_WITH_DATA, "--model_name={value}"),
    ),
    "image_scale": Flag(
        1.0,
        "factor on each model's own image sizes",
        ("benchmark",),
        _for(_TRAINING, '--hparam_str="train.isize=SIZE,eval.isize=SIZE" in pixels'),
        limits=(0.01, 4.0),
    ),
    "steps": Flag(
        20,
        "timed steps; find_lr: steps from the lowest to the highest rate (100)",
        ("benchmark", "find_lr"),
        _for(_TRAINING, '--hparam_str="train.epochs=N"'),
        limits=(1, 1_000_000),
        defaults={"find_lr": 100},
    ),
    # -------------------------------------------------------------------- average
    "runs": Flag([], "run directories to average, separated by commas", ("average",)),
    "soup": Flag(
        "greedy",
        "greedy: add one training after another, the best first, if minival does not get worse; "
        "uniform: average all",
        ("average",),
        choices=("greedy", "uniform"),
    ),
    "batchnorm": Flag(
        "estimated",
        "BatchNorm statistics of the average: estimated on training images, or averaged",
        ("average",),
        choices=("estimated", "averaged"),
    ),
    # --------------------------------------------------------------------- models
    "pattern": Flag(None, "the networks to list, such as '*lite*'; default: all", ("models",)),
    "version": Flag(False, "show the versions and devices and exit"),
    "help": Flag(False, "show the help and exit"),
    "helpfull": Flag(False, "show all flags and exit"),
}


def short_flags(values: flags.FlagValues) -> dict[str, str]:
    """Returns config key -> the short flag that was given for it, in the mode of the values."""
    return {
        key: name
        for name, row in FLAGS.items()
        if values[name].present
        for key in row.keys.get(values.mode, ())
    }
