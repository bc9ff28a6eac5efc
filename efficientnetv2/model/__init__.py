"""Builds the networks: layers, blocks and whole models from images to logits."""
