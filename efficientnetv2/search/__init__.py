"""Training-aware architecture search: a space and a reward in, block strings out."""
