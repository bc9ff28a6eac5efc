"""One reader a checkpoint format: foreign names and values in, ours out."""
