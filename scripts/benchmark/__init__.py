"""The parts of scripts/benchmark.py, one kind of work a file."""
