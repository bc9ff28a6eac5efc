"""Makes sure that ``tf.keras`` is Keras 3 on TensorFlow, whatever the user's settings say."""

from __future__ import annotations

import importlib
import os
import sys

from hparams.errors import UserError

_LEGACY, _BACKEND = "TF_USE_LEGACY_KERAS", "KERAS_BACKEND"


def choose_keras() -> None:
    """Chooses Keras 3 on TensorFlow for this process, before TensorFlow is imported.

    A setting for other programs (TF_USE_LEGACY_KERAS=1, KERAS_BACKEND, the ``backend`` of
    ``~/.keras/keras.json``) is not a reason to stop.
    """
    if "tensorflow" not in sys.modules:
        os.environ[_LEGACY] = "0"
    if "keras" not in sys.modules:
        os.environ[_BACKEND] = "tensorflow"


def require_keras_3() -> None:
    """Checks that ``tf.keras`` will be Keras 3 on TensorFlow, for use inside other programs.

    Raises:
      UserError: if it is Keras 2, or Keras 3 on another backend.
    """
    if os.environ.get(_LEGACY, "").lower() in ("1", "true"):
        raise UserError(
            f"{_LEGACY}={os.environ[_LEGACY]} makes tf.keras Keras 2, but models are built with "
            f"Keras 3; unset {_LEGACY} before TensorFlow is imported (weight files of Keras 2 can "
            "be loaded)"
        )
    if "keras" not in sys.modules:
        os.environ.setdefault(_BACKEND, "tensorflow")  # before that of keras.json
    backend = os.environ.get(_BACKEND, "tensorflow")
    if "keras" in sys.modules:
        backend = importlib.import_module("keras.config").backend()
    if backend != "tensorflow":
        raise UserError(
            f"Keras runs on {backend}, but models are built on TensorFlow; set "
            f"{_BACKEND}=tensorflow before Keras is imported"
        )
