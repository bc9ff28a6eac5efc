"""Recognises the names that people give to the folders of their splits. No TensorFlow here."""

from __future__ import annotations

import re

# The word that is left of a folder's name -> split.
_WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "minival": (
        *("val", "vali", "valid", "validate", "validating", "validation", "minival"),
        *("dev", "devel", "development"),
    ),
    "test": (
        *("test", "tests", "testing", "tst", "eval", "evaluate", "evaluating", "evaluation"),
        *("holdout", "heldout"),
    ),
    "predict": ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
# What may stand before or after the word: training_set, img_train, test-data, seg_test, val2017.
_FILLER = (
    "(?:data|dataset|sets?|split|subset|folder|images?|imgs?|photos?|pics|pictures?|samples?|"
    "examples?|files?|seg)"
)
_NAME = re.compile(f"{_FILLER}*?({'|'.join(sorted(_SPLITS, key=len, reverse=True))}){_FILLER}*")
# These words name classes as well: a train beside a bus, valid and invalid tickets.
_CLASS_WORDS = {"train", "training", "valid", "dev", "development", "prediction", "predictions"}


def split_of(name: str) -> str | None:
    """Returns the split for which a folder's name stands; None: it may be a class.

    >>> [split_of(name) for name in ("training_set", "Val", "TEST", "hold-out", "seg_pred", "cat")]
    ['train', 'minival', 'test', 'test', 'predict', None]

    Args:
      name: in upper or lower case, with any digits and punctuation.

    Returns:
      ``train``, ``minival``, ``test``; ``predict`` for images without labels; or None.
    """
    word = _word(name)
    return None if word is None else _SPLITS[word]


def may_be_class(name: str) -> bool:
    """Returns whether the name of a split is as good a name for a class, for example ``valid``."""
    return _word(name) in _CLASS_WORDS


def is_filler(name: str) -> bool:
    """Returns whether a name says no more than that there are images: ``images``, ``data``."""
    return re.fullmatch(f"{_FILLER}+", _letters(name)) is not None


def _word(name: str) -> str | None:
    match = _NAME.fullmatch(_letters(name))
    return match[1] if match else None


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]+", "", name).lower()
