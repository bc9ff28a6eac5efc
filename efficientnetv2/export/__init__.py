"""Trained networks in; files for servers and phones out."""
