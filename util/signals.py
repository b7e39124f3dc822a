"""Stopping politely: SIGINT, SIGTERM or the end of the time allowed lets the current step finish."""

import signal
import time
from types import FrameType

TIME_UP = 1000  # in the place of a signal's number
PATIENCE = 3.0  # seconds; torchrun sends on to its processes what the whole group already got


class StopRequest:
    """The first signal that comes, or the end of `max_minutes`. A Ctrl-C some seconds after a signal stops at once."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.number, self._at = 0, 0.0
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}

    def wanted(self) -> int:
        """The signal's number, TIME_UP, or 0 to go on."""
        late = self._deadline is not None and time.monotonic() > self._deadline
        return self.number or (TIME_UP if late else 0)

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
