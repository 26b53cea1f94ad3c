"""The viewer's picture: which slices it holds, with which layers, and where."""

from collections.abc import Mapping

import numpy as np

from ..figures import (
    EDGE_LETTERS,
    PALETTE,
    PLANES,
    Layer,
    draw_ruler,
    error_layers,
    label_layers,
    mark_point,
    plane,
    plane_spacing,
    render_slice,
    zoom_to,
)
from ..metrics import label_mask
from . import views
from .controls import BESIDE, ONE, STRUCTURES, THREE

SIZES = {ONE: 1.0, BESIDE: 0.5, THREE: 0.7}  # of a single slice's length, by arrangement
SECOND = 0.4  # of that length: the two other planes
UNCERTAIN = 0.5  # drawn from here on


class Composer:
    """Draw what a viewer's controls, case and point say."""

    def __init__(self, viewer):
        self.viewer = viewer

    def compose(self, frame: int) -> tuple[np.ndarray, list[views.Panel], list[dict]]:
        """Return the picture, its panels and the layers of each.

        Args:
            frame: longer side of a single slice, pixels.
        """
        mode, chosen = self.viewer.controls.arrangement.value, self.viewer.controls.plane.value
        if mode == THREE:
            names = [chosen, *(name for name in PLANES if name != chosen)]
            shots = [(name, layers) for name in names for layers in self._layers(name)]
        else:
            shots = [(chosen, layers) for layers in self._layers(chosen, beside=mode == BESIDE)]
        if len(shots) == 1:
            mode = ONE
        lengths = [SECOND if mode == THREE and n else SIZES[mode] for n in range(len(shots))]
        drawn = [
            self._render(name, layers, round(frame * length))
            for (name, layers), length in zip(shots, lengths, strict=True)
        ]
        shapes = [picture.shape[:2] for picture in drawn]
        corners = (views.first_large if mode == THREE else views.side_by_side)(shapes)
        panels = [
            views.Panel(name, self.viewer.box(name), corner, shape)
            for (name, _), corner, shape in zip(shots, corners, shapes, strict=True)
        ]
        return views.joined(drawn, corners), panels, [layers for _, layers in shots]

    def _cut(self, volume: np.ndarray, name: str) -> np.ndarray:
        # A sagittal plane is scattered over the memory: gather it once.
        return np.ascontiguousarray(plane(volume, name, self.viewer.place_in(name)[0]))

    def _layers(self, name: str, beside: bool = False) -> list[dict[str, Layer]]:
        """Return the layers of each picture of a plane: one, or CT, each source and the errors."""
        labels = {source: self._cut(part, name) for source, part in self.viewer.case.layers.items()}
        sources = [self._source_layers(source, part) for source, part in labels.items()]
        sources += self._uncertain_layers(name)
        errors = self._error_layers(labels)
        if beside and sources:
            return [{}, *sources, *([errors] if errors else [])]
        return [errors or {name: layer for layers in sources for name, layer in layers.items()}]

    def _source_layers(self, source: str, labels: np.ndarray) -> dict[str, Layer]:
        controls = self.viewer.controls
        enlarged = self.viewer.frame * controls.zoom.value / max(labels.shape)
        layers = label_layers(
            source,
            labels,
            style=controls.style.value,
            opacity=controls.opacity.value,
            thickness=2 if enlarged >= 2 else 1,
        )
        return {name: layer for name, layer in layers.items() if self._shows(name)}

    def _uncertain_layers(self, name: str) -> list[dict[str, Layer]]:
        if self.viewer.case.uncertainty is None or not self._shows("uncertain"):
            return []
        mask = self._cut(self.viewer.case.uncertainty, name) >= UNCERTAIN
        style, opacity = self.viewer.controls.style.value, self.viewer.controls.opacity.value
        return [{"uncertain": Layer(mask, PALETTE["uncertain"], style, opacity)}]

    def _shows(self, name: str) -> bool:
        return self.viewer.controls.shown[name].value and not self.viewer.controls.hide.value

    def _error_layers(self, labels: Mapping[str, np.ndarray]) -> dict[str, Layer]:
        structure = self.viewer.controls.errors.value
        if (
            structure not in STRUCTURES
            or not self.viewer.case.compared
            or self.viewer.controls.hide.value
        ):
            return {}
        masks = (label_mask(labels[name], structure) for name in ("prediction", "reference"))
        return error_layers(*masks)

    def _render(self, name: str, layers: Mapping[str, Layer], frame: int) -> np.ndarray:
        controls, case = self.viewer.controls, self.viewer.case
        hu = self._cut(case.hu, name)
        spacing = plane_spacing(case.spacing_mm, name)
        low, high = controls.window.value
        box = self.viewer.box(name)
        picture = render_slice(
            hu,
            window=(low, max(high, low + 1)),
            layers=layers,
            spacing_mm=spacing,
            zoom=controls.zoom.value * zoom_to(frame, hu.shape, spacing),
            box=box,
            scale_bar=case.trusted,
            edges=EDGE_LETTERS[name],
        )
        if controls.marked.value:
            across = controls.arrangement.value == THREE
            mark_point(picture, self.viewer.place_in(name)[1:], box, across=across)
        if self.viewer.ruler and self.viewer.ruler[0] == name:
            draw_ruler(picture, self.viewer.ruler[1:], box, self._measured(spacing))
        return picture

    def _measured(self, spacing: tuple[float, float]) -> str:
        way = np.subtract(*self.viewer.ruler[1:])
        if self.viewer.case.trusted:
            return f"{np.linalg.norm(way * spacing):.1f} mm"
        return f"{np.linalg.norm(way):.1f} voxels"
