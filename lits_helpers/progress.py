"""Progress of a long transfer in bytes, rate and time left."""

import logging
import sys
import time

from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0  # where there is no terminal


class Meter:
    """A bar with bytes, rate and time left in a terminal or notebook, log lines elsewhere.

    Args:
        total: bytes expected; 0 shows no bar.
        name: what is being fetched.
    """

    def __init__(self, total: int, name: str):
        live = sys.stderr.isatty() or _in_notebook()
        self._bar = tqdm(
            total=total or None, desc=name, unit="B", unit_scale=True, disable=not (live and total)
        )
        self._live, self._name, self._total = live, name, total
        self._done = self._fresh = 0
        self._begun = self._spoken = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def add(self, count: int, fresh: bool = True) -> None:
        """Count bytes; `fresh=False` for those that say nothing about the rate (here before)."""
        self._done += count
        self._fresh += count if fresh else 0
        self._bar.update(count)
        if not self._live and time.monotonic() - self._spoken > SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            logger.info("%s", self.line())

    def line(self) -> str:
        """Return the state, for example "LiTS: 1.20 of 5.30 GB, 20.1 MB/s, 3 min left"."""
        rate = self._fresh / max(time.monotonic() - self._begun, 1e-3)
        of, left = "", ""
        if self._total:
            of = f" of {self._total / 1e9:.2f}"
            left = f", {max(self._total - self._done, 0) / max(rate, 1) / 60:.0f} min left"
        return f"{self._name}: {self._done / 1e9:.2f}{of} GB, {rate / 1e6:.1f} MB/s{left}"


def _in_notebook() -> bool:
    """Say whether a Jupyter kernel runs this (ipywidgets 7 loads ipykernel outside of one too)."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")
