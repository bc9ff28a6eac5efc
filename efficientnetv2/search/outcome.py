"""Reports the outcome of a search: trials.csv, best.yaml, a picture, and a table of the best."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from efficientnetv2.reporting.search_report import (
    best_row,
    best_table,
    draw_search,
    trial_line,
    write_best,
)
from efficientnetv2.reporting.settings_report import (
    draw_settings,
    settings_line,
    settings_table,
    write_best_settings,
)
from efficientnetv2.reporting.tables import write_csv
from efficientnetv2.runtime.environment import device_name
from efficientnetv2.search.attributes import (
    DEVICE,
    ERROR,
    HOST,
    RELATIVE_TIME,
    RESULT,
    REWARD,
    SAME_AS,
)
from efficientnetv2.search.claims import counted_trials
from efficientnetv2.search.settings_space import SettingsSpace
from efficientnetv2.search.space import Space, parameters
from efficientnetv2.search.storage import redacted_url
from efficientnetv2.search.study import read_baseline
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import METRICS, best_metric
from hparams.overrides import overrides_text

_TABLE_ROWS = 10


def trial_rows(study: Study, config: Config, space: Space | SettingsSpace) -> list[dict[str, Any]]:
    """Returns one row of trials.csv for each trial, by number."""
    if isinstance(space, SettingsSpace):
        return [_settings_row(trial, space) for trial in counted_trials(study)]
    return [_row(trial, config, space) for trial in counted_trials(study)]


def trial_text(study: Study, config: Config, space: Space | SettingsSpace, number: int) -> str:
    """Returns the line of a trial that has ended, with the best so far."""
    rows, count = trial_rows(study, config, space), config.search.trials
    if isinstance(space, SettingsSpace):
        return settings_line(rows, list(space.choices), number, of=count)
    return trial_line(rows, number, of=count)


def _settings_row(trial: FrozenTrial, space: SettingsSpace) -> dict[str, Any]:
    attributes = trial.user_attrs
    result = attributes.get(RESULT, {})
    is_drawn = set(space.choices) <= set(trial.params)
    settings = space.overrides(trial.params) if is_drawn else dict.fromkeys(space.choices)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "reward": attributes.get(REWARD),
        "accuracy": result.get("accuracy"),
        "epochs": result.get("epochs"),
        "same_as": attributes.get(SAME_AS),
        **settings,
        "host": attributes.get(HOST),
        "device": attributes.get(DEVICE),
        "error": attributes.get(ERROR),
    }


def _row(trial: FrozenTrial, config: Config, space: Space) -> dict[str, Any]:
    attributes = trial.user_attrs
    result = attributes.get(RESULT, {})
    is_drawn = set(space.choices) <= set(trial.params)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "reward": attributes.get(REWARD),
        "accuracy": result.get("accuracy"),
        "step_seconds": result.get("seconds"),
        "step_spread": result.get("spread"),
        "times_measured": result.get("rounds"),
        "timed_from": result.get("timed_from"),
        "timed_until": result.get("timed_until"),
        "relative_time": attributes.get(RELATIVE_TIME),
        "parameters": _parameters(trial, config, space) if is_drawn else None,
        "epochs": result.get("epochs"),
        "same_as": attributes.get(SAME_AS),
        "network": space.text(trial.params) if is_drawn else "",
        **{name: trial.params.get(name) for name in space.choices},
        "host": attributes.get(HOST),
        "device": attributes.get(DEVICE),
        "error": attributes.get(ERROR),
    }


def _parameters(trial: FrozenTrial, config: Config, space: Space) -> int:
    if RESULT in trial.user_attrs:
        return int(trial.user_attrs[RESULT]["parameters"])
    # Not set for a folder of images, which only the trials open.
    classes = config.model.num_classes or 1000
    return parameters(
        space.architecture(trial.params), num_classes=classes, channels=config.model.channels
    )


def report_search(
    study: Study, config: Config, space: Space | SettingsSpace, *, folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Writes trials.csv, best.yaml and search.png, and prints the best networks or settings.

    Returns:
      The rows of trials.csv, ordered by reward; those without one come last.

    Raises:
      UserError: if no trial finished.
    """
    rows = trial_rows(study, config, space)
    baseline = read_baseline(study, device=device_name() if space.is_timed else None)
    assert baseline is not None
    write_csv(rows, folder / "trials.csv")
    best = best_row(rows)
    if best is None:
        raise UserError(
            f"none of {len(rows)} trials finished; the last error: {rows[-1]['error']}; "
            f"'{folder / 'trials.csv'}' lists all errors"
        )
    point = {name: best[name] for name in space.choices}
    metric = METRICS[best_metric(config)].title
    title = f"Search on {config.data.ds_name}: {len(rows)} trials"
    if isinstance(space, SettingsSpace):
        picture = folder / "search.png"
        write_best_settings(point, best, folder / "best.yaml", metric=metric)
        draw_settings(rows, space.choices, baseline, picture, title=title, metric=metric)
        found = settings_table(rows, list(point), baseline, count=_TABLE_ROWS, metric=metric)
        print(f"\n{found}")
        print(f'\nthe best settings: --hparam_str="{overrides_text(point)}"')
    else:
        write_best(space.overrides(point), best, folder / "best.yaml", metric=metric)
        draw_search(rows, baseline, folder / "search.png", title=title, metric=metric)
        print(f"\n{best_table(rows, baseline, count=_TABLE_ROWS, metric=metric)}")
    print(f"\nstudy '{study.study_name}' in {redacted_url(config, folder)}")
    print(f"written to {folder}: best.yaml, trials.csv, search.png, search.yaml, trials/")
    return sorted(rows, key=lambda row: math.inf if row["reward"] is None else -row["reward"])
