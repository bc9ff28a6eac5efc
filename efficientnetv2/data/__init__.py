"""Encoded images in, batches out."""
