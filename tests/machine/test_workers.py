"""Jobs in processes of their own: one that dies or fails takes no other with it."""

import ctypes
import os
import signal
import time
from multiprocessing import util

import pytest

from lits_helpers.machine import run_jobs, spawned_pool


def die_on_one(number):
    if number == 1:
        ctypes.string_at(0)
    return number


def test_job_that_kills_its_process_takes_no_other_with_it():
    results = run_jobs(die_on_one, [(0,), (1,), (2,)], workers=2)
    assert (results[0], results[2]) == (0, 2)
    assert "lack of memory" in str(results[1])


def fail_on_one(number):
    if number == 1:
        raise RuntimeError("nobody thought of this")
    return number


@pytest.mark.parametrize("workers", [0, 1])
def test_unforeseen_error_of_one_job_does_not_end_the_others(workers):
    first, second, third = run_jobs(fail_on_one, [(0,), (1,), (2,)], workers=workers)
    assert (first, third) == (0, 2)
    assert str(second) == "nobody thought of this"


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function: whom Ctrl-C reaches while each process starts, the new one or this one."""
    start = util.spawnv_passfds

    def interrupt(new):
        def started(*arguments):
            number = start(*arguments)
            os.kill(number if new else os.getpid(), signal.SIGINT)
            return number

        monkeypatch.setattr(util, "spawnv_passfds", started)

    return interrupt


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_ctrl_c_does_not_reach_a_process_that_starts(interrupted):
    with spawned_pool(1) as pool:
        interrupted(new=True)
        assert pool.submit(len, "abc").result() == 3


def touch_slowly(path):
    path.touch()
    time.sleep(0.3)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_ctrl_c_while_processes_start_ends_what_has_not_begun(tmp_path, interrupted):
    spawned_pool(1).shutdown()  # multiprocessing's own helper runs
    interrupted(new=False)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(touch_slowly, [(tmp_path / str(number),) for number in range(8)], workers=1)
    assert len(list(tmp_path.iterdir())) < 4
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
