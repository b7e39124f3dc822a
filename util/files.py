"""Files: atomic writes, hashes, listing, natural order."""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from util.errors import UserError


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object], flush: bool = False) -> None:
    """Call `write` on a temporary file beside `path`, then rename it to `path`. Missing folders are made.

    A reader sees either the old content or the new, never a mixture, whenever the process is killed; with `flush` also
    after a power failure. Raises UserError if the write fails; the old content stays.
    """
    path = Path(path)
    # Two processes that write one file must not share a temporary one. Its name is short, because that of `path` may
    # be as long as the file system allows.
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
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


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes left of atomic writes in `folder` and below. Nobody may be writing there now."""
    for temporary in folder.rglob(".*.part"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def append_text(path: Path, text: str) -> None:
    """Append to a text file, which is made if it is missing. UserError, which names the file, if that fails."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror})") from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def file_names(folder: Path) -> set[str]:
    """All files in `folder` and the folders below it, relative to it, with '/' between folders."""
    prefix = len(os.path.join(folder, ""))  # os.walk and slicing, because pathlib takes seconds for a whole data set
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {path[prefix:].replace(os.sep, "/") for path in paths}


def natural_sort_key(name: str) -> list[tuple[str, int]]:
    """A sort key that puts frame2 before frame10."""
    return [(text.lower(), int(digits or -1)) for text, digits in re.findall(r"(\D+|^)(\d*)", name)]
