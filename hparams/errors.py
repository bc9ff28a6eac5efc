"""What went wrong in; one line out, in the exception for what users can mend (exit code 2)."""


class UserError(ValueError):
    """A flag, config, file or data set that cannot be used.

    The message is one line: what is wrong, the value, and what would be right.
    """


def tensorflows_words(message: str, *, limit: int) -> str:
    """Returns what an error of TensorFlow says, on one line, without the operation's names.

    Args:
      message: of the error; TensorFlow puts the operation before and after what it has to say.
      limit: characters that are kept.
    """
    text = " ".join(message.split())
    return (text.partition("}} ")[2] or text).partition(" [Op:")[0][:limit]
