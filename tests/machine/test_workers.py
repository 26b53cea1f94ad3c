"""Jobs in processes of their own: one that dies or fails takes no other with it."""

import ctypes

import pytest

from lits_helpers.machine import run_jobs


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
