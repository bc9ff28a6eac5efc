"""Fixtures of a search that is real but for its trainings, whose results are made up."""

import pytest

from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.search import engine as engine_module
from efficientnetv2.search.messages import EpochReport, TrialResult
from hparams import resolve

BACKBONE = ["r1_k3_s1_e1_i8_o8_se0.25", "r2_k3_s2_e4_i8_o16_se0.25"]


def result_of(accuracy, *, seconds=0.1, epochs=2, pruned=False):
    return TrialResult(
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


class FakeTrials:
    """Replaces the processes of trials by made-up results.

    Attributes:
      curves: accuracies after each epoch, one list for each run; the last list repeats.
      seconds: step time of each run; the last one repeats.
      ends: number of the run (0: the backbone) -> the failure or exception that it ends with.
      jobs: the jobs that were run.
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
            pruned = after_epoch(EpochReport(epoch, accuracy, seconds, 2000))
            if pruned:
                break
        return result_of(accuracy, seconds=seconds, epochs=epoch, pruned=pruned)


@pytest.fixture
def fake(monkeypatch):
    trials = FakeTrials()
    monkeypatch.setattr(engine_module, "run_trial", trials.run)
    return trials


@pytest.fixture
def search(tmp_path):
    """Runs a search in a folder of the test; arguments are keys of the section ``search``."""

    def run(folder="run", stop=None, **keys):
        settings = {"backbone": BACKBONE, "trials": 4, "epochs": 2, "sampler": "random", **keys}
        config = resolve(
            "efficientnetv2-s",
            "digits",
            {f"search.{key}": value for key, value in settings.items()},
        )
        return engine_module.search(config, tmp_path / folder, stop or StopRequest())

    return run
