"""Looks for what is wrong with a user's own images, before an hour is spent on training."""
