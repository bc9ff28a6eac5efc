"""Limits that several settings share: far beyond any use, but within what a machine can count.

Without them a slip of the keyboard is answered by an exhausted memory or a stack of TensorFlow's
errors, long after the start.
"""

LARGEST_SEED = 2**32 - 1  # NumPy's and Keras's generators take 32 bits
LARGEST_IMAGE = 16_384  # pixels a side; a batch of one is 3 GiB
LARGEST_BATCH = 2**31 - 1  # images; TensorFlow counts them in 32 bits
MOST_EPOCHS = 100_000
MOST_STEPS = 10_000_000  # of a training: 3,000 epochs of ImageNet at a batch of 384
MOST_CHANNELS = 65_536
MOST_IMAGE_CHANNELS = 16
MOST_CLASSES = 1_000_000
MOST_BLOCKS = 500  # of a network; the largest published ones have 100
MOST_PARAMETERS = 10_000_000_000  # 40 GB of weights
SMALLEST_FLOAT = 1.1754944e-38  # above 0; networks and learning rates are computed in float32
LARGEST_TARGET = 1e12  # of a number to be predicted; it is read in float32
