"""The code of scripts/benchmark.py: main.py is the command, measure.py is shared, each other file prints one table."""
