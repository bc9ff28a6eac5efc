"""Defines the search space of settings: the values of ``search.space`` that a search chooses from.

The network stays that of the config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from efficientnetv2.search.space import Point
from hparams.config import Config
from hparams.overrides import value_text
from hparams.search_space import Range, Values, read_space


@dataclasses.dataclass(frozen=True)
class SettingsSpace:
    """Holds the settings that a search chooses.

    Attributes:
      choices: config key -> values to choose from.
    """

    choices: Mapping[str, Values]

    baseline = "default"  # what the trials are compared with: no setting is changed
    baseline_text = "the default settings"
    is_timed = False  # few settings change the time of a step

    def baseline_overrides(self) -> dict[str, Any]:
        """Returns the overrides of the baseline."""
        return {}

    def overrides(self, point: Point) -> dict[str, Any]:
        """Returns a point as config overrides; numbers have four digits, as they are shown."""
        return {
            key: values.rounded(point[key]) if isinstance(values, Range) else point[key]
            for key, values in self.choices.items()
        }

    def identity(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a result on disk must have in common with a trial to be its own."""
        return {"settings": dict(overrides)}

    def summary(self, config: Config) -> str:
        """Describes the space in one line."""
        texts = [
            f"{key} {values if isinstance(values, Range) else '|'.join(map(value_text, values))}"
            for key, values in self.choices.items()
        ]
        return f"settings of {config.model.model_name}: {', '.join(texts)}"


def build_settings_space(config: Config) -> SettingsSpace:
    """Builds the space of ``search.space``."""
    return SettingsSpace(read_space(config.search.space))
