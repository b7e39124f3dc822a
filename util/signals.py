"""Stopping politely: SIGINT or SIGTERM lets the current step finish."""

import signal
import time
from types import FrameType

PATIENCE = 3.0  # seconds; torchrun sends on to its processes what the whole group already got


class StopRequest:
    """`number` is the first signal that came, or 0. A Ctrl-C some seconds after it stops at once."""

    def __init__(self) -> None:
        self.number, self._at = 0, 0.0
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._at > PATIENCE:
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Back to the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def ignore_in_worker() -> None:
    """In a loader's process: a Ctrl-C reaches the whole process group, and the main process decides when to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
