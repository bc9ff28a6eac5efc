"""Reads and writes ``calibration.json``: a run's temperature, and from when on an image is unknown.

Probabilities are ``softmax(logits / temperature)`` (arXiv 1706.04599, section 4.2). An image whose
best probability is below a threshold is ``unknown``: of none of the classes (arXiv 1610.02136).
Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams.choices import LOSSES
from hparams.config import Config
from hparams.errors import shown
from hparams.label_kinds import NUMBERS, ONE, UNKNOWN, label_kind

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
MAX_PROBABILITY = "max_probability"  # name of the score


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature, and what it does on the images that it was fitted to.

    Attributes:
      temperature: 0.05..20, by which logits are divided; above 1 where a network is too sure.
      images: their number.
      nll: mean negative log-likelihood of the true classes, as the network is.
      nll_calibrated: the same with the temperature.
      ece: expected calibration error, 0..1, as the network is.
      ece_calibrated: the same with the temperature.
    """

    temperature: float
    images: int
    nll: float
    nll_calibrated: float
    ece: float
    ece_calibrated: float


@dataclasses.dataclass(frozen=True)
class UnknownRule:
    """When an image is unknown, and what the rule does on the images that it was fitted to.

    Attributes:
      threshold: 0..1; an image whose best probability, with the temperature if there is one, is
        below it is unknown.
      images: their number.
      kept: the share of them that is not unknown.
    """

    threshold: float
    images: int
    kept: float


def takes_temperature(config: Config) -> bool:
    """Returns whether a network's probabilities are a softmax that names one class."""
    return label_kind(config) == ONE and LOSSES[config.train.loss_type].shares_target


def takes_unknown(config: Config) -> bool:
    """Returns whether a network gives probabilities, by which an image may be unknown."""
    return label_kind(config) != NUMBERS


def read_temperature(run: RunDirectory | None, config: Config) -> float | None:
    """Returns the temperature of a run; None: it has none.

    Args:
      run: the run directory; None: the weights are of no run.
      config: of the network.

    Raises:
      RunError: if calibration.json is damaged, or its temperature is not 0.05..20.
    """
    if run is None or not takes_temperature(config):
        return None
    content = _content(run)
    if content is None or (content.get("temperature") is None and "unknown" in content):
        return None
    if "temperature" not in content:
        raise RunError(f"'{run.calibration_file}' is damaged: it has no 'temperature'; {_repair()}")
    value = content["temperature"]
    if type(value) not in (int, float) or not LOWEST <= value <= HIGHEST:
        raise RunError(
            f"'{run.calibration_file}': the temperature must be {LOWEST:g}..{HIGHEST:g}, got "
            f"{shown(value)}; {_repair()}"
        )
    return float(value)


def read_threshold(run: RunDirectory | None, config: Config) -> float | None:
    """Returns the probability below which an image is unknown, 0..1; None: the run has none.

    Args:
      run: as in ``read_temperature``, as the other.
      config: as there.

    Raises:
      RunError: if calibration.json is damaged, or its threshold is not 0..1.
    """
    if run is None or not takes_unknown(config):
        return None
    rule = (_content(run) or {}).get("unknown")
    if rule is None:
        return None
    value: Any = rule.get("threshold") if isinstance(rule, Mapping) else None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise RunError(
            f"'{run.calibration_file}': the threshold of unknown must be 0..1, got {shown(value)}; "
            f"{_repair()}"
        )
    return float(value)


def unknown_metadata(threshold: float) -> dict[str, Any]:
    """Returns the rule as files state it: the answer, the name of the score and its threshold."""
    return {"label": UNKNOWN, "score": MAX_PROBABILITY, "threshold": threshold}


def _content(run: RunDirectory) -> dict[str, Any] | None:
    """Returns what calibration.json holds; None: it is not there."""
    file = run.calibration_file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"cannot read '{file}': {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise RunError(f"'{file}' is damaged: it is not JSON; {_repair()}") from None
    if not isinstance(content, dict):
        raise RunError(f"'{file}' is damaged: it has no 'temperature'; {_repair()}")
    return content


def _repair() -> str:
    return "correct it, or remove 'calibration.json' for raw probabilities"


def write_calibration(
    run: RunDirectory, calibration: Calibration | None, rule: UnknownRule | None = None
) -> None:
    """Writes calibration.json, atomically.

    Args:
      run: the run directory.
      calibration: None: there is no temperature.
      rule: None: no image is unknown.

    Raises:
      WriteError: if it cannot be written.
    """
    content: dict[str, Any] = {} if calibration is None else dataclasses.asdict(calibration)
    if rule is not None:
        content["unknown"] = {
            **unknown_metadata(rule.threshold),
            "images": rule.images,
            "kept": rule.kept,
        }
    replace_text(run.calibration_file, json.dumps(content, indent=2) + "\n")
