"""Livers and lesions of generated patients vary as described."""

import numpy as np
import pytest
from helpers.phantoms import phantom
from scipy import ndimage

from lits_helpers.phantom.liver import draw_lesions


def test_the_liver_varies_and_its_neighbours_share_its_hu():
    livers = [phantom(seed) for seed in range(6)]
    means = [hu[labels == 1].mean() for hu, labels, _ in livers]
    sizes = [(labels > 0).sum() * np.prod(spacing) for _, labels, spacing in livers]
    assert np.ptp(means) > 20
    assert max(sizes) > 1.4 * min(sizes)
    for (hu, labels, _), mean in zip(livers, means, strict=True):
        alike = (np.abs(ndimage.gaussian_filter(hu.astype(float), (0, 1, 1)) - mean) < 15) & (
            labels == 0
        )
        assert alike.sum() > 0.3 * (labels > 0).sum()


def test_tumor_lies_in_the_liver_and_is_darker_as_a_rule():
    darker = []
    for seed in range(8):
        hu, labels, _ = phantom(seed)
        assert set(np.unique(labels)) <= {0, 1, 2}
        if (labels == 2).sum() > 20:
            around = ndimage.binary_dilation(labels == 2, iterations=2)
            assert (labels[around] == 0).mean() < 0.7
            darker.append(hu[labels == 2].mean() < hu[(labels == 1) & around].mean())
    assert np.mean(darker) > 0.6


def test_lesions_are_drawn_as_described():
    patients = [draw_lesions(np.random.default_rng(seed)) for seed in range(900)]
    counts = [len(lesions) for lesions in patients]
    sizes, contrasts, _ = np.array([lesion for lesions in patients for lesion in lesions]).T
    assert np.mean(np.equal(counts, 0)) == pytest.approx(1 / 6, abs=0.04)
    assert max(counts) == 8
    assert 3 <= sizes.min() < 5
    assert 40 < sizes.max() <= 45
    assert (sizes[sizes > 12] ** 3).sum() > 0.9 * (sizes**3).sum()
    dark = contrasts < 0
    assert 0.8 < dark.mean() < 0.95
    assert contrasts[dark].min() >= -60
    assert contrasts[dark].max() <= -15
