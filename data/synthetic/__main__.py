"""python -m data.synthetic: see data/synthetic/people.py."""

from data.synthetic.people import main
from util.errors import run_main

run_main(main)
