"""Evaluation of generated images: `python -m metrics.metrics`."""
