"""Reads and writes ``calibration.json``, the temperature of a run's probabilities.

Probabilities are ``softmax(logits / temperature)`` (arXiv 1706.04599, section 4.2). Needs no
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json

from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from hparams.choices import LOSSES
from hparams.config import Config
from hparams.errors import shown
from hparams.label_kinds import ONE, label_kind

LOWEST, HIGHEST = 0.05, 20.0  # temperatures


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


def takes_temperature(config: Config) -> bool:
    """Returns whether a network's probabilities are a softmax that names one class."""
    return label_kind(config) == ONE and LOSSES[config.train.loss_type].shares_target


def read_temperature(run: RunDirectory | None, config: Config) -> float | None:
    """Returns the temperature of a run; None: it has none.

    Args:
      run: the run directory; None: the weights are of no run.
      config: of the network.

    Raises:
      RunError: if calibration.json is damaged, or its temperature is not 0.05..20.
    """
    if run is None or not takes_temperature(config) or not run.calibration_file.exists():
        return None
    file = run.calibration_file
    repair = f"correct it, or remove '{file.name}' for raw probabilities"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"cannot read '{file}': {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise RunError(f"'{file}' is damaged: it is not JSON; {repair}") from None
    if not isinstance(content, dict) or "temperature" not in content:
        raise RunError(f"'{file}' is damaged: it has no 'temperature'; {repair}")
    value = content["temperature"]
    if type(value) not in (int, float) or not LOWEST <= value <= HIGHEST:
        raise RunError(
            f"'{file}': the temperature must be {LOWEST:g}..{HIGHEST:g}, got {shown(value)}; "
            f"{repair}"
        )
    return float(value)


def write_calibration(run: RunDirectory, calibration: Calibration) -> None:
    """Writes calibration.json, atomically.

    Raises:
      WriteError: if it cannot be written.
    """
    text = json.dumps(dataclasses.asdict(calibration), indent=2)
    replace_text(run.calibration_file, text + "\n")
