# Sourced by the other scripts: makes .venv where it is missing and fills it where requirements.txt is newer.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

ensure_environment() {
    if [ ! -x .venv/bin/python ]; then
        echo "making .venv"
        "${PYTHON:-python3}" -m venv .venv
    fi
    if ! cmp -s requirements.txt .venv/installed-requirements.txt; then
        echo "installing requirements (a few minutes on a new machine)"
        pip_install -r requirements.txt
        cp requirements.txt .venv/installed-requirements.txt
    fi
}
