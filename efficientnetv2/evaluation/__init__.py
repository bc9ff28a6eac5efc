"""Evaluates trained networks: metrics, predictions, heat maps and cost."""
