"""Packages that only some runs need, imported where they are used, so that other runs do without them; and classes
that are found by name."""

import sys
from importlib import import_module
from importlib.util import find_spec

from tqdm import tqdm

from util.errors import UserError


def find_class(module: str, name: str) -> type:
    """The class `name` of a module. UserError if the module has none."""
    imported = import_module(module)
    if not hasattr(imported, name):
        raise UserError(f"{imported.__file__}: expected a class {name}")
    return getattr(imported, name)


def require_package(package: str, needed_by: str) -> None:
    """Raise UserError if `package`, by its name on PyPI, is not installed. `needed_by`: a flag or a metric."""
    if find_spec(package.replace("-", "_")) is None:
        raise UserError(f"{needed_by} needs the package {package}: pip install {package}")


def can_write_pages() -> bool:
    """Whether dominate is installed. Where it is not, web pages must be left out, and this prints a warning."""
    installed = find_spec("dominate") is not None
    if not installed:
        reason = "they need the package dominate: pip install dominate"
        tqdm.write(f"warning: web pages are left out, because {reason}", file=sys.stderr)
    return installed
