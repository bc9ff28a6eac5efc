"""Tests that the import of TensorFlow collects no garbage, and that its objects are frozen."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import gc, json, sys
from efficientnetv2.runtime.tensorflow_import import import_tensorflow

def collections():
    return sum(generation["collections"] for generation in gc.get_stats())

facts = {"early": "tensorflow" in sys.modules}
before = collections()
import_tensorflow()
facts |= {"collections": collections() - before, "frozen": gc.get_freeze_count()}
facts |= {"imported": "tensorflow" in sys.modules, "collects": gc.isenabled()}
import_tensorflow()
facts["frozen later"] = gc.get_freeze_count() - facts["frozen"]
print(json.dumps(facts))
"""


@pytest.mark.slow
def test_the_import_of_tensorflow_collects_no_garbage():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    facts = json.loads(done.stdout)
    assert not facts["early"] and facts["imported"]
    assert facts["collections"] <= 2  # an import that collects does so a thousand times
    assert facts["frozen"] > 100_000 and facts["collects"]
    assert facts["frozen later"] <= 0  # a second call freezes nothing more
