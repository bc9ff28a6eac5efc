"""Builds a TensorFlow Datasets data set of scikit-learn's handwritten digits, without a download.

The scikit-learn package ships 1,797 real 8x8 images, so a machine without network can train on real
data. E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (UCI, 1998).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_SPLIT_SEED = 2104_00298
_MINIVAL_IMAGES = 180
_TEST_IMAGES = 360


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Divides the images into fixed, disjoint splits with the same class proportions.

    Args:
      labels: int ``[N]``, the class of each image.

    Returns:
      ``test`` (360), ``minival`` (180) and ``train`` (the rest): indices into ``labels``.
    """
    shuffled = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    # Sorted by class, then picked at equal distances: that keeps the proportions of the classes.
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    held_out = _MINIVAL_IMAGES + _TEST_IMAGES
    positions = np.linspace(0, len(labels), held_out, endpoint=False).astype(int)
    is_minival = np.arange(held_out) % (held_out // _MINIVAL_IMAGES) == 0
    return {
        "test": np.sort(by_class[positions[~is_minival]]),
        "minival": np.sort(by_class[positions[is_minival]]),
        "train": np.sort(np.delete(by_class, positions)),
    }


class Digits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's 1,797 handwritten digits; prepared locally, no download."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8 pixels, 16 grey levels spread over 0..255.",
            features=features,
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        from sklearn import datasets

        digits = datasets.load_digits()
        # 0..16 becomes 0..255; 8-bit, because that is what PNG files and the pipeline hold.
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        labels = digits.target
        return {
            name: self._generate_examples(images, labels, indices=indices)
            for name, indices in split_indices(labels).items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, *, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            yield int(index), {"image": images[index], "label": int(labels[index])}
