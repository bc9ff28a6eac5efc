"""Writes the model card of an export: ``README.md`` with Hugging Face's front matter.

The fields are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md. What is not
known, such as a licence that nobody has named, is left out.
"""

from __future__ import annotations

import collections
import csv
import functools
import json
import math
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.exporter import ExportOptions, ExportResult
from efficientnetv2.export.servable import PIXELS
from efficientnetv2.reporting.file_use import code_for, file_use
from efficientnetv2.reporting.results import data_name
from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.environment import environment
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.channels import GREY, RGB
from hparams.config import Config
from hparams.keys import KEYS
from hparams.label_kinds import NUMBERS, ONE, SEVERAL
from hparams.resolve import flat

FILE = "README.md"
MARK = "# Written by efficientnetv2 at each export. Without this line, it is left as it is."
_PAGES = pathlib.Path(__file__).with_name("pages")
_SHOWN_NAMES = 100
# Between two accuracies on the same images: files of whole pixels round otherwise.
_SAME = 0.01
# Metric -> its id on Hugging Face (https://hf.co/metrics) or a similar word, and its title.
_METRICS: Mapping[str, tuple[str, str]] = {
    "top1": ("accuracy", "top-1 accuracy"),
    "top5": ("accuracy", "top-5 accuracy"),
    "balanced_accuracy": ("recall", "balanced accuracy (mean recall of the classes)"),
    "micro_f1": ("f1", "micro F1"),
    "macro_f1": ("f1", "macro F1"),
    "map": ("average_precision", "mean average precision"),
    "ap_micro": ("average_precision", "micro average precision"),
    "r2": ("r_squared", "R2"),
    "mae": ("mae", "mean absolute error"),
    "rmse": ("rmse", "root mean square error"),
}
_MEASURED = {ONE: "top1", SEVERAL: "micro_f1", NUMBERS: "r2"}  # by an export
# Settings that say where files lie and what the machine has, not what was trained.
_PRIVATE = ("runtime.", "search.", "data.data_dir", "data.service", "data.cache_mib")
_PATHS = ("train.ft_init_ckpt", "train.teacher")  # of which only the name is shown
_LIMITS = {
    ONE: "It always names one of the classes above, whatever an image shows.",
    SEVERAL: "It looks for the classes above only, whatever else an image shows.",
    NUMBERS: "It gives numbers for every image, whatever it shows.",
}


def write_model_card(
    result: ExportResult,
    options: ExportOptions,
    loaded: LoadedModel | None,
    run: RunDirectory | None,
) -> bool:
    """Writes ``README.md`` beside the exported files, and returns whether it did.

    It does not if there is a ``README.md`` without our mark, which somebody has written.

    Args:
      result: what was exported.
      options: of the export.
      loaded: the network that was exported; None: a user's Keras model.
      run: its run directory; None: its weights are of a file.

    Raises:
      WriteError: if it cannot be written.
    """
    path = options.folder / FILE
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    servable, metrics = result.servable, _metrics(result, loaded, run)
    config = loaded.config if loaded else None
    trained = run.config() if run else config
    text = _template().render(
        mark=MARK,
        front_matter=_yaml(_front_matter(result, options, config, metrics)),
        title=_text(_title(result, config)),
        summary=_summary(result),
        accuracy=_accuracy(result, config, metrics),
        metrics=[(_METRICS[name][1], f"{metrics[name]:.4f}") for name in _named(metrics)],
        calibration=_calibration(result, metrics, run),
        names_title="Numbers" if servable.kind == NUMBERS else "Classes",
        names=_names(servable.class_names),
        input=_input(result),
        output=_output(result),
        files=_files(result),
        files_header=_files_header(result),
        **_preparation(result),
        uses=_uses(result, options),
        shown=_shown(result),
        training=_training(result, trained, run),
        command=_command(trained) if run and trained else "",
        settings=_settings(trained) if trained else "",
        limits=f"{_LIMITS[servable.kind]} The figures hold for images like those that they were "
        "measured on; measure on your own before you rely on them.",
    )
    replace_text(path, re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")
    return True


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("model_card.md")


def _text(text: str) -> str:
    """Returns text of others, such as class names, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _data(config: Config) -> str:
    """Returns the data's name without the folders that it lies in."""
    return pathlib.PurePath(data_name(config)).name


def _title(result: ExportResult, config: Config | None) -> str:
    name = result.servable.model_name
    return name if config is None or result.keras_accuracy is None else f"{name} on {_data(config)}"


def _metrics(
    result: ExportResult, loaded: LoadedModel | None, run: RunDirectory | None
) -> dict[str, float]:
    """Returns the metrics of the exported network, and ``images``, on how many they were measured.

    They are those of the run's last evaluation, or of the export alone where there was none, or
    where it was of another network than was exported. Empty: nothing is known.
    """
    kind, measured = result.servable.kind, result.keras_accuracy
    metrics = {}
    if measured is not None:
        metrics = {_MEASURED[kind]: measured, "images": result.images}
    file = run.result_file() if run else None
    if measured is None or loaded is None or file is None or not file.exists():
        return metrics
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        newest = "ema" if loaded.is_average else "raw"
        weights = "best" if "best" in content else newest
        found = {name: float(value) for name, value in content[weights].items()}
        is_same_split = content["split"] == loaded.config.data.eval_split
        is_near = abs(found.get(_MEASURED[kind], measured) - measured) <= _distance(result, found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return metrics  # what an export measures is enough, whatever is wrong with the other file
    return {**metrics, **found} if is_same_split and is_near else metrics


def _distance(result: ExportResult, found: Mapping[str, float]) -> float:
    """Returns how far the metrics of two sets of images may be apart, of the same network."""
    if found["images"] == result.images:
        return _SAME
    return _SAME + 2 / math.sqrt(result.images)  # four standard deviations, or more


def _named(metrics: Mapping[str, float]) -> list[str]:
    return [name for name in _METRICS if name in metrics]


def _interval(share: float, images: float) -> tuple[float, float]:
    """Returns the 95% interval of a share of images (Wilson, 1927)."""
    from scipy.stats import binomtest

    test = binomtest(round(share * images), int(images))
    low, high = test.proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def _front_matter(
    result: ExportResult,
    options: ExportOptions,
    config: Config | None,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    servable = result.servable
    libraries = [use.library for use in map(file_use, result.paths) if use is not None]
    is_classifier = servable.kind != NUMBERS
    tags = ["image-classification" if is_classifier else "image-regression"]
    family = [] if servable.is_own else [servable.model_name.partition("-")[0]]
    tags += [*family, *libraries]
    fields: dict[str, Any] = {
        "license": options.license,
        "library_name": libraries[0] if libraries else None,
        "pipeline_tag": "image-classification" if is_classifier else None,
        "tags": list(dict.fromkeys(tags)),
    }
    if metrics and config is not None:
        data, split = _data(config), config.data.eval_split
        values = [
            {"type": _METRICS[name][0], "name": _METRICS[name][1], "value": round(metrics[name], 5)}
            for name in _named(metrics)
        ]
        entry = {
            "task": {"type": tags[0], "name": tags[0].replace("-", " ").capitalize()},
            "dataset": {"name": data, "type": _slug(data), "split": split},
            "metrics": values,
        }
        fields["datasets"] = [_slug(data)]
        fields["metrics"] = list(dict.fromkeys(value["type"] for value in values))
        name = f"{servable.model_name}-{_slug(data)}"
        fields["model-index"] = [{"name": name, "results": [entry]}]
    return {key: value for key, value in fields.items() if value is not None}


def _slug(name: str) -> str:
    """Returns a name of letters, digits, ``.``, ``_`` and ``-``, as Hugging Face takes them."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"


def _yaml(fields: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=1000)


def _summary(result: ExportResult) -> str:
    servable = result.servable
    what = "predicts numbers" if servable.kind == NUMBERS else "classifies images"
    count = len(servable.class_names)
    unit = "number" if servable.kind == NUMBERS else "class"
    plural = {"number": "numbers", "class": "classes"}[unit]
    several = "; an image may have several" if servable.kind == SEVERAL else ""
    paper = (
        ""
        if not servable.model_name.startswith("efficientnetv2")
        else (" ([EfficientNetV2](https://arxiv.org/abs/2104.00298))")
    )
    return (
        f"{servable.model_name}{paper} that {what}: {count:,} {plural if count > 1 else unit}"
        f"{several}, {servable.image_size} x {servable.image_size} pixels, "
        f"{servable.model.count_params():,} parameters."
    )


def _accuracy(result: ExportResult, config: Config | None, metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "Not measured: the images that the files were checked on have no labels."
    images = int(metrics["images"])
    where = f"{images:,} images"
    if config is not None:
        where += f" of {_text(_data(config))} (split {_text(config.data.eval_split)})"
    if result.servable.kind != ONE:
        return f"Measured on {where}."
    low, high = _interval(metrics["top1"], images)
    return (
        f"It names the right class for **{metrics['top1']:.1%}** of {where}; 95% interval: "
        f"{low:.1%} to {high:.1%}."
    )


def _calibration(
    result: ExportResult, metrics: Mapping[str, float], run: RunDirectory | None
) -> str:
    temperature = result.servable.temperature
    if temperature is None or run is None:
        return ""
    errors, where = metrics, "these images"
    if "ece_calibrated" not in metrics:
        errors = json.loads(run.calibration_file.read_text(encoding="utf-8"))
        where = f"{errors.get('images', 0):,} images that it was fitted to"
    text = f"Probabilities are calibrated: the network divides its logits by {temperature:.4g}."
    if "ece" in errors and "ece_calibrated" in errors:
        text += (
            f" On {where}, the probability of the named class is off by "
            f"{100 * errors['ece_calibrated']:.1f} points on average (expected calibration "
            f"error); without the division by {100 * errors['ece']:.1f}."
        )
    return text


def _names(names: Sequence[str]) -> str:
    text = ", ".join(_text(name) for name in names[:_SHOWN_NAMES])
    rest = len(names) - _SHOWN_NAMES
    more = f" and {rest:,} more" if rest > 0 else ""
    return f"{text}{more}. `labels.txt` has them in the order of the outputs."


def _input(result: ExportResult) -> str:
    servable = result.servable
    side, channels = servable.image_size, servable.channels
    return (
        f"Input: images `[1, {side}, {side}, {channels}]`, {servable.input_range}. Of an image of "
        f"another size: {_text(servable.resize_steps)}."
    )


def _output(result: ExportResult) -> str:
    servable = result.servable
    text = f"Output: `{servable.output_name}` `[1, {len(servable.class_names)}]`"
    if servable.kind == SEVERAL:
        return f"{text}; an image has the classes above their `thresholds` in `export.json`."
    return f"{text}."


def _files_header(result: ExportResult) -> list[str]:
    header = ["file", "for", "MB", "ms an image", result.servable.answers.same]
    if result.keras_accuracy is None:
        return header
    return [*header, result.servable.answers.title, "change"]


def _files(result: ExportResult) -> list[list[str]]:
    """Returns a row for each file, with what was measured and lost."""
    rows = []
    for name, path in result.paths.items():
        check, use = result.checks[path.name], file_use(name)
        row = [f"`{path.name}`", use.text if use else name]
        row += [f"{check.megabytes:.2f}", f"{check.milliseconds:.1f}", f"{check.agreement:.1%}"]
        if result.keras_accuracy is not None and check.accuracy is not None:
            change = check.accuracy - result.keras_accuracy
            row += [f"{check.accuracy:.4f}", "0" if abs(change) < 5e-5 else f"{change:+.4f}"]
        if check.fault:
            row[0] += f" (too far from the network: {check.fault})"
        rows.append(row)
    return rows


def _preparation(result: ExportResult) -> dict[str, Any]:
    """Returns what a program has to do with an image."""
    servable = result.servable
    row = servable.normalisation
    raw = not servable.preprocessing
    numbers = [[float(f"{value:.7g}") for value in values] for values in (row.mean, row.deviation)]
    return {
        "prepared": servable.channels in (GREY, RGB),
        "mode": "L" if servable.channels == GREY else "RGB",
        "side": servable.image_size,
        "channels": servable.channels,
        "mean": numbers[0] if raw else None,
        "deviation": numbers[1] if raw else None,
        "stretched": servable.resize != "squash",
        "range": "" if servable.limits in (None, PIXELS) or raw else _range(servable.limits),
        "images": f"{result.images:,}",
    }


def _range(limits: tuple[float, float]) -> str:
    """Returns Python that brings pixels of 0..255 to other limits."""
    low, high = limits
    return f"images * {(high - low) / 255!r} + {low!r}"


def _uses(result: ExportResult, options: ExportOptions) -> list[dict[str, str]]:
    """Returns a file of each kind with the code that uses it."""
    uses = {}
    for name, path in result.paths.items():
        use, is_integer = file_use(name), options.integer_io and name == "tflite_int8"
        if use is not None and (use, is_integer) not in uses:
            code = code_for(
                use, file=path.name, output=result.servable.output_name, is_integer=is_integer
            )
            uses[use, is_integer] = {"file": path.name, "code": code}
    return list(uses.values())


def _shown(result: ExportResult) -> str:
    output = result.servable.output_name
    if result.servable.kind == ONE:
        return f"names[{output}.argmax()], {output}.max()"
    return f"dict(zip(names, {output}))"


def _training(
    result: ExportResult, config: Config | None, run: RunDirectory | None
) -> list[tuple[str, str]]:
    """Returns how the network was trained, as pairs for a table."""
    rows = [("network", result.servable.model_name)]
    start = config.train.ft_init_ckpt if config else None
    if start:
        rows.append(("pretrained weights", f"`{pathlib.PurePath(start).name}`"))
    records = run.metrics() if run else []
    if records and config is not None:
        sizes = [record["image_size"] for record in records if "image_size" in record]
        shown = " to ".join(
            dict.fromkeys(f"{size}" for size in (min(sizes, default=0), max(sizes, default=0)))
        )
        rows += [
            ("data", f"{_text(_data(config))}{_split_sizes(run)}"),
            ("epochs", f"{records[-1].get('epoch', 0):g}"),
            ("image size in training", f"{shown} pixels"),
            ("batch size", f"{config.train.batch_size}"),
            ("optimizer, learning rate", f"{config.train.optimizer}, {config.train.lr_base:g}"),
            ("augmentation", config.data.augname),
        ]
    found = environment()
    devices = found.pop("devices")
    packages = [f"{name} {value}" for name, value in found.items() if value != "not installed"]
    return [*rows, ("exported with", ", ".join(packages)), ("times measured on", devices)]


def _split_sizes(run: RunDirectory | None) -> str:
    """Returns how many images of a folder each split has, if the run wrote that down."""
    if run is None or not run.split_file.exists():
        return ""
    with run.split_file.open(encoding="utf-8", errors="replace", newline="") as file:
        counts = collections.Counter(row.get("split") for row in csv.DictReader(file))
    return ": " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + " images"


def _command(config: Config) -> str:
    """Returns a command that trains the same again."""
    model, data = config.model.model_name, config.data.ds_name
    words = ["efficientnetv2", "train", f"--model_name={model}", f"--dataset_cfg={data}"]
    if config.data.data_dir and config.data.source == "folder":
        words.append(f"--data_dir={_data(config)}")
    return shlex.join([*words, "--hparam_str=config.yaml", "--model_dir=runs/again"])


def _settings(config: Config) -> str:
    """Returns the settings that are not defaults, apart from paths, as YAML."""
    changed = {
        key: value
        for key, value in flat(config).items()
        if value != KEYS[key].default and not key.startswith(_PRIVATE)
    }
    for key in _PATHS:
        if changed.get(key):
            changed[key] = pathlib.PurePath(changed[key]).name
    return _yaml(changed).rstrip()
