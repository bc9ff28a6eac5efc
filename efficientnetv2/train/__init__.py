"""Logits to loss to update: the training recipe and everything that it keeps on disk."""
