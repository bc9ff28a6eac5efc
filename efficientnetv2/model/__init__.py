"""Images in, logits out: layers, blocks, networks, and weights from other projects."""
