"""What a model is shown: channels, scale, normalization."""

import numpy as np
import pytest
import torch
from helpers.drawn import SPACING_MM, blob, ramp
from helpers.packed_cases import TUMOR

from lits_helpers.datasets import TumorSlices, model_input
from lits_helpers.volumes import Frame, resize_mask, slice_levels


def test_tumor_item_repeats_the_slice_and_normalizes_each_channel(prepared):
    image, mask = TumorSlices(prepared, ["3"], TUMOR)[5]
    aspect = SPACING_MM[1] / SPACING_MM[2]
    levels = slice_levels(ramp()[5], TUMOR, Frame(aspect))
    unit = torch.from_numpy(levels.astype(np.float32) / 65535)
    torch.testing.assert_close(image[0], (unit - 0.485) / 0.229)
    torch.testing.assert_close(image[2], (unit - 0.406) / 0.225)
    assert torch.equal(mask[0], torch.from_numpy(resize_mask(blob()[5], 64, aspect) == 2).float())


def test_model_input_refuses_a_missing_axis():
    with pytest.raises(ValueError, match=r"levels must be \(N, 1 or 3, S, S\), got shape \(64, 64"):
        model_input(torch.zeros(64, 64, dtype=torch.uint8), TUMOR)
