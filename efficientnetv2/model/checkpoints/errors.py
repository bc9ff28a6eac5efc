"""What is wrong with a file of weights in; the exception of this folder, one line, out."""

from __future__ import annotations

from hparams.errors import UserError


class WeightsError(UserError):
    """A file of weights that cannot be read, is refused, or does not fit the network."""
