#!/usr/bin/env bash
# Lint and test in .venv, which is made if it is missing. Without arguments all tests run, first those not marked slow,
# then the slow ones, in two processes with one thread each. With arguments, pytest runs once and gets them.
# Each file of slow tests has a process of its own, which gives its memory back when it ends.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_visdom() { # up to Python 3.11, pip builds it from source, which needs pkg_resources
    "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("visdom") is None)' && return
    pip_install 'setuptools<81' wheel && pip_install --no-build-isolation 'visdom==0.2.4'
}

slow_files() { # those that take longest or most memory come first, in an order in which the large ones do not meet
    printf 'tests/%s.py\n' models/test_compile scripts/test_benchmark_gpu models/test_goldens models/test_dptnta_model \
        inference/test_cached_source inference/test_onnx_export
    grep -rl 'mark\.slow' tests --include='test_*.py' | sort
}

run_slow() { # pytest's status 5 means that the file's tests are skipped
    local output status=0
    output=$(OMP_NUM_THREADS=1 "$python" -m pytest -m slow "$1" 2>&1) || status=$?
    printf '%s: %s\n' "$1" "$output"
    [ $status = 0 ] || [ $status = 5 ]
}

ensure_environment
install_visdom || echo "visdom could not be installed: its tests are skipped"
pip_install -r requirements-studio.txt || echo "starlette and others could not be installed: scripts/studio.py's tests are skipped"
pip_install -r requirements-onnx.txt || echo "onnx and others could not be installed: their tests are skipped"
command -v chromium google-chrome >/dev/null || echo "no chromium: the tests of scripts/studio.py's page are skipped"
"$python" -m ruff check .
"$python" -m ruff format --check .
if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi
failed=0
OMP_NUM_THREADS=1 "$python" -m pytest -n 2 -m "not slow" || failed=1
export python && export -f run_slow
slow_files | awk '!listed[$0]++' | xargs -P 2 -n 1 bash -c 'run_slow "$0"' || failed=1
exit $failed
