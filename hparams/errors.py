"""The one exception type for what users can mend: its message is one line, its exit code 2."""


class UserError(ValueError):
    """A flag, config, file or data set that cannot be used.

    The message is one line: what is wrong, the value, and what would be right.
    """
