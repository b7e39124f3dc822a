"""Files that are written whole or not at all."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from util.errors import UserError


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object], flush: bool = False) -> None:
    """`write` to a temporary file beside `path`, then put it in its place in one step.

    Whatever happens, `path` holds either the old content or the new; with `flush` also after a power cut. A failed
    write is a UserError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")  # one name, so that a killed process leaves no more than one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError | RuntimeError):  # torch.save reports a full disk as a RuntimeError
            raise
        reason = error.__context__ if isinstance(error.__context__, OSError) else error  # older torch hides it there
        raise UserError(f"{path}: could not be written ({reason}); what was there before is untouched") from error


def sha256(path: str | Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def natural_sort_key(name: str) -> list[tuple[str, int]]:
    """A key that sorts frame2 before frame10."""
    return [(text.lower(), int(digits or -1)) for text, digits in re.findall(r"(\D+|^)(\d*)", name)]
