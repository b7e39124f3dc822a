"""Files: atomic writes, hashes, listing, names, natural order."""

import contextlib
import hashlib
import os
import re
import secrets
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from util.errors import UserError

MAX_NAME_BYTES = 255  # of one file or folder name, on the file systems of Linux, macOS and Windows


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object], flush: bool = False) -> None:
    """Call `write` on a temporary file beside `path`, then rename it to `path`. Missing folders are made.

    A reader sees either the old content or the new, never a mixture, whenever the process is killed; with `flush` also
    after a power failure. Raises UserError if the write fails; the old content stays. Devices and pipes, such as
    /dev/null and /dev/stdout, are written directly.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: could not be written (it is a folder)")
    is_device = path.parent in (Path("/dev"), Path("/dev/fd"))  # /dev/stdout may lead to a regular file
    if path.exists() and (is_device or not path.is_file()):
        _write_device(path, write)
        return
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
        hidden = isinstance(error, RuntimeError) and isinstance(error.__context__, OSError)  # older torch does so
        reason = error.__context__ if hidden else error
        raise UserError(f"{path}: could not be written ({reason}); what was there before is untouched") from error


def _write_device(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write into an existing device or pipe. Replacing it, as root may, would put a file in its place."""
    try:
        with tempfile.NamedTemporaryFile() as file:  # images and archives are not written from start to end
            write(file)
            file.flush()
            path.write_bytes(Path(file.name).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror or error})") from error


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes left of atomic writes in `folder` and below. Nobody may be writing there now."""
    for temporary in folder.rglob(".*.part"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | Path, content: bytes) -> None:
    """An atomic write of `content`."""
    atomic_write(path, lambda file: file.write(content))


def write_text(path: str | Path, text: str) -> None:
    """An atomic write of a text file."""
    write_bytes(path, to_utf8(text))


def append_text(path: Path, text: str) -> None:
    """As `append_bytes`, for a text file."""
    append_bytes(path, to_utf8(text))


def append_bytes(path: Path, content: bytes) -> None:
    """Append to a file, which is made if it is missing. UserError, which names the file, if that fails."""
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror})") from error


def to_utf8(text: str) -> bytes:
    """Text -> UTF-8. Bytes of file names that are not UTF-8, which Python holds as lone surrogates, are escaped."""
    return text.encode(errors="backslashreplace")


def check_writable(path: Path) -> None:
    """Make the folder of `path`; UserError if the file cannot be written, so that no long run ends with it."""
    new = not os.path.exists(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    if new:
        os.unlink(os.path.realpath(path))


def is_taken(folder: Path) -> bool:
    """Whether a new folder cannot have this path: there is a file, or a folder that is not empty."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def walk(folder: Path) -> Iterator[os.DirEntry]:
    """All files and folders below `folder`, those in linked folders too. Raises OSError for an unreadable folder.

    Links that lead nowhere are left out, and a link back to a folder that it lies in is not followed; notes on stderr
    name them.
    """
    dangling: list[str] = []
    yield from _walk(os.path.join(folder, ""), (os.path.realpath(folder),), dangling)
    if dangling:
        listed = f"{', '.join(dangling[:3])}{' ...' * (len(dangling) > 3)}"
        print(f"note: {folder}: {len(dangling)} links lead nowhere and are left out: {listed}", file=sys.stderr)


def _walk(folder: str, above: tuple[str, ...], dangling: list[str]) -> Iterator[os.DirEntry]:
    """`above`: real paths of `folder` and of the folders on the way to it. `dangling`: gets links that lead nowhere."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and not os.path.exists(entry.path):
                dangling.append(entry.path)
                continue
            yield entry
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if any(f"{path}{os.sep}".startswith(f"{real}{os.sep}") for path in above):
                    print(f"note: {entry.path} is not followed: it is a link back to {real}", file=sys.stderr)
                else:
                    yield from _walk(entry.path, (*above, real), dangling)


def file_names(folder: Path) -> set[str]:
    """All files that `walk` finds, relative to `folder`, with '/' between folders; none if there is no such folder."""
    if not os.path.isdir(folder):
        return set()
    prefix = len(os.path.join(folder, ""))  # slicing, because pathlib takes seconds for a whole data set
    return {entry.path[prefix:].replace(os.sep, "/") for entry in walk(folder) if entry.is_file()}


def explain_missing(names: Collection[str], present: Iterable[str], folder: Path | None = None) -> dict[str, str]:
    """Why `names`, none of which is among `present`, are missing: name -> " (reason)" for those with a known reason.

    A reason is a name in `present` that differs only in Unicode form or capital letters or, with `folder`, a link that
    leads nowhere.
    """
    if not names:
        return {}
    by_form = {unicodedata.normalize("NFC", name): name for name in present}
    by_case = {form.casefold(): name for form, name in by_form.items()}
    reasons = {}
    for name in names:
        form = unicodedata.normalize("NFC", name)
        paths = (folder / name, *(folder / name).parents) if folder else ()
        links = [path for path in paths if os.path.islink(path) and not os.path.exists(path)]
        if links:
            reasons[name] = f" ({links[-1]} is a link to {os.readlink(links[-1])}, which does not exist)"
        elif form in by_form:
            kind = "NFD, as macOS writes it" if by_form[form] != form else "NFC"
            reasons[name] = f" (it is there in another Unicode form, {kind}; rename one to match the other)"
        elif form.casefold() in by_case:
            reasons[name] = f" ({by_case[form.casefold()]} is there, which differs in capital letters)"
    return reasons


def check_name_lengths(names: Iterable[str], what: str) -> None:
    """Raise UserError if a file name is longer than file systems allow. `what`: says what the names come from."""
    lengths = [(len(name.encode("utf-8", "surrogateescape")), name) for name in names]
    if too_long := [pair for pair in lengths if pair[0] > MAX_NAME_BYTES]:
        length, longest = max(too_long, key=lambda pair: pair[0])
        raise UserError(
            f"{len(too_long)} file names would be longer than {MAX_NAME_BYTES} bytes, which file systems do not allow; "
            f"the longest has {length}: {longest}; shorten {what}"
        )


def natural_sort_key(name: str) -> list[tuple[str, int]]:
    """A sort key that puts frame2 before frame10."""
    return [(text.lower(), int(digits or -1)) for text, digits in re.findall(r"(\D+|^)(\d*)", name)]
