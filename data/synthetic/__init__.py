"""Rendered people for the demo and the tests, in the layout of the real data sets."""
