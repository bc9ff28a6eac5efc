"""Exports trained networks to files that other programs run, and checks these files."""
