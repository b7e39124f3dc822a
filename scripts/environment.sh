# Sourced by the other scripts: changes to the root of the repository and sets $python, the interpreter to run.
# The variable PYTHON names the interpreter that .venv is made with (default: python3).
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
[ -x "$python" ] || python=python3

# Makes .venv where it is missing or broken, and fills it where requirements.txt has changed.
ensure_environment() {
    local base=${PYTHON:-python3}
    python=.venv/bin/python
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "error: $base is missing or older than Python 3.10; name another: PYTHON=python3.11 bash $0" >&2
            exit 2
        }
        echo "making .venv"
        "$base" -m venv .venv || {
            echo "error: $base cannot make .venv (Debian, Ubuntu: apt install python3-venv); then run this again" >&2
            exit 2
        }
    fi
    if ! cmp -s requirements.txt .venv/installed-requirements.txt; then
        echo "installing requirements (a few minutes on a new machine)"
        pip_install -r requirements.txt
        cp requirements.txt .venv/installed-requirements.txt
    fi
}

pip_install() { "$python" -m pip install --disable-pip-version-check "$@"; }
