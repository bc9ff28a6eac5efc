"""Defines the exceptions for mistakes that users can fix: one line, and exit code 2."""

import re

_NODE_NAMES = re.compile(r"\[\[(\{\{.*?\}\})+\]\] ?|\{\{.*?\}\} ?")
_TAILS = (" [Op:", " Additional GRPC error")


class UserError(ValueError):
    """A flag, config, file or data set that cannot be used.

    The message is one line: what is wrong, the value, and what would be right.
    """


class DataError(UserError):
    """A data set, or one of its files, that cannot be read; the message is one line."""


class WeightsError(UserError):
    """Weights that cannot be read or do not fit the network; the message is one line."""


def tensorflow_message(message: str, *, limit: int) -> str:
    """Shortens the message of a TensorFlow error to one line, without node and operation names.

    Args:
      message: the error's; TensorFlow writes names before and after the text proper.
      limit: number of characters after which the text is cut off.
    """
    text = _NODE_NAMES.sub("", " ".join(message.split()))
    for tail in _TAILS:
        text = text.partition(tail)[0]
    return text[:limit]
