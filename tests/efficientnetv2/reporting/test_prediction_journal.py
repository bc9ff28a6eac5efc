"""Tests that predictions survive a kill and are used by the same command only."""

import numpy as np
import pytest

from efficientnetv2.reporting.prediction_journal import PredictionJournal, weights_checksum
from hparams import UserError

SETTINGS = {"weights": "ab", "top_k": 2}


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Closes what a test has opened."""
    opened = []
    monkeypatch.setattr(
        PredictionJournal, "__init__", _and_note(PredictionJournal.__init__, opened.append)
    )
    yield
    for journal in opened:
        journal.close()


def _and_note(function, note):
    def run(self, *arguments):
        function(self, *arguments)
        note(self)

    return run


def fill(folder, count=3):
    """Returns an open journal of some images in a folder."""
    journal = PredictionJournal(folder / "deeper" / ".a.csv.partial", SETTINGS)
    for number in range(count):
        image = folder / f"ü\n{number}.png"
        image.write_bytes(b"x" * (number + 1))
        features = np.array([number, 1 / 3], np.float32)
        journal.add((str(image), [("cat", 0.1 + number), ("dog", 1 / 3)]), features)
    return journal


def test_the_same_command_goes_on(tmp_path):
    first = fill(tmp_path)
    first.close()
    second = PredictionJournal(first.path, SETTINGS)
    assert second.rows == first.rows and len(second.rows) == 3
    for image, features in first.features.items():
        np.testing.assert_array_equal(second.features[image], features)
    second.add(("new", [("cat", 1.0)]), None)
    second.close()
    third = PredictionJournal(first.path, SETTINGS)
    assert list(third.rows) == [*first.rows, "new"]
    third.remove()
    assert not first.path.exists()


@pytest.mark.parametrize("damage", [b"", b'{"image": "half', b"[]\n", b"no json\n", b'{"a": 1}\n'])
def test_a_damaged_end_is_cut_off(damage, tmp_path):
    first = fill(tmp_path)
    first.close()
    with first.path.open("ab") as file:
        file.write(damage)
    second = PredictionJournal(first.path, SETTINGS)
    assert second.rows == first.rows
    second.add(("new", [("cat", 1.0)]), None)
    second.close()
    assert len(PredictionJournal(first.path, SETTINGS).rows) == 4


@pytest.mark.parametrize("settings", [{**SETTINGS, "top_k": 3}, {**SETTINGS, "weights": "ac"}, {}])
def test_other_settings_begin_anew(settings, tmp_path):
    first = fill(tmp_path)
    first.close()
    second = PredictionJournal(first.path, settings)
    assert second.rows == {}
    second.close()
    assert PredictionJournal(first.path, SETTINGS).rows == {}


def test_a_replaced_image_is_predicted_again(tmp_path):
    first = fill(tmp_path)
    first.close()
    replaced, gone, kept = sorted(tmp_path.glob("*.png"))
    replaced.write_bytes(b"other")
    gone.unlink()
    assert list(PredictionJournal(first.path, SETTINGS).rows) == [str(kept)]


def test_two_processes_do_not_mix(tmp_path):
    first = fill(tmp_path)
    with pytest.raises(UserError, match=r"another process is predicting into '.*a\.csv\.partial'"):
        PredictionJournal(first.path, SETTINGS)
    first.close()
    assert len(PredictionJournal(first.path, SETTINGS).rows) == 3


def test_other_weights_have_another_checksum():
    ones = [np.ones([2, 3], np.float32), np.ones([1])]
    assert weights_checksum(ones) == weights_checksum([array.copy() for array in ones])
    assert weights_checksum(ones) != weights_checksum([2 * ones[0], ones[1]])
