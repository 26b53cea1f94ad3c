"""Generated patients, each made once for all tests."""

from functools import cache

from lits_helpers.phantom import make_phantom


@cache
def phantom(seed, shape=(24, 80, 88)):
    return make_phantom(seed, shape)
