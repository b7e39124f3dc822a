#!/usr/bin/env bash
# Lint and test in .venv, which is made and filled if it is not there. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/python ]; then
    echo "making .venv"
    "${PYTHON:-python3}" -m venv .venv
fi
echo "installing requirements (a few minutes on a new machine)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "$@"
