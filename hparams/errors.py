"""Defines the exceptions for mistakes that users can fix: one line, and exit code 2."""

import re
import reprlib
from collections.abc import Sequence
from typing import Any

LONGEST_MESSAGE = 500  # characters; a terminal shows it without hiding what was printed before
_LONGEST_VALUE = 60  # characters of a value in a message
_NODE_NAMES = re.compile(r"\[\[(\{\{.*?\}\})+\]\] ?|\{\{.*?\}\} ?")
_TAILS = (" [Op:", " Additional GRPC error")


class UserError(ValueError):
    """A flag, config, file or data set that cannot be used.

    The message is one line: what is wrong, the value, and what would be right. A message that is
    longer than ``limit`` characters, because it repeats what somebody else wrote, loses its middle.
    """

    def __init__(self, message: str, *, limit: int = LONGEST_MESSAGE) -> None:
        super().__init__(one_line(message, limit=limit))


class DataError(UserError):
    """A data set, or one of its files, that cannot be read; the message is one line."""


class WeightsError(UserError):
    """Weights that cannot be read or do not fit the network; the message is one line."""


class _ShortRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 4
        self.maxstring = self.maxother = self.maxlong = _LONGEST_VALUE

    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to write integers of more than 4300 digits.
        if number.bit_length() > 200:
            return f"a number of about {int(number.bit_length() * 0.30103) + 1} digits"
        return super().repr_int(number, level)


_SHORT_REPR = _ShortRepr()


def shown(value: Any) -> str:
    """Returns a value as Python writes it, with its middle left out if it is long.

    For error messages: a value may have megabytes, hold itself, or be a number of 5000 digits.

    >>> shown("abc"), shown([1, 2, 3, 4, 5]), len(shown("x" * 1000))
    ("'abc'", '[1, 2, 3, 4, ...]', 60)
    """
    return shortened(_SHORT_REPR.repr(value), limit=2 * _LONGEST_VALUE)


def shortened(text: str, *, limit: int = _LONGEST_VALUE) -> str:
    """Returns a text, with its middle left out if it has more than ``limit`` characters.

    >>> shortened("0123456789", limit=7)
    '01...89'
    """
    if len(text) <= limit:
        return text
    end = (limit - 3) // 2
    return f"{text[: limit - 3 - end]}...{text[len(text) - end :]}"


def listed(names: Sequence[str], *, limit: int = 160) -> str:
    """Returns names separated by commas; those beyond ``limit`` characters are only counted.

    >>> listed(["adam", "lamb", "sgd"], limit=12)
    'adam, lamb and 1 more'
    """
    count, length = 0, -2
    for name in names:
        length += len(name) + 2
        if count and length > limit:
            break
        count += 1
    more = f" and {len(names) - count} more" if count < len(names) else ""
    return ", ".join(names[:count]) + more


def one_line(message: str, *, limit: int = LONGEST_MESSAGE) -> str:
    """Returns a message as one line of at most ``limit`` characters.

    Line breaks become spaces. Other control characters are written as escapes, so that a file name
    cannot change the terminal.
    """
    if not message.isprintable():
        message = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", message)
        message = visible(message)
    return shortened(message, limit=limit)


def visible(text: str) -> str:
    r"""Returns text with everything that cannot be printed as an escape sequence.

    >>> print(visible("a\nb"))
    a\nb
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


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
