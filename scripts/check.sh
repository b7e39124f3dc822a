#!/usr/bin/env bash
# Lint and test in .venv, which is made and filled if it is not there. Arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_visdom() { # up to Python 3.11 there is only a source package, which needs pkg_resources to build
    .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("visdom") is None)' && return
    pip_install 'setuptools<81' wheel
    pip_install --no-build-isolation 'visdom==0.2.4'
}

ensure_environment
install_visdom
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "$@"
