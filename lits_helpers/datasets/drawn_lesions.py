"""Lesions, and what looks like one, drawn into the livers of a batch: no two slices alike.

A phantom's lesions are few, and a network soon knows them. These are new in every batch, softer,
fainter and in stronger noise. As in most patients they are darker than their liver, so whatever is
brighter counts as liver. The idea is that of Hu et al., "Label-Free Liver Tumor Segmentation"
(CVPR 2023), who draw them into livers of real patients.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from ..recipes import InputSpec

VESSELS, CLEFTS, UNEVEN, BLURRED = 0.5, 0.35, 0.5, 0.35  # shares of the slices
LESION_PIXELS = 2.2, 28.0  # radii, as far as the model's input shows them
STEP_PIXELS = 0.7, 5.0  # between slices
CONTRAST_HU = 75.0  # largest, of a lesion with its liver
NOISE_HU = 22.0  # largest standard deviation
UNEVEN_HU = 8.0  # largest standard deviation of a liver's own smooth unevenness
SMALLEST_LIVER = 200  # pixels; less is left alone


def draw_lesions(
    levels: Tensor, labels: Tensor, spec: InputSpec, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw lesions, vessels and clefts into slices and their neighbours, then add noise.

    Args:
        levels: (N, C, S, S) uint8, slices with their neighbours.
        labels: (N, C, S, S) uint8.
        spec: of the levels; it has a window.
        share: of the slices that get lesions.
        generator: a CPU generator; the same state gives the same batch.

    Returns:
        levels and labels as they came, on the same device. A lesion counts as tumor (2) where it
        has half its contrast; a tumor that is brighter than its liver has become liver (1).
    """
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    drawn = [
        _Liver(*planes, spec, rng).drawn(share)
        for planes in zip(levels.cpu().numpy(), labels.cpu().numpy(), strict=True)
    ]
    arrays = (np.stack(planes) for planes in zip(*drawn, strict=True))
    return tuple(torch.from_numpy(each).to(levels.device) for each in arrays)


class _Liver:
    """A slice between its neighbours, (C, S, S), while its liver is drawn into."""

    def __init__(self, levels: np.ndarray, labels: np.ndarray, spec: InputSpec, rng):
        self.levels, self.labels, self.rng = levels.astype(np.float32), labels.copy(), rng
        self.per_hu = spec.levels / (spec.window[1] - spec.window[0])
        self.middle = len(labels) // 2
        near, far = STEP_PIXELS
        self.step = near * (far / near) ** rng.uniform()  # to the next slice, pixels
        self.noise_hu = NOISE_HU * rng.uniform() ** 1.3
        self.rows, self.columns = np.indices(labels.shape[1:], np.float32)

    def drawn(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return levels and labels after all has been drawn, each thing on its share of slices."""
        self._drop_bright_tumors()
        self.inside = np.argwhere(self.labels[self.middle] == 1)
        if len(self.inside) >= SMALLEST_LIVER:
            for part, draw in (
                (VESSELS, self._draw_vessels),
                (CLEFTS, self._draw_clefts),
                (share, self._draw_lesions),
                (UNEVEN, self._make_uneven),
            ):
                if self.rng.uniform() < part:
                    draw()
        self._add_noise()
        return self.levels.clip(0, 255).round().astype(np.uint8), self.labels

    def _drop_bright_tumors(self) -> None:
        tumor, liver = self.labels == 2, self.labels == 1
        if not tumor.any() or not liver.any():
            return
        limit = np.median(self.levels[liver]) - 3 * self.per_hu
        for plane, marked in zip(self.levels, self.labels, strict=True):
            smooth = cv2.blur(plane, (5, 5))
            count, pieces = cv2.connectedComponents((marked == 2).astype(np.uint8))
            for piece in range(1, count):
                if np.median(smooth[pieces == piece]) > limit:
                    marked[pieces == piece] = 1

    def _draw_vessels(self) -> None:
        for _ in range(self.rng.integers(1, 7)):
            stretch = math.exp(self.rng.uniform(-1.1, 1.1))
            radii = [self.rng.uniform(1.2, 6)] * len(self.levels)
            vessel = self._blob(radii, self.rng.uniform(0.4, 1.5), stretch)
            self._add(vessel(1), self.rng.uniform(12, 90))

    def _draw_clefts(self) -> None:
        """Draw dark lines from the liver's rim inwards: ligaments and fissures are no lesions."""
        liver = (self.labels[self.middle] > 0).astype(np.uint8)
        rim = np.argwhere((liver > 0) & (cv2.erode(liver, np.ones((3, 3))) == 0))
        if not len(rim):  # nothing but liver
            return
        for _ in range(self.rng.integers(1, 3)):
            start, aim = self.rng.choice(rim).astype(float), self.rng.choice(self.inside)
            length = self.rng.uniform(6, 35) / max(math.dist(start, aim), 1)
            end = start + (aim - start) * min(length, 1)
            line = np.zeros(liver.shape, np.float32)
            ends = [point[::-1].astype(int).tolist() for point in (start, end)]
            cv2.line(line, *ends, 1.0, int(self.rng.integers(1, 4)))
            line = cv2.GaussianBlur(line, (0, 0), self.rng.uniform(0.5, 1.2))
            self._add([line] * len(self.levels), -self.rng.uniform(25, 120))

    def _draw_lesions(self) -> None:
        smallest, largest = LESION_PIXELS
        for _ in range(self.rng.integers(1, 5)):
            radius = smallest * (largest / smallest) ** self.rng.uniform()
            # What nobody can see in the noise is not asked for.
            faintest = 8 + 4 * self.noise_hu / (1 + 0.8 * radius) + 15 / radius
            contrast = self.rng.uniform(faintest, max(faintest + 10, CONTRAST_HU))
            edge = self.rng.uniform(0.4, 0.4 + 0.28 * radius)
            stretch = math.exp(self.rng.uniform(-0.35, 0.35))
            lesion = self._blob(self._radii_of_ball(radius), edge, stretch)
            shape, liver = lesion(1), self.labels > 0
            self._add(shape, -contrast)
            if self.rng.uniform() < 0.3:  # necrosis or a brighter core
                self._add(lesion(0.6), self.rng.uniform(-25, 12))
            self.labels[liver & (np.stack(shape) > 0.5)] = 2

    def _make_uneven(self) -> None:
        """Add what fat and perfusion do, smoothly over the whole liver."""
        field = self.rng.normal(size=(6, 6)).astype(np.float32)
        field = cv2.resize(field, self.levels.shape[1:], interpolation=cv2.INTER_CUBIC)
        self._add([field] * len(self.levels), self.rng.uniform(0, UNEVEN_HU))

    def _add_noise(self) -> None:
        """Add noise of a random grain where a slice is not black, and blur some slices."""
        grain, blur = self.rng.uniform(0, 1.3), 0.0
        if self.rng.uniform() < BLURRED:
            blur = self.rng.uniform(0.4, 1.0)
        for k, plane in enumerate(self.levels):
            noise = self.rng.standard_normal(plane.shape, np.float32)
            if grain > 0.3:
                noise = cv2.GaussianBlur(noise, (0, 0), grain)
                noise /= noise.std()
            seen = plane > 0
            plane += noise * (self.noise_hu * self.per_hu) * seen
            if blur:
                self.levels[k] = cv2.GaussianBlur(plane, (0, 0), blur) * seen

    def _add(self, shapes, hu: float) -> None:
        """Add so many HU times a shape (S, S) in each slice, within the liver."""
        for plane, marked, shape in zip(self.levels, self.labels, shapes, strict=True):
            plane += (hu * self.per_hu) * shape * (marked > 0)

    def _radii_of_ball(self, radius: float) -> np.ndarray:
        """Return the radii (C,) in which the slices cut a ball; `radius` in the middle one."""
        place = self.rng.uniform(-0.9, 0.9)  # of the middle slice, in radii of the ball
        ball = radius / math.sqrt(1 - place**2)
        heights = place * ball + (np.arange(len(self.levels)) - self.middle) * self.step
        return np.sqrt(np.maximum(ball**2 - heights**2, 0))

    def _blob(self, radii, edge: float, stretch: float):
        """Return a lobulated blob somewhere in the liver, to be had in several sizes.

        Args:
            radii: C of them, pixels.
            edge: width of its border, pixels.
            stretch: of one axis, and shrinkage of the other.

        Returns:
            a function of a scale: C shapes (S, S) in [0, 1], half at the border.
        """
        row, column = self.rng.choice(self.inside)
        turn = self.rng.uniform(0, math.pi)
        y, x = self.rows - row, self.columns - column
        along = (x * math.cos(turn) + y * math.sin(turn)) * stretch
        across = (y * math.cos(turn) - x * math.sin(turn)) / stretch
        distance, angle = np.hypot(along, across), np.arctan2(across, along)
        lobes = np.ones_like(distance)
        for k in range(1, 5):
            lobes += self.rng.uniform(0, 0.16) * np.cos(k * angle + self.rng.uniform(0, 6.28))

        def shapes(scale: float) -> list[np.ndarray]:
            return [
                (0.5 + 0.5 * np.tanh((radius * scale * lobes - distance) / edge)) * (radius > 0)
                for radius in radii
            ]

        return shapes
