"""Reports an export: a table of the files, ``export.json``, and the noise of quantised layers."""

from __future__ import annotations

import dataclasses
import json

from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.exporter import ExportOptions, ExportResult
from efficientnetv2.reporting.model_card import FILE, write_model_card
from efficientnetv2.reporting.tables import table, write_csv
from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.errors import UserError

_SHOWN = 8  # layers in the table of quantisation noise


def report_export(
    result: ExportResult,
    options: ExportOptions,
    loaded: LoadedModel | None,
    run: RunDirectory | None,
) -> None:
    """Prints the files' sizes, times and differences, and writes ``export.json`` and a model card.

    Args: as ``write_model_card``.

    Raises:
      UserError: if a file differs from the Keras model by more than its format's limit; all files
        and reports are written before.
      WriteError: if a report cannot be written.
    """
    for name, operators in result.in_float.items():
        if operators:
            print(f"{name}: not in integers: {', '.join(operators)}", flush=True)
    content = {
        **result.servable.metadata(),
        "images": result.images,
        "keras_accuracy": result.keras_accuracy,
        "files": {name: dataclasses.asdict(check) for name, check in result.checks.items()},
    }
    if result.trials:
        content["tflite_auto"] = {
            "max_loss": options.max_loss,
            "trials": [dataclasses.asdict(trial) for trial in result.trials],
        }
    replace_text(options.folder / "export.json", json.dumps(content, indent=2) + "\n")
    _show(result)
    if result.trials:
        _show_trials(result, options)
    written = ["labels.txt", "export.json"]
    if options.debug_int8 and result.layer_noise:
        _report_layers(result, options)
        written.append("int8_layers.csv")
    if write_model_card(result, options, loaded, run):
        written.append(FILE)
    else:
        print(f"\n'{options.folder / FILE}' stays as it is: no export wrote it")
    print(f"\nwritten to {options.folder}: {', '.join([*result.checks, *written])}", flush=True)
    faults = [f"'{name}' {check.fault}" for name, check in result.checks.items() if check.fault]
    refused = [f"--format={name}: {reason}" for name, reason in result.refused.items()]
    if refused:
        others = f" ({'; '.join(faults)})" if faults else ""
        raise UserError(f"not written: {'; '.join(refused)}{others}")
    if faults:
        raise UserError(f"too far from the Keras model: {'; '.join(faults)}")


def _show(result: ExportResult) -> None:
    header = ["file", "MB", "ms an image", "largest difference"]
    header += [result.servable.answers.same, "ties aside"]
    rows = [
        [
            name,
            f"{check.megabytes:.2f}",
            f"{check.milliseconds:.1f}",
            f"{check.max_difference:.1e}",
            f"{check.agreement:.1%}",
            f"{check.agreement + check.ties:.1%}",
        ]
        for name, check in result.checks.items()
    ]
    if result.keras_accuracy is not None:
        header.append(result.servable.answers.title)
        checks = result.checks.values()
        rows = [[*row, f"{check.accuracy:.4f}"] for row, check in zip(rows, checks)]
    print(f"\n{table(header, rows)}")
    if result.keras_accuracy is not None:
        print(f"{result.servable.answers.title} of the Keras model: {result.keras_accuracy:.4f}")


def _show_trials(result: ExportResult, options: ExportOptions) -> None:
    rows = [
        [
            trial.precision,
            f"{trial.lost.points:.2f}",
            f"{trial.lost.low:.1f}..{trial.lost.high:.1f}",
            f"{trial.megabytes:.2f}",
            f"{trial.milliseconds:.1f}",
            "chosen" if trial.chosen else "",
        ]
        for trial in result.trials
    ]
    header = ["tflite_auto", "points lost", "95% interval", "MB", "ms an image", ""]
    print(f"\n{table(header, rows)}")
    chosen = next(trial for trial in result.trials if trial.chosen)
    verdict = "within" if chosen.lost.points <= options.max_loss else "not within"
    print(
        f"{chosen.precision}: {verdict} {options.max_loss:g} points; loses {chosen.lost} on "
        f"{result.images:,} images"
    )


def _report_layers(result: ExportResult, options: ExportOptions) -> None:
    layers = result.layer_noise
    write_csv([dataclasses.asdict(layer) for layer in layers], options.folder / "int8_layers.csv")
    worst = sorted(layers, key=lambda layer: layer.output_db)[:_SHOWN]
    rows = [[x.layer, f"{x.kernel_db:.1f}", f"{x.output_db:.1f}"] for x in worst]
    print(f"\n8 bits lose most at\n{table(['layer', 'weights dB', 'outputs dB'], rows)}")
