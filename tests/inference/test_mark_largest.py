"""The largest component is found as in all slices, though few are looked at."""

import numpy as np
import pytest
from scipy import ndimage

from lits_helpers.inference.segment import mark_largest


class Drawn:
    """Stands for a sweep: it marks what is drawn, and notes the slices."""

    def __init__(self, drawn):
        self.drawn, self.seen = drawn, []

    def mark(self, mask, slices, threshold):
        self.seen.extend(slices)
        for k in slices:
            mask[k] = self.drawn[k]


def drawn(depth, *blocks):
    """Return labels (depth, 9, 11) of blocks (first slice, slices, rows, columns) in corners."""
    labels = np.zeros((depth, 9, 11), np.uint8)
    for number, (first, slices, rows, columns) in enumerate(blocks):
        y, x = (0, 4)[number % 2], (0, 5)[number // 2 % 2]
        labels[first : first + slices, y : y + rows, x : x + columns] = 1
    return labels


def largest(labels):
    """By another way: all components of all slices."""
    parts, count = ndimage.label(labels)
    sizes = [0] + [(parts == n).sum() for n in range(1, count + 1)]
    return (parts == np.argmax(sizes)) & (labels > 0)


def marked(labels):
    sweep, found = Drawn(labels), np.zeros_like(labels)
    count = mark_largest(sweep, found, 0.5)
    assert len(sweep.seen) == len(set(sweep.seen)) == count
    return found, count


def test_slices_far_from_the_liver_are_not_looked_at():
    found, count = marked(drawn(160, (61, 70, 4, 4)))  # 1,120 voxels; seven slices hold 693
    assert found.sum() == 70 * 16
    assert found[61:131, :4, :4].all()
    assert count == 20 + 10 * 7  # every eighth, and what lies beside those that hold liver


@pytest.mark.parametrize(
    "blocks",
    [
        ((3, 3, 4, 4), (20, 40, 1, 1)),  # the larger lies between two of every eighth slice
        ((9, 7, 3, 5), (41, 5, 3, 5)),
        ((1, 7, 3, 2), (30, 1, 4, 4)),
        ((16, 1, 2, 2),),
        ((65, 2, 4, 5),),  # behind the last of every eighth slice
        (),
    ],
)
def test_small_livers_are_found_wherever_they_lie(blocks):
    labels = drawn(67, *blocks)
    found, _ = marked(labels)
    np.testing.assert_array_equal(found, largest(labels))


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_drawn_the_largest_component_is_that_of_all_slices(seed):
    chance = np.random.default_rng(seed)
    labels = (chance.random((70, 9, 11)) < chance.uniform(0.05, 0.6)).astype(np.uint8)
    labels[chance.random(70) < chance.uniform(0, 0.9)] = 0
    labels[chance.integers(60) :][: chance.integers(1, 40), 2:7, 3:8] = 1
    found, _ = marked(labels)
    np.testing.assert_array_equal(found, largest(labels))
