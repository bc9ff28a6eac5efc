"""A noisy piece of work in; the same work, heard only when it fails, out."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what native libraries print on stdout and stderr; shows it if the work raises.

    Converters greet with lines about processors and options from C++, which no setting silences.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as said:
        try:
            for descriptor in (1, 2):
                os.dup2(said.fileno(), descriptor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception:
            said.seek(0)
            os.write(kept[1], said.read())
            raise
        finally:
            for stream in streams:
                stream.flush()
            for before, descriptor in zip(kept, (1, 2)):
                os.dup2(before, descriptor)
                os.close(before)
