"""Regions of one pixel, blind losses of each image, and what the losses are when nobody asks."""

import torch

from lits_helpers.losses import masked_image


def plane(*rows: str) -> torch.Tensor:
    """Draw (1, 1, H, W) from rows such as "..##"."""
    return torch.tensor([[float(c == "#") for c in row] for row in rows])[None, None]


MASK = plane("......", ".###..", ".###..", "......")


def test_the_floor_lifts_the_image_where_the_mask_is():
    seen = masked_image(torch.full((1, 1, 4, 6), 0.25), MASK, 0.125)
    assert torch.equal(seen, 0.375 * MASK)
