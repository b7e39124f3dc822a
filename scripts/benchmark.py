"""How fast everything runs on this machine: python scripts/benchmark.py --help (the code is in scripts/benchmark/)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.benchmark.main import main
from util.errors import run_main

if __name__ == "__main__":
    run_main(main)
