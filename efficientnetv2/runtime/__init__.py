"""Deals with the operating system: files, run directory, locks, signals and cluster."""
