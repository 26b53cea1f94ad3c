"""Run one function over many jobs, in spawned processes or in any executor."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .files import DISK_FULL
from .limits import available_cores

logger = logging.getLogger(__name__)

WORKER_DIED = (
    "its worker process died, most likely for lack of memory; run again with fewer workers "
    '(in a script, call prepare below `if __name__ == "__main__":`)'
)


def run_jobs(
    work: Callable,
    jobs: Sequence[tuple],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    label: str = "prepare",
) -> list[Any]:
    """Return ``work(*job)`` for each job, in order, with a progress bar.

    Args:
        work: a function of a module; returns exceptions that it can explain and raises OSError
            only for a target that cannot be written.
        jobs: arguments of each call.
        workers: spawned processes, by default one per available core; 0 works in this process.
        executor: used instead of spawned processes.
        label: of the progress bar.

    Returns:
        One result a job: what `work` returned; the exception that it raised; or a BrokenExecutor
        where it killed its process twice.

    Raises:
        OSError: the target cannot be written; with a sentence of what to do if the disk is full.
    """
    try:
        if executor is not None:
            return _submitted(executor, work, jobs, label)
        if workers == 0 or not jobs or not _can_spawn():
            calls = (partial(work, *job) for job in jobs)
            return [_settled(call) for call in _bar(calls, len(jobs), label)]
        return _spawned(work, jobs, min(workers or available_cores(), len(jobs)), label)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(
            error.errno,
            "the disk is full (or a file-size limit was reached); finished cases stay valid: "
            "free some space and run again",
            str(error.filename or "the target folder"),
        ) from error


def spawned_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes that end with this one; forked threads can hang.

    Ctrl-C never reaches them. Where an error leaves the pool's context, what has not begun is left.
    """
    context = multiprocessing.get_context("spawn")
    return _SpawnedPool(workers, mp_context=context, initializer=_die_with_parent)


class _SpawnedPool(ProcessPoolExecutor):
    def submit(self, work: Callable, /, *arguments, **options) -> Future:
        with _interrupts_wait():  # a process starts here
            return super().submit(work, *arguments, **options)

    def __exit__(self, kind, error, trace) -> None:
        self.shutdown(cancel_futures=kind is not None)


def _spawned(work: Callable, jobs: Sequence[tuple], workers: int, label: str) -> list[Any]:
    with spawned_pool(workers) as pool:
        results = _submitted(pool, work, jobs, label)
    for i, result in enumerate(results):
        # the death of one process ends all jobs of its pool, so each gets a second try, alone
        if isinstance(result, BrokenExecutor):
            with spawned_pool(1) as pool:
                results[i] = _submitted(pool, work, [jobs[i]], label)[0]
    return results


def _submitted(executor: Executor, work: Callable, jobs: Sequence[tuple], label: str) -> list[Any]:
    futures: dict[Future, int] = {}
    results: list[Any] = [None] * len(jobs)
    try:
        for i, job in enumerate(jobs):
            futures[executor.submit(work, *job)] = i
        for future in _bar(as_completed(futures), len(jobs), label):
            results[futures[future]] = _settled(future.result)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return results


def _bar(jobs: Iterable, total: int, label: str) -> tqdm:
    hidden = {"disable": True} if total < 2 else {}  # else TQDM_DISABLE decides
    return tqdm(jobs, desc=label, total=total, unit="case", **hidden)


def _settled(call: Callable[[], Any]) -> Any:
    """Return a job's result, or its exception if that must not end the other jobs."""
    try:
        return call()
    except BrokenExecutor:
        return BrokenExecutor(WORKER_DIED)
    except OSError:
        raise
    except Exception as error:
        logger.exception("a case failed in a way that was not foreseen")
        return error


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back: processes started meanwhile never get it, not even while they import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # may raise for one before
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent() -> None:
    """End this worker when its parent is killed, so that a new run finds no rival.

    Ctrl-C reaches every process of a terminal: the parent alone answers, with a sentence.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _can_spawn() -> bool:
    """Spawned processes import the main script again: impossible if it was piped into Python."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is None or Path(script).is_file()
