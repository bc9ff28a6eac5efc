"""Gives each variable a learning rate of its own: a factor by name, and one by depth."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tensorflow import keras

from hparams.config import Config
from hparams.errors import UserError

# What comes before "_" in the names of the layers of one block: ours, and those of Keras's ResNets.
_BLOCK = re.compile(r"(block\d+[a-z]+|conv\d+_block\d+)_")
_HEAD = "top_"
_CLASSIFIER = "predictions"


def build_factors(
    config: Config, model: keras.Model, variables: Sequence[keras.Variable]
) -> list[float]:
    """Returns each variable's factor on the learning rate; empty if all of them are 1.

    It is the product of ``train.lr_scales`` and of ``train.lr_layer_decay`` to the power of
    ``layers_to_classifier``.

    Args:
      config: its section ``train`` is read.
      model: the whole network.
      variables: those of its variables that are trained.

    Raises:
      UserError: if an expression of ``train.lr_scales`` matches no variable, or
        ``train.lr_layer_decay`` changes the rate of none.
    """
    train = config.train
    by_name = scales_by_name(variables, train.lr_scales)
    if train.lr_layer_decay == 1.0:
        return by_name
    distance = layers_to_classifier([variable.path for variable in model.trainable_variables])
    by_depth = [train.lr_layer_decay ** distance[variable.path] for variable in variables]
    if set(by_depth) == {1.0}:
        raise UserError(
            f"train.lr_layer_decay={train.lr_layer_decay:g} has no effect: train.varsexp="
            f"'{train.varsexp}' trains the classifier alone"
        )
    return [name * depth for name, depth in zip(by_name or [1.0] * len(by_depth), by_depth)]


def scales_by_name(variables: Sequence[keras.Variable], scales: Sequence[str]) -> list[float]:
    """Returns each variable's factor in ``train.lr_scales``: 1 if no expression matches it.

    Without expressions the list is empty.

    Args:
      variables: the variables that are trained.
      scales: regular expressions for ``layer/variable`` with their factors, such as ``block1:0.1``;
        the first one that matches a variable counts.

    Raises:
      UserError: if an expression matches no variable.
    """
    if not scales:
        return []
    pairs = [text.rpartition(":")[::2] for text in scales]
    for expression, _ in pairs:
        if not any(re.search(expression, variable.path) for variable in variables):
            raise UserError(
                f"train.lr_scales: '{expression}' matches no trainable variable (for example "
                f"'{variables[0].path}')"
            )
    return [
        next((float(factor) for text, factor in pairs if re.search(text, variable.path)), 1.0)
        for variable in variables
    ]


def layers_to_classifier(paths: Sequence[str]) -> dict[str, int]:
    """Returns ``layer/variable`` -> number of layers between it and the classifier.

    A block counts as one layer. The classifier has 0, the last block 1, as has the head, which is
    counted with it, and the stem one more than there are blocks: as timm counts them
    (``param_groups_layer_decay``), after BEiT (arXiv:2106.08254).

    Args:
      paths: ``layer/variable`` of all trainable variables of a network, from the stem on.
    """
    blocks = list(dict.fromkeys(match[1] for match in map(_BLOCK.match, paths) if match))

    def distance(path: str) -> int:
        block = _BLOCK.match(path)
        if block:
            return len(blocks) - blocks.index(block[1])
        if path.startswith(_CLASSIFIER):
            return 0
        return 1 if path.startswith(_HEAD) else len(blocks) + 1

    return {path: distance(path) for path in paths}
