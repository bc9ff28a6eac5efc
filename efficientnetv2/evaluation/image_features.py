"""Extracts the features of images: the input of a network's classifier."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from efficientnetv2.evaluation.image_prediction import Prediction
from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.evaluation.predictor import predict


def image_features(
    loaded: LoadedModel,
    paths: Sequence[pathlib.Path],
    *,
    after_image: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Returns the features of images as evaluation sees them.

    Args:
      loaded: the network.
      paths: N image files.
      after_image: called after each image.

    Returns:
      float32 ``[N, F]``, zero where an image cannot be read; and number of such an image -> why.
    """
    rows: list[np.ndarray | None] = []
    unreadable: dict[int, str] = {}
    results = predict(loaded.model, loaded.config, paths, with_features=True, with_images=False)
    for number, result in enumerate(results):
        if isinstance(result, Prediction):
            rows.append(result.features)
        else:
            rows.append(None)
            unreadable[number] = result.reason
        after_image()
    size = next((len(row) for row in rows if row is not None), 0)
    empty = np.zeros(size, np.float32)
    return np.stack([empty if row is None else row for row in rows]), unreadable
