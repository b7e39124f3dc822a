"""Rendered people for demo and tests, in the layout of the real data sets."""
