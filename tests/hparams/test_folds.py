"""Which fold is meant: what is taken, and what is refused in one line."""

import pytest

from hparams import UserError, resolve
from hparams.folds import Fold, parse_count, parse_fold


def test_a_fold_is_read_and_shown():
    assert parse_fold("2/5") == Fold(2, 5)
    assert str(parse_fold("10/1000")) == "10/1000"


@pytest.mark.parametrize(
    "text", ["0/5", "6/5", "1/1", "1", "a/b", "1/5 ", "1/1001", "01/5", "-1/5"]
)
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(ValueError):
        parse_fold(text)
    with pytest.raises(UserError, match=r"data\.fold must say which fold of how many, as 2/5"):
        resolve("efficientnetv2-b0", "folder", {"data.data_dir": "photos", "data.fold": text})


@pytest.mark.parametrize("text", ["1", "0", "abc", "-3", "2.5", "1001", "5 ", "٣"])
def test_what_is_no_number_of_folds_is_refused(text):
    with pytest.raises(UserError, match="--folds must be a whole number from 2 to 1000, got"):
        parse_count(text)
    assert parse_count("5") == 5


def test_folds_are_for_own_images():
    with pytest.raises(UserError, match=r"data\.fold is for your own images, not for digits"):
        resolve("efficientnetv2-b0", "digits", "data.fold=1/5")
