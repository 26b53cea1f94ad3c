"""However a scan is damaged: it is right, refused or doubted, and never in silence wrong.

DAMAGES=500 tries so many draws; LITS_REAL takes real scans instead of drawn ones.
"""

import os

import numpy as np
import pytest
from helpers.damage import REMARKS, Truth, draw, is_sound, outcome
from helpers.drawn import BODY_SPACING_MM, body
from helpers.phantoms import phantom

from lits_helpers.cases import find_cases, load_case
from lits_helpers.settings import real_data

DRAWS = int(os.environ.get("DAMAGES", "36"))
WORST = 3  # damages at once


@pytest.fixture(scope="module")
def truths():
    return [Truth(*body(), BODY_SPACING_MM), Truth(*phantom(1)), Truth(*phantom(2))]


def hold(truths, seed, folder):
    """Hold the property for one draw."""
    rng = np.random.default_rng(seed)
    drawn = draw(rng, damages=seed % (WORST + 1))
    became, codes = outcome(truths[rng.integers(len(truths))], drawn, folder)
    assert became in ("right", "refused", "doubted"), (became, codes, drawn)
    if is_sound(drawn):
        assert became == "right", (codes, drawn)
        assert set(codes) <= REMARKS, (codes, drawn)


@pytest.mark.parametrize("seed", range(DRAWS))
def test_a_damaged_scan_is_right_refused_or_doubted(truths, seed, tmp_path):
    hold(truths, seed, tmp_path)


@pytest.mark.real
def test_a_damaged_real_scan_is_right_refused_or_doubted(tmp_path):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    real = [case for name in ("lits", "lits14") for case in find_cases(real_data() / name)]
    read = [load_case(case)[:2] for case in real]
    truths = [coarse(*pair) for pair in read if len(pair[1]) > 20]  # a slab hides where the head is
    for seed in range(DRAWS):
        hold(truths, seed, tmp_path / str(seed))


def coarse(volume, labels):
    """Return a scan of at most 60 slices of 128 to 256 pixels."""
    dz, dy, dx = volume.spacing_mm
    k, n = max(1, len(labels) // 45), max(1, labels.shape[1] // 128)
    small = (np.ascontiguousarray(array[::k, ::n, ::n]) for array in (volume.hu, labels))
    return Truth(*small, (k * dz, n * dy, n * dx))
