"""Trains a network: stages, losses, optimizers, the training loop and its checkpoints."""
