"""Tests that the import of TensorFlow collects no garbage, and which messages are hidden."""

import json
import logging
import subprocess
import sys

import pytest

from efficientnetv2.runtime.tensorflow_import import hide_retracing_warnings

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


def test_retracing_warnings_are_hidden_inside_the_context_only():
    import tensorflow as tf

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("tensorflow")

    def trace_often(function):
        for size in range(12):
            function(tf.zeros([size]))

    logger.addHandler(handler)
    try:
        with hide_retracing_warnings():
            trace_often(tf.function(lambda hidden: hidden + 1))
            logger.warning("another warning")
        assert messages == ["another warning"]
        trace_often(tf.function(lambda shown: shown + 1))
    finally:
        logger.removeHandler(handler)
    assert any("retracing" in message for message in messages)
