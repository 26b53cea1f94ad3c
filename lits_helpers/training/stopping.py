"""Decide when a training saves and stops: clocks, signals, the notebook's Stop."""

import logging
import signal
import threading
import time

from ..settings import hint

logger = logging.getLogger(__name__)

SAVE, STOP = 1, 2  # what may follow a step; ranks agree on the higher
SAVE_SECONDS = 180.0  # between two checkpoints within an epoch
MIRROR_SECONDS = 1000.0  # between two writes to the mirror: Drive uploads each


class Stopwatch:
    """Measures a training against its limit and says when the next checkpoint is due.

    Args:
        max_minutes: the limit, or None.
    """

    def __init__(self, max_minutes: float | None = None):
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes must be above 0 or None, got {max_minutes}")
        self.max_minutes = max_minutes
        self.began = self.saved = self.mirrored = time.monotonic()

    def minutes(self) -> float:
        """Return the minutes since the training (re)started."""
        return (time.monotonic() - self.began) / 60

    def over(self) -> bool:
        """Say whether the limit was reached."""
        return self.max_minutes is not None and self.minutes() >= self.max_minutes

    def saved_now(self, *, mirror: bool) -> None:
        """Note that a checkpoint was written, and whether to the mirror too."""
        self.saved = time.monotonic()
        if mirror:
            self.mirrored = self.saved

    def estimate(self, minutes_left: float) -> None:
        """Log if the time limit comes before the training's end."""
        if self.max_minutes is not None and self.minutes() + minutes_left > self.max_minutes:
            logger.warning(
                "the training stops cleanly after %s, before its end: %s goes on from there",
                _duration(self.max_minutes),
                hint("continue"),
            )

    def save_due(self) -> bool:
        """Say whether a checkpoint is due."""
        return time.monotonic() - self.saved >= SAVE_SECONDS

    def mirror_due(self) -> bool:
        """Say whether the mirror is due."""
        return time.monotonic() - self.mirrored >= MIRROR_SECONDS


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"


class StopRequest:
    """Within this context SIGTERM, SIGUSR1 (Slurm) and SIGINT (a notebook's Stop) only ask.

    The training then finishes its step, saves, and calls `obey`. A second SIGINT stops at once.
    Signals can only be caught in the main thread; elsewhere they keep their usual effect.
    """

    names = ("SIGTERM", "SIGUSR1", "SIGINT")  # SIGUSR1 does not exist on Windows

    def __init__(self):
        self.received: int | None = None
        self._before = {}

    @property
    def wanted(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for name in self.names:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, _frame):
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number

    def obey(self) -> None:
        """Leave as the signal asks, if one came.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after the others, with the shell's usual code, 128 + the signal's number.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(f"training stopped and saved; {hint('continue')} goes on")
        if self.received is not None:
            logger.warning("%s: saved, leaving", signal.Signals(self.received).name)
            raise SystemExit(128 + self.received)
