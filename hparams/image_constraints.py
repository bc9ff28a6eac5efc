"""Finds settings of single images that cannot be run, alone or together."""

from __future__ import annotations

from ml_collections import config_dict

from hparams.errors import shown

_LARGEST_HUE = 0.5  # of the colour circle, to either side


def image_problems(config: config_dict.ConfigDict) -> list[str]:
    """Returns one line for each problem, as ``constraints.find_conflicts``."""
    crop_pct, resize = config.eval.crop_pct, config.data.resize
    problems = _color_jitter_problems(list(config.data.color_jitter))
    if crop_pct is not None and resize != "published":
        problems.append(
            f"eval.crop_pct={crop_pct:g} is for data.resize=published, not for {resize}"
        )
    return problems


def _color_jitter_problems(strengths: list[float]) -> list[str]:
    if len(strengths) not in (1, 3, 4):
        return [
            "data.color_jitter must be one number, or three or four: of brightness, contrast, "
            f"saturation and hue, got {shown(strengths)}"
        ]
    if len(strengths) == 4 and strengths[3] > _LARGEST_HUE:
        return [
            f"data.color_jitter: the fourth number, of the hue, must be at most {_LARGEST_HUE}, "
            f"half of the colour circle, got {strengths[3]:g}"
        ]
    return []
