"""Reads, converts and writes pretrained weights of TensorFlow, Keras and PyTorch."""
