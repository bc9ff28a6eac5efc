"""Builds the input pipelines: data sets, decoding, augmentation, mixing and batching."""
