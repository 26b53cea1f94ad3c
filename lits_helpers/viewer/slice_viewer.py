"""A slice viewer of ipywidgets, the same on 7.7.1 (Colab) and 8.

`figures/drawing.py` makes its pictures. Each move is drawn while its message is handled. A browser
sends a slider's next position only after that, so a fast drag skips slices and none queue up.
"""

import html
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from IPython.display import Image, display

from ..figures import (
    EDGE_LETTERS,
    PLANES,
    WINDOWS,
    Layer,
    encode,
    encode_frame,
    error_layers,
    label_layers,
    mark_point,
    montage_image,
    plane,
    plane_spacing,
    render_slice,
    with_key,
    zoom_to,
)
from ..machine import require
from ..metrics import label_mask, slice_dice
from .browsing import BrowsedCase, Lesion, case_summary
from .controls import OWN_WINDOW, STRUCTURES, Controls

FRAME = 512  # longer side of the picture, pixels
EMPTY = encode(np.full((64, FRAME), 128, np.uint8))  # shown while there is no case
SIDE_BY_SIDE = 0.75  # of that length, where several pictures stand side by side


class SliceViewer:
    """Look through a volume in a notebook: put it on the last line of a cell.

    Args:
        volume: a `volumes.Volume`, or a dict to choose from: name -> (volume, layers), or name ->
            function without arguments that returns such a pair when the case is chosen.
        layers: of a single volume: source -> labels (Z, Y, X) 0/1/2. With the sources "reference"
            and "prediction" there are scores and an error map.
        frame: longer side of the picture, pixels.
        static: also show a montage below, for places that show no widgets.

    Attributes:
        controls: the widgets; `controls.box` is the whole viewer.
        case: the case that is shown.
        picture: the last picture drawn, (H, W, 3) uint8.
        frames_drawn: how many pictures were drawn.

    Raises:
        ValueError: a volume or layer of the wrong shape, or no case.
    """

    def __init__(
        self,
        volume,
        layers: Mapping[str, np.ndarray] | None = None,
        *,
        frame: int = FRAME,
        static: bool = True,
    ):
        self.cases = volume if isinstance(volume, Mapping) else {"case": (volume, layers)}
        if not self.cases:
            raise ValueError("no case to show: give a volume or a dict of name -> (volume, layers)")
        self.frame = frame
        self.static = static
        self.frames_drawn = 0
        self._quiet = False
        self.controls = Controls(list(self.cases))
        self._open()
        self._draw()
        self._listen()

    def _ipython_display_(self) -> None:
        display(self.controls.box)
        if self.static and self.case:
            display(Image(data=self._montage(), format="jpeg"))

    def _montage(self) -> bytes:
        case = self.case
        spacing_mm = case.spacing_mm if case.trusted else None
        picture = montage_image(case.hu, case.layers, spacing_mm=spacing_mm, count=6)
        return encode(with_key(picture, case.layer_names))

    def _listen(self) -> None:
        controls = self.controls
        for control in controls.drawn():
            control.observe(self._callback(), "value")
        controls.case.observe(self._callback(self._open), "value")
        controls.plane.observe(self._callback(self._fit_controls), "value")
        controls.preset.observe(self._callback(self._take_preset), "value")
        controls.window.observe(self._callback(self._leave_preset), "value")
        controls.to_largest.on_click(self._callback(self._go_to_largest))
        controls.to_next.on_click(self._callback(self._go_to_next))
        controls.to_worst.on_click(self._callback(self._go_to_worst))

    def _callback(self, action: Callable[[], None] = lambda: None) -> Callable:
        """Return what a widget calls: run an action, which may move other controls, and draw once.

        An error is shown in the viewer; a front end would drop it silently.
        """

        def call(_event) -> None:
            if self._quiet:
                return
            self._quiet = True
            try:
                action()
                self._draw()
            except Exception as error:
                text = html.escape(f"{type(error).__name__}: {error}")
                self.controls.message.value = f'<b style="color:#D55E00">{text}</b>'
            else:
                self.controls.message.value = ""
            finally:
                self._quiet = False

        return call

    def _take_preset(self) -> None:
        chosen = self.controls.preset.value
        if chosen != OWN_WINDOW:
            self.controls.window.value = WINDOWS[chosen]

    def _leave_preset(self) -> None:
        self.controls.preset.value = OWN_WINDOW

    def _go_to_largest(self) -> None:
        self._go_to(self._lesions()[0].center)

    def _go_to_next(self) -> None:
        centers = sorted(lesion.center for lesion in self._lesions())
        here = self._voxel() if self.controls.plane.value == "axial" else (-1, 0, 0)
        later = [center for center in centers if center > here]
        self._go_to((later or centers)[0])

    def _go_to_worst(self) -> None:
        chosen = self.controls.errors.value
        index = self._opened().worst_slice(chosen if chosen in STRUCTURES else "liver")
        self._go_to((index, *self._voxel()[1:]))

    def _open(self) -> None:
        """Open the chosen case; first let the former go: two could fill the memory."""
        self.case = None
        controls = self.controls
        controls.image.value = EMPTY
        for text in (controls.legend, controls.readout, controls.scores):
            text.value = ""
        entry = self.cases[controls.case.value]
        volume, layers = entry() if callable(entry) else entry
        require(volume, "hu", "volume", "a volume: read_volume(path), or volume_from_array(hu)")
        trusted = getattr(getattr(volume, "geometry", None), "spacing_trusted", True)
        self.case = BrowsedCase(volume.hu, volume.spacing_mm, layers or {}, trusted)
        self._offer_layers()
        self._fit_controls()
        controls.scores.value = html.escape(case_summary(self.case))

    def _opened(self) -> BrowsedCase:
        if self.case is None:
            raise ValueError(f"case {self.controls.case.value} could not be opened: choose another")
        return self.case

    def _lesions(self) -> list[Lesion]:
        if not self._opened().lesions:
            raise ValueError("this case has no tumor to jump to")
        return self.case.lesions

    def _offer_layers(self) -> None:
        controls = self.controls
        case = self.case
        controls.offer_layers(case.layer_names)
        for box in controls.shown.values():
            box.observe(self._callback(), "value")
        controls.errors.disabled = controls.to_worst.disabled = not case.compared
        controls.beside.disabled = not case.layers
        controls.to_largest.disabled = controls.to_next.disabled = not case.lesions

    def _fit_controls(self) -> None:
        name = self.controls.plane.value
        hu = self._opened().hu
        self.controls.fit((hu.shape[PLANES.index(name)], *plane(hu, name, 0).shape))

    def _go_to(self, voxel: tuple[int, int, int]) -> None:
        self.controls.plane.value = "axial"
        self._fit_controls()
        moved = self.controls.slider, self.controls.row, self.controls.column
        for control, index in zip(moved, voxel, strict=True):
            control.value = index

    def _voxel(self) -> tuple[int, int, int]:
        """Return the (z, y, x) of the typed row and column."""
        controls = self.controls
        index, row, column = controls.slider.value, controls.row.value, controls.column.value
        if controls.plane.value == "axial":
            return index, row, column
        z = len(self._opened().hu) - 1 - row  # these planes show the head up
        return (z, index, column) if controls.plane.value == "coronal" else (z, column, index)

    def _draw(self) -> None:
        controls = self.controls
        case = self._opened()

        def shown(volume: np.ndarray) -> np.ndarray:
            # A sagittal plane is scattered over the memory: gather it once.
            return np.ascontiguousarray(plane(volume, controls.plane.value, controls.slider.value))

        hu = shown(case.hu)
        labels = {source: shown(volume) for source, volume in case.layers.items()}
        panels = self._panels(labels)
        frame = self.frame * (SIDE_BY_SIDE if len(panels) > 1 else 1)
        self.picture = np.hstack([self._render(hu, layers, round(frame)) for layers in panels])
        controls.image.value = encode_frame(self.picture)
        controls.legend.value = legend_html(panels)
        controls.readout.value = html.escape(self._readout(hu, labels))
        self.frames_drawn += 1

    def _panels(self, labels: Mapping[str, np.ndarray]) -> list[dict[str, Layer]]:
        """Return the layers of each picture: one, or CT, each source and the errors."""
        sources = [self._source_layers(source, part) for source, part in labels.items()]
        errors = self._error_layers(labels)
        if self.controls.beside.value and labels:
            return [{}, *sources, *([errors] if errors else [])]
        return [errors or {name: layer for layers in sources for name, layer in layers.items()}]

    def _source_layers(self, source: str, labels: np.ndarray) -> dict[str, Layer]:
        controls = self.controls
        enlarged = self.frame * controls.zoom.value / max(labels.shape)
        layers = label_layers(
            source,
            labels,
            style=controls.style.value,
            opacity=controls.opacity.value,
            thickness=2 if enlarged >= 2 else 1,
        )
        return {name: layer for name, layer in layers.items() if controls.shown[name].value}

    def _error_layers(self, labels: Mapping[str, np.ndarray]) -> dict[str, Layer]:
        structure = self.controls.errors.value
        if structure not in STRUCTURES or not self.case.compared:
            return {}
        masks = (label_mask(labels[name], structure) for name in ("prediction", "reference"))
        return error_layers(*masks)

    def _render(self, hu: np.ndarray, layers: Mapping[str, Layer], frame: int) -> np.ndarray:
        controls = self.controls
        name = controls.plane.value
        spacing = plane_spacing(self.case.spacing_mm, name)
        box = self._shown_box(hu.shape)
        picture = render_slice(
            hu,
            window=controls.window.value,
            layers=layers,
            spacing_mm=spacing,
            zoom=controls.zoom.value * zoom_to(frame, hu.shape, spacing),
            box=box,
            scale_bar=self.case.trusted,
            edges=EDGE_LETTERS[name],
        )
        if controls.marked.value:
            mark_point(picture, (controls.row.value, controls.column.value), box)
        return picture

    def _shown_box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the box of a slice that fits the zoom, around the typed row and column."""
        sizes = [max(1, round(length / self.controls.zoom.value)) for length in shape]
        middles = self.controls.row.value, self.controls.column.value
        starts = [
            min(max(middle - size // 2, 0), length - size)
            for middle, size, length in zip(middles, sizes, shape, strict=True)
        ]
        return (*starts, *sizes)

    def _readout(self, hu: np.ndarray, labels: Mapping[str, np.ndarray]) -> str:
        place = self.controls.row.value, self.controls.column.value
        words = ("background", "liver", "tumor")
        parts = [f"HU {hu[place]} at voxel (z, y, x) = {self._voxel()}"]
        parts += [f"{source}: {words[part[place]]}" for source, part in labels.items()]
        if self.case.compared:
            scores = []
            for name in STRUCTURES:
                score = slice_dice(labels["prediction"], labels["reference"], name)
                scores.append(f"{name} {'-' if score is None else f'{score:.3f}'}")
            parts.append("Dice of this slice: " + ", ".join(scores))
        return " · ".join(parts)


def legend_html(panels: Iterable[Mapping[str, Layer]]) -> str:
    """Return the names of all layers, each once and with a square of its color."""
    colors = {name: layer.color for layers in panels for name, layer in layers.items()}
    swatch = '<span style="color:rgb{}">&#9632;</span> {}'
    return " &nbsp; ".join(swatch.format(color, html.escape(n)) for n, color in colors.items())
