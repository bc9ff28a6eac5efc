"""Quantises the weights and activations of a trained network to 8-bit integers."""
