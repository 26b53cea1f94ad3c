"""The learning rate in the course of a training."""

import pytest
from helpers.small_runs import small_liver

from lits_helpers.training.optimization import learning_rate


def test_cosine_schedule_ends_at_a_hundredth():
    recipe = small_liver(learning_rate=0.1, epochs=10)
    assert learning_rate(recipe, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 5) == pytest.approx(0.1 * 0.505)
    assert learning_rate(recipe, 10) == pytest.approx(0.001)
    assert learning_rate(small_liver(name="original"), 1.5) == 0.01


def test_the_learning_rate_rises_in_the_warm_up():
    recipe = small_liver(name="original", warm_up=2.0, epochs=40)  # constant
    assert learning_rate(recipe, 0) == pytest.approx(1e-4)
    assert learning_rate(recipe, 0.5) == pytest.approx(0.0025)
    assert learning_rate(recipe, 1) == pytest.approx(0.005)
    assert learning_rate(recipe, 2) == learning_rate(recipe, 3) == 0.01
    short = small_liver(name="original", warm_up=2.0, epochs=5)
    assert learning_rate(short, 0.25) == pytest.approx(0.005)
    assert learning_rate(short, 0.5) == 0.01
    with pytest.raises(ValueError, match=r"warm_up .* got -1"):
        small_liver(warm_up=-1)
