"""The console may go away: a pipe's reader ends, the disk under a redirected log fills up, a terminal is closed."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class _Console:
    """Standard output or error. Once it cannot be written, `on_loss` is called and all text goes to os.devnull."""

    def __init__(self, stream: TextIO | None, on_loss: Callable[[OSError], None]) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115  (None: the shell closed it, `>&-`)
        self.on_loss = on_loss
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._guard(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._guard(self._stream.flush)

    def _guard(self, method: Callable[..., Any], *arguments: str) -> None:
        if self._error and self.on_loss is _raise:  # again, because argparse ignores errors of printing its help
            raise self._error
        try:
            method(*arguments)
        except OSError as error:
            self._error = OSError(error.errno, error.strerror, self._file_name())
            with contextlib.suppress(OSError):  # a stream without a file has nothing to redirect
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, self._stream.fileno())  # takes what is still buffered, too
                os.close(devnull)
            self.on_loss(self._error)

    def _file_name(self) -> str:
        """The file that the shell redirected to, where the system (Linux) tells it."""
        with contextlib.suppress(OSError):
            path = os.path.realpath(f"/proc/self/fd/{self._stream.fileno()}")
            if os.path.isfile(path):
                return path
        return "standard output"


@contextmanager
def guarded_console(needs_stdout: bool) -> Iterator[None]:
    """Errors of writing to the console are not raised in this context, except those of stdout if `needs_stdout`.

    Such an OSError names the file. Without `needs_stdout`, stderr gets one warning, and later output is dropped.
    """
    stdout, stderr = _Console(sys.stdout, _raise if needs_stdout else _warn), _Console(sys.stderr, _ignore)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            yield
        finally:
            stdout.on_loss = _ignore
            stdout.flush()  # otherwise Python flushes at its exit, and reports what fails there with a traceback
            stderr.flush()


def _raise(error: OSError) -> None:
    raise error


def _warn(error: OSError) -> None:
    print(f"warning: {error.filename}: {error.strerror}; continuing without this output", file=sys.stderr, flush=True)


def _ignore(_error: OSError) -> None:
    pass
