#!/usr/bin/env bash
# Measure everything that only a GPU can tell; designed for eight minutes: see scripts/benchmark/gpu.py.
#
#   bash scripts/benchmark/gpu.sh OUT_DIR                 # writes OUT_DIR/report.md and report.json as it goes
#   bash scripts/benchmark/gpu.sh OUT_DIR --minutes 4 --parts machine grid
#   bash scripts/benchmark/gpu.sh OUT_DIR --device cpu --quick      # a rehearsal without a GPU
#
# The variable PYTHON names the interpreter (default: .venv, else python3), GIT_REVISION the commit of a copy
# without .git. OUT_DIR is relative to the current folder, all other paths to the repository.
set -euo pipefail
out=${1:?usage: bash scripts/benchmark/gpu.sh OUT_DIR [flags]}
case $out in
    -*) ;; # a flag such as --help
    *) mkdir -p -- "$out" && out=$(CDPATH='' cd -- "$out" && pwd) ;;
esac
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
exec "$python" scripts/benchmark/gpu.py "$out" "${@:2}"
