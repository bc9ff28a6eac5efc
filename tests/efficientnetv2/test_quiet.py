"""The import of TensorFlow: no garbage is collected meanwhile, and later it is left alone."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json, sys
from efficientnetv2.quiet import import_tensorflow

def collections():
    return sum(generation["collections"] for generation in gc.get_stats())

found = {"early": "tensorflow" in sys.modules}
before = collections()
import_tensorflow()
found |= {"collections": collections() - before, "frozen": gc.get_freeze_count()}
found |= {"imported": "tensorflow" in sys.modules, "collects": gc.isenabled()}
import_tensorflow()
found["frozen later"] = gc.get_freeze_count() - found["frozen"]
print(json.dumps(found))
"""


def test_the_import_of_tensorflow_collects_no_garbage():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert not found["early"] and found["imported"]
    assert found["collections"] <= 2  # an import that collects does so a thousand times
    assert found["frozen"] > 100_000 and found["collects"]
    assert found["frozen later"] <= 0  # a second call finds a process that has worked
