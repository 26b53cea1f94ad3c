"""Find this process's place among those that `torchrun` started, and wait for all of them."""

import itertools
import os
from collections.abc import Sequence
from datetime import timedelta

_meetings = itertools.count()


def world_size() -> int:
    """Return how many processes work together: 1 unless `torchrun` started more."""
    return int(os.environ.get("WORLD_SIZE", 1))


def own_rank() -> int:
    """Return this process's number among all that work together, from 0."""
    return int(os.environ.get("RANK", 0)) if world_size() > 1 else 0


def local_rank() -> int | None:
    """Return this process's number on its machine; None where `torchrun` gave it none."""
    given = os.environ.get("LOCAL_RANK")
    return None if given is None else int(given)


def processes_here() -> int:
    """Return how many processes of `torchrun` share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def own_share(items: Sequence) -> Sequence:
    """Return the items that fall to this process: all, unless `torchrun` started more."""
    return items[own_rank() :: world_size()]


def wait_for_others() -> bool:
    """Wait until every process that `torchrun` started is here; one that fails ends them all.

    Returns:
        Whether there are others; False, without waiting, where something else started them.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        return False
    store, _, world = next(distributed.rendezvous("env://"))
    # the store outlives an attempt, so each attempt meets under a name of its own
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    meeting = f"lits_helpers/{attempt}/{next(_meetings)}"
    if store.add(meeting, 1) == world:
        store.set(f"{meeting}/all", "here")
    store.wait([f"{meeting}/all"], timedelta(days=7))
    return world > 1
