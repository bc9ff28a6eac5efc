"""Recorded numbers in; pictures and tables for people out."""
