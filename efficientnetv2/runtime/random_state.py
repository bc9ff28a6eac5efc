"""Keeps the random generators of the program around us as they were."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Within the context, the global generators may be seeded and used; later nobody sees it.

    Those of Python and NumPy go on where they were. That of TensorFlow cannot be read: it begins
    anew with the seed that it had.
    """
    import numpy as np

    python, array = random.getstate(), np.random.get_state()
    tensorflow = sys.modules.get("tensorflow")
    seed = None if tensorflow is None else tensorflow.compat.v1.get_seed(None)[0]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is not None:
            tensorflow.random.set_seed(seed)
