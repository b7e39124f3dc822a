"""Packages that only some runs need. They are imported where they are used, so that other runs do without them."""

import sys
from importlib.util import find_spec

from tqdm import tqdm

from util.errors import UserError


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
