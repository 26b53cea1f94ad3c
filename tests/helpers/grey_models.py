"""A liver model that answers by grey level, CTs it knows the answer to, and how tests run it."""

import numpy as np
import torch
from torch import nn

from helpers.drawn import write_nifti
from lits_helpers.checkpoints import LiverModel, Origin, TumorModel
from lits_helpers.inference import find_volumes, segment_files
from lits_helpers.recipes import InputSpec

SHAPE = (3, 20, 32)
SPEC = InputSpec(size=32, window=(-200, 300))


class Bright(nn.Module):
    """Answers 1 in liver, 0 in air."""

    def __init__(self, half=0.5):
        super().__init__()
        self.least = nn.Parameter(torch.tensor([half]))

    def forward(self, images):
        return (images > self.least).float()


def bright_model(half=0.5):
    return LiverModel(Bright(half), SPEC, Origin("liver", SPEC, ())).eval()


class Constant(nn.Module):
    """Answers one logit everywhere."""

    def __init__(self, logit):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, images):
        return self.logit.expand_as(images[:, :1])


def tumor_model(share):
    """Return a tumor model whose probability is `share` everywhere."""
    network = Constant(float(np.log(share / (1 - share))))
    return TumorModel(network, SPEC, Origin("tumor", SPEC, ())).eval()


def write_ct(path, slice_index=0):
    """Write air with a piece of liver in one slice."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[slice_index, 4:12, 3:20] = 100
    return write_nifti(hu, path)


def segment_below(root, out, *models, **options):
    """Segment every CT below a folder."""
    return segment_files(find_volumes(root, out), out, *models, **options)
