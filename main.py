"""Runs main_tf2.py with the defaults of the official main.py: EfficientNetV2-B0, ImageNet, a TPU.

Start with ``python main_tf2.py``, which needs no TPU and no data set of yours.
"""

import sys

from efficientnetv2.cli import main

DEFAULTS = {"model_name": "efficientnetv2-b0", "dataset_cfg": "imagenet2012", "use_tpu": True}

if __name__ == "__main__":
    sys.exit(main(sys.argv, defaults=DEFAULTS))
