"""A search whose trainings are told to the engine, not run: what is left is all real."""

import pytest

from efficientnetv2.search import engine as engine_module
from efficientnetv2.search.messages import Epoch, Found
from efficientnetv2.train.stopping import StopRequest
from hparams import resolve

BACKBONE = ["r1_k3_s1_e1_i8_o8_se0.25", "r2_k3_s2_e4_i8_o16_se0.25"]


def found_by(accuracy, *, seconds=0.1, epochs=2, pruned=False):
    return Found(
        accuracy=accuracy,
        seconds=seconds,
        spread=0.01,
        rounds=1,
        timed_from=100.0,
        timed_until=102.0,
        parameters=2000,
        epochs=epochs,
        pruned=pruned,
    )


class Told:
    """Stands in for the processes of trials: what they find is given.

    Attributes:
      curves: accuracies of the epochs, one list a trial after the other; the last one repeats.
      ends: number of the run (0: the backbone) -> what it ends with instead.
      jobs: that were run.
    """

    def __init__(self):
        self.curves = [[0.5, 0.7]]
        self.seconds = [0.1]
        self.ends = {}
        self.jobs = []

    def run(self, job, *, stop, after_epoch, meanwhile=lambda: None):
        number = len(self.jobs)
        self.jobs.append(job)
        meanwhile()
        if number in self.ends:
            end = self.ends[number]
            if isinstance(end, BaseException):
                raise end
            return end
        job.folder.mkdir(parents=True, exist_ok=True)
        curve = self.curves[min(number, len(self.curves) - 1)]
        seconds = self.seconds[min(number, len(self.seconds) - 1)]
        for epoch, accuracy in enumerate(curve, start=1):
            pruned = after_epoch(Epoch(epoch, accuracy, seconds, 2000))
            if pruned:
                break
        return found_by(accuracy, seconds=seconds, epochs=epoch, pruned=pruned)


@pytest.fixture
def told(monkeypatch):
    found = Told()
    monkeypatch.setattr(engine_module, "run_trial", found.run)
    return found


@pytest.fixture
def search(tmp_path):
    """Runs a search in a folder of the test; keys of the section search as arguments."""

    def run(folder="run", stop=None, **keys):
        given = {"backbone": BACKBONE, "trials": 4, "epochs": 2, "sampler": "random", **keys}
        config = resolve(
            "efficientnetv2-s", "digits", {f"search.{key}": value for key, value in given.items()}
        )
        return engine_module.search(config, tmp_path / folder, stop or StopRequest())

    return run
