"""Defines the flags of the trainings that ``benchmarks.time_to_accuracy`` compares ours with."""

from __future__ import annotations

import argparse
import pathlib


def training_flags(text: str) -> argparse.ArgumentParser:
    """Returns a parser of the folder and of what all trainings of the comparison share."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=pathlib.Path, help="of EfficientNet-Lite0, to start from")
    return parser
