"""Searches for the network architecture with the best trade-off of accuracy, speed and size."""
