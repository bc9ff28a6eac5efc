"""A study in; what all its trials found, as rows, files and a table, out."""

from __future__ import annotations

import pathlib
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from efficientnetv2.report.search import (
    best_row,
    best_table,
    draw_search,
    write_best,
)
from efficientnetv2.report.tables import write_csv
from efficientnetv2.search.attributes import (
    DEVICE,
    ERROR,
    FOUND,
    HOST,
    RELATIVE_TIME,
    REWARD,
    SAME_AS,
)
from efficientnetv2.search.claims import counted
from efficientnetv2.search.device import device_name
from efficientnetv2.search.space import Space, parameters
from efficientnetv2.search.storage import shown_url
from efficientnetv2.search.study import backbone_of
from hparams.errors import UserError
from hparams.resolve import Config

_LEAD = 10  # rows of the table


def rows_of(study: Study, config: Config, space: Space) -> list[dict[str, Any]]:
    """Returns a row a trial, by number: the columns of trials.csv."""
    return [_row(trial, config, space) for trial in counted(study)]


def _row(trial: FrozenTrial, config: Config, space: Space) -> dict[str, Any]:
    attributes = trial.user_attrs
    found = attributes.get(FOUND, {})
    is_drawn = set(space.choices) <= set(trial.params)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "reward": attributes.get(REWARD),
        "accuracy": found.get("accuracy"),
        "step_seconds": found.get("seconds"),
        "step_spread": found.get("spread"),
        "times_measured": found.get("rounds"),
        "timed_from": found.get("timed_from"),
        "timed_until": found.get("timed_until"),
        "relative_time": attributes.get(RELATIVE_TIME),
        "parameters": _parameters(trial, config, space) if is_drawn else None,
        "epochs": found.get("epochs"),
        "same_as": attributes.get(SAME_AS),
        "network": space.text(trial.params) if is_drawn else "",
        **{name: trial.params.get(name) for name in space.choices},
        "host": attributes.get(HOST),
        "device": attributes.get(DEVICE),
        "error": attributes.get(ERROR),
    }


def _parameters(trial: FrozenTrial, config: Config, space: Space) -> int:
    if FOUND in trial.user_attrs:
        return int(trial.user_attrs[FOUND]["parameters"])
    classes = config.model.num_classes or 1000  # of a folder, which only the trials have opened
    return parameters(space.architecture(trial.params), num_classes=classes)


def report(study: Study, config: Config, space: Space, *, folder: pathlib.Path) -> None:
    """Writes trials.csv, best.yaml and search.png, and prints the best networks.

    Raises:
      UserError: if no trial came to its end.
    """
    rows = rows_of(study, config, space)
    backbone = backbone_of(study, device=device_name())
    assert backbone is not None
    write_csv(rows, folder / "trials.csv")
    best = best_row(rows)
    if best is None:
        raise UserError(
            f"none of {len(rows)} trials came to its end; the last error: {rows[-1]['error']}; "
            f"'{folder / 'trials.csv'}' has all"
        )
    point = {name: best[name] for name in space.choices}
    write_best(space.overrides(point), best, folder / "best.yaml")
    title = f"Search on {config.data.ds_name}: {len(rows)} trials"
    draw_search(rows, backbone, folder / "search.png", title=title)
    print(f"\n{best_table(rows, backbone, count=_LEAD)}")
    print(f"\nstudy '{study.study_name}' in {shown_url(config, folder)}")
    print(f"written to {folder}: best.yaml, trials.csv, search.png, search.yaml, trials/")
