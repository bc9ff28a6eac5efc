"""Trains, evaluates and uses EfficientNetV2 models. ``python main_tf2.py --help`` shows how."""

import sys

from efficientnetv2.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
