"""Command-line options: shared, for training, for testing; models and data sets add their own."""
