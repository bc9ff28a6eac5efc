"""The one exception of this package."""

from __future__ import annotations

from hparams.errors import UserError


class DataError(UserError):
    """A data set, or a file of it, that cannot be read; the message is one line."""
