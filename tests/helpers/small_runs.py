"""Recipes, slices and volumes small enough for tests of a whole training."""

from types import SimpleNamespace

import cv2
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from lits_helpers.datasets.slices import CaseSlices
from lits_helpers.recipes import InputSpec, liver_recipe, tumor_recipe
from lits_helpers.training.run_folder import CLOCK_COLUMNS, RunFolder
from lits_helpers.training.stopping import Stopwatch

CPU = torch.device("cpu")
SPLIT = SimpleNamespace(training=("0", "1", "2"), validation=("3", "4"), test=())
TUMOR_SPLIT = SimpleNamespace(training=("0", "1"), validation=("2",), test=())


def small_liver(**changes):
    small = {
        "spec": InputSpec(size=32, window=(-200, 300), channels=3, context=1),
        "width": 4,
        "critic_width": 4,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
    }
    return liver_recipe(changes.pop("name", "default"), **(small | changes))


def small_tumor(**changes):
    spec = InputSpec(64, (-100, 250), channels=3, context=1, normalization="imagenet")
    small = {"spec": spec, "epochs": 1, "batch_size": 8, "pretrained": False}
    return tumor_recipe("default", **(small | changes))


class SmallNetwork(nn.Module):
    """Stands for a RegNet in an export, which takes half a minute of it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 5, padding=2)

    def forward(self, image):
        return self.layer(image) - 3


def draw_no_curves(monkeypatch):
    """Leave out the curves of trainings that take less time than a figure."""
    monkeypatch.setattr(RunFolder, "draw_curve", lambda *_: None)


def write_slices(root):
    """Write five cases of three slices (40, 48): noise with a brighter ellipse, the liver."""
    generator = np.random.default_rng(0)
    for case in range(5):
        for kind in ("images", "masks"):
            (root / kind / str(case)).mkdir(parents=True)
        for k in range(3):
            mask = np.zeros((40, 48), np.uint8)
            cv2.ellipse(mask, (16 + 2 * case, 18 + k), (11, 8), 20 * k, 0, 360, 255, -1)
            image = (generator.integers(40, 80, mask.shape) + mask // 2).astype(np.uint8)
            cv2.imwrite(str(root / "images" / str(case) / f"{k}.png"), image)
            cv2.imwrite(str(root / "masks" / str(case) / f"{k}.png"), mask)
    return root


def write_volumes(root):
    """Write three NIfTI pairs (48, 40, 6) in file order, liver and tumor in four slices."""
    generator = np.random.default_rng(0)
    for case in range(3):
        labels = np.zeros((48, 40, 6), np.uint8)
        labels[8:30, 10:34, 1:5] = 1
        labels[14:20, 16 + case : 22 + case, 1:5] = 2
        hu = generator.normal(0, 15, labels.shape) + 90 * (labels == 1) - 40 * (labels == 2)
        affine = np.diag([-0.8, -0.7, 5.0, 1.0])
        nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), root / f"volume-{case}.nii")
        nib.save(nib.Nifti1Image(labels, affine), root / f"segmentation-{case}.nii")
    return root


def weights(run, name="last.pth"):
    state = torch.load(run / "checkpoints" / name, weights_only=True)
    return state["parts"]["model"] if "parts" in state else state["model"]


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def without_clocks(history):
    return [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in history]


def stopping_after(monkeypatch, steps):
    """Let max_minutes strike after so many steps of this call."""
    left = [steps]

    def over(_watch):
        left[0] -= 1
        return left[0] < 0

    monkeypatch.setattr(Stopwatch, "over", over)


def forbid_decoding(monkeypatch):
    """Let a test fail where a slice is decoded for the cache."""
    monkeypatch.setattr(CaseSlices, "working_labels", lambda *_: pytest.fail("decoded again"))
