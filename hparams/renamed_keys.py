"""Lists the config keys that have another name now, so that old settings still mean what they did.

``hparams.overrides`` translates them wherever settings are read: in the config.yaml of a run
directory, in ``--hparam_str`` and ``--sweeps``, and in the ``overrides`` of a Python function. To
rename a key, add a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hparams.scalars import CONVERTERS


@dataclasses.dataclass(frozen=True)
class RenamedKey:
    """What a former key has become.

    Attributes:
      key: its name now.
      kind: type of its former values.
      values: former value -> value now.
    """

    key: str
    kind: type
    values: Mapping[Any, Any]


RENAMED_KEYS: Mapping[str, RenamedKey] = {
    "data.eval_crop": RenamedKey("data.resize", bool, {True: "published", False: "squash"}),
}


def current_setting(key: str, value: Any) -> tuple[str, Any]:
    """Returns the key and the value that a setting has now.

    >>> current_setting("data.eval_crop", "false")
    ('data.resize', 'squash')

    A value that the former key did not take is returned as it is: the check of the new key refuses
    it and names its choices.
    """
    row = RENAMED_KEYS.get(key)
    if row is None:
        return key, value
    try:
        return row.key, row.values[CONVERTERS[row.kind](value)]
    except ValueError:
        return row.key, value
