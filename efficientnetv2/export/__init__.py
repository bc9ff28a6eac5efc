"""A trained network in; files that other programs run, measured against it, out."""
