"""A slice viewer of ipywidgets, the same on 7.7.1 (Colab) and 8. drawing.py makes its pictures.

A move is drawn while its message is handled. Browsers send a slider's next position only when that is
done, so a fast drag skips slices instead of queueing them up.
"""

import functools
import html
from collections.abc import Callable, Mapping

import ipywidgets as widgets
import numpy as np
from IPython.display import Image, display

from .browsing import BrowsedCase, slice_dice
from .drawing import (
    EDGE_LETTERS,
    PLANES,
    WINDOWS,
    Layer,
    color_of,
    encode,
    error_layers,
    label_layers,
    mark_point,
    picture_shape,
    plane,
    plane_spacing,
    render_slice,
)
from .figures import montage_image

FRAME = 512  # longer side of the picture, pixels
SIDE_BY_SIDE_FRAME = 400
PLAY_INTERVAL_MS = 100
STRUCTURES = ("liver", "tumor")


def guarded(method: Callable) -> Callable:
    """Show an error of a callback in the viewer; a front end would drop it silently."""

    @functools.wraps(method)
    def call(self, *args):
        try:
            method(self, *args)
        except Exception as error:
            text = html.escape(f"{type(error).__name__}: {error}")
            self.message.value = f'<b style="color:#D55E00">{text}</b>'
        else:
            self.message.value = ""

    return call


class SliceViewer:
    """Look through a volume in a notebook: put it on the last line of a cell.

    Args:
        volume: a `volumes.Volume`, or for a choice of cases a dict of name -> (volume, layers) or
            name -> function without arguments that returns such a pair, called when it is chosen.
        layers: of a single volume: source -> labels (Z, Y, X) 0/1/2. If the sources are "reference"
            and "prediction" there are scores and an error map.
        frame: longer side of the picture, pixels.
        static: also show a montage below, for places that show no widgets.

    Attributes:
        widget: the whole viewer, an ipywidgets box.
        picture: the last picture drawn, (H, W, 3) uint8.

    Raises:
        ValueError: a volume or layer of the wrong shape, or no case.
    """

    def __init__(self, volume, layers=None, *, frame: int = FRAME, static: bool = True):
        self.cases = volume if isinstance(volume, Mapping) else {"case": (volume, layers or {})}
        if not self.cases:
            raise ValueError("no case to show: give a volume or a dict of name -> (volume, layers)")
        self.frame, self.static = frame, static
        self.frames_drawn, self._quiet = 0, False
        self._make_controls()
        self.widget = self._arranged()
        self._open(next(iter(self.cases)))
        self._draw()
        self._listen()

    def _ipython_display_(self) -> None:
        display(self.widget)
        if self.static:
            data = encode(montage_image(self.case.hu, self.case.layers, count=6))
            display(Image(data=data, format="jpeg"))

    def _make_controls(self) -> None:
        self.case_choice = widgets.Dropdown(options=list(self.cases), description="case")
        self.plane = widgets.ToggleButtons(options=PLANES, style={"button_width": "80px"})
        self.slider = widgets.IntSlider(description="slice", layout={"width": "430px"})
        self.play = widgets.Play(interval=PLAY_INTERVAL_MS)
        widgets.jslink((self.play, "value"), (self.slider, "value"))
        presets = [*WINDOWS, "own"]
        self.preset = widgets.Dropdown(options=presets, value="abdomen", description="window")
        low, high = WINDOWS["abdomen"]
        self.window = widgets.IntRangeSlider(
            value=(int(low), int(high)), min=-1500, max=2000, step=5, description="HU"
        )
        self.style = widgets.ToggleButtons(
            options=["outline", "fill"], style={"button_width": "60px"}
        )
        self.opacity = widgets.FloatSlider(value=0.4, max=1, step=0.05, description="opacity")
        self.errors = widgets.Dropdown(options=["off", *STRUCTURES], description="error map")
        self.beside = widgets.Checkbox(description="side by side", indent=False)
        self.marked = widgets.Checkbox(description="mark point", indent=False)
        self.zoom = widgets.FloatSlider(value=1, min=1, max=8, step=0.5, description="zoom")
        self.row = widgets.BoundedIntText(description="row", layout={"width": "150px"})
        self.column = widgets.BoundedIntText(description="column", layout={"width": "150px"})
        self.to_largest = widgets.Button(description="largest tumor")
        self.to_next = widgets.Button(description="next lesion")
        self.to_worst = widgets.Button(description="worst slice", tooltip="most wrong voxels")
        self.shown = {}  # layer name -> checkbox
        self.layer_box, self.image = widgets.HBox(), widgets.Image(format="jpeg")
        self.legend, self.readout, self.scores, self.message = (widgets.HTML() for _ in range(4))

    def _arranged(self) -> widgets.VBox:
        top = [self.plane] if len(self.cases) == 1 else [self.case_choice, self.plane]
        rows = [
            widgets.HBox(top),
            widgets.HBox([self.preset, self.window]),
            self.layer_box,
            widgets.HBox([self.style, self.opacity]),
            widgets.HBox([self.errors, self.beside, self.marked]),
            self.message,
            self.image,
            self.legend,
            widgets.HBox([self.slider, self.play]),
            widgets.HBox([self.to_largest, self.to_next, self.to_worst]),
            widgets.HBox([self.zoom, self.row, self.column]),
            self.readout,
            self.scores,
        ]
        return widgets.VBox(rows)

    def _listen(self) -> None:
        for control in (self.slider, self.style, self.opacity, self.errors, self.beside):
            control.observe(self._changed, "value")
        for control in (self.marked, self.zoom, self.row, self.column):
            control.observe(self._changed, "value")
        self.case_choice.observe(self._case_changed, "value")
        self.plane.observe(self._plane_changed, "value")
        self.preset.observe(self._preset_changed, "value")
        self.window.observe(self._window_changed, "value")
        self.to_largest.on_click(self._jump_to_largest)
        self.to_next.on_click(self._jump_to_next)
        self.to_worst.on_click(self._jump_to_worst)

    @guarded
    def _changed(self, _change=None) -> None:
        if not self._quiet:
            self._draw()

    @guarded
    def _case_changed(self, _change) -> None:
        self.image.value = b""  # a picture of another case must not stay if this one cannot be read
        self._together(self._open, self.case_choice.value)

    @guarded
    def _plane_changed(self, _change) -> None:
        self._together(self._fit_controls)

    @guarded
    def _preset_changed(self, _change) -> None:
        if self.preset.value in WINDOWS:
            self._together(setattr, self.window, "value", WINDOWS[self.preset.value])

    @guarded
    def _window_changed(self, _change) -> None:
        if not self._quiet:
            self._together(setattr, self.preset, "value", "own")

    @guarded
    def _jump_to_largest(self, _button) -> None:
        self._together(self._go_to, self._lesions()[0].center)

    @guarded
    def _jump_to_next(self, _button) -> None:
        lesions = sorted(self._lesions(), key=lambda lesion: lesion.center)
        here = self._voxel() if self.plane.value == "axial" else (-1, 0, 0)
        later = [lesion for lesion in lesions if lesion.center > here]
        self._together(self._go_to, (later or lesions)[0].center)

    @guarded
    def _jump_to_worst(self, _button) -> None:
        if not self.case.compared:
            raise ValueError("the worst slice wants layers named reference and prediction")
        structure = "liver" if self.errors.value == "off" else self.errors.value
        index = self.case.worst_slice(structure)
        self._together(self._go_to, (index, *self._voxel()[1:]))

    def _together(self, action: Callable, *args) -> None:
        """Run an action that moves several controls and draw once."""
        self._quiet = True
        try:
            action(*args)
        finally:
            self._quiet = False
        self._draw()

    def _open(self, name: str) -> None:
        """Make a case the shown one; the former is let go."""
        entry = self.cases[name]
        volume, layers = entry() if callable(entry) else entry
        trusted = getattr(getattr(volume, "geometry", None), "spacing_trusted", True)
        self.case = BrowsedCase(volume.hu, volume.spacing_mm, layers or {}, trusted)
        self._offer_layers()
        self._write_scores()
        self._fit_controls()

    def _offer_layers(self) -> None:
        names = [f"{source} {part}" for source in self.case.layers for part in STRUCTURES]
        was = {name: box.value for name, box in self.shown.items()}
        self.shown = {
            name: widgets.Checkbox(value=was.get(name, True), description=name, indent=False)
            for name in names
        }
        for box in self.shown.values():
            box.observe(self._changed, "value")
        self.layer_box.children = tuple(self.shown.values())
        self.errors.disabled = self.to_worst.disabled = not self.case.compared
        self.beside.disabled = not self.case.layers
        self.to_largest.disabled = self.to_next.disabled = not self.case.lesions

    def _fit_controls(self) -> None:
        """Give slider, row and column the ranges of the case and plane, and start in the middle."""
        axis = PLANES.index(self.plane.value)
        shape = plane(self.case.hu, self.plane.value, 0).shape
        lengths = (self.case.hu.shape[axis], *shape)
        for control, length in zip((self.slider, self.row, self.column), lengths, strict=True):
            control.max, control.value = length - 1, length // 2
        self.play.max, self.play.value = self.slider.max, self.slider.value

    def _go_to(self, voxel: tuple[int, int, int]) -> None:
        self.plane.value = "axial"
        self._fit_controls()
        self.slider.value, self.row.value, self.column.value = voxel

    def _lesions(self):
        if not self.case.lesions:
            raise ValueError("this case has no tumor in its reference")
        return self.case.lesions

    def _voxel(self) -> tuple[int, int, int]:
        """Return the (z, y, x) of the typed row and column."""
        index, row, column = self.slider.value, self.row.value, self.column.value
        if self.plane.value == "axial":
            return index, row, column
        z = len(self.case.hu) - 1 - row  # the head is up
        return (z, index, column) if self.plane.value == "coronal" else (z, column, index)

    def _draw(self) -> None:
        name, index = self.plane.value, self.slider.value
        hu = plane(self.case.hu, name, index)
        labels = {source: plane(it, name, index) for source, it in self.case.layers.items()}
        layers = self._layers(labels)
        if self.beside.value and labels:
            parts = [{}, *({n: it for n, it in layers.items() if n.startswith(s)} for s in labels)]
            self.picture = np.hstack([self._render(hu, it, SIDE_BY_SIDE_FRAME) for it in parts])
        else:
            self.picture = self._render(hu, layers, self.frame)
        self.image.value = encode(self.picture)
        self.legend.value = _legend(layers)
        self._write_readout(hu, labels)
        self.frames_drawn += 1

    def _layers(self, labels: Mapping[str, np.ndarray]) -> dict[str, Layer]:
        if self.errors.value != "off" and self.case.compared:
            first = 1 + STRUCTURES.index(self.errors.value)
            return error_layers(labels["prediction"] >= first, labels["reference"] >= first)
        style = {"style": self.style.value, "opacity": self.opacity.value}
        layers = {}
        for source, part in labels.items():
            layers |= label_layers(source, part, **style)
        return {name: layer for name, layer in layers.items() if self.shown[name].value}

    def _render(self, hu: np.ndarray, layers: Mapping[str, Layer], frame: int) -> np.ndarray:
        spacing = plane_spacing(self.case.spacing_mm, self.plane.value)
        zoom = self.zoom.value * frame / max(picture_shape(hu.shape, spacing, 1.0))
        box = self._box(hu.shape)
        picture = render_slice(
            hu,
            window=self.window.value,
            layers=layers,
            spacing_mm=spacing,
            zoom=zoom,
            box=box,
            scale_bar=self.case.trusted,
            edges=EDGE_LETTERS[self.plane.value],
        )
        if self.marked.value:
            mark_point(picture, (self.row.value, self.column.value), box)
        return picture

    def _box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the part that the zoom leaves, around the typed row and column."""
        sizes = [max(1, round(length / self.zoom.value)) for length in shape]
        middles = self.row.value, self.column.value
        starts = [
            min(max(middle - size // 2, 0), length - size)
            for middle, size, length in zip(middles, sizes, shape, strict=True)
        ]
        return (*starts, *sizes)

    def _write_readout(self, hu: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
        row, column = self.row.value, self.column.value
        words = ("background", "liver", "tumor")
        parts = [f"HU {hu[row, column]} at voxel (z, y, x) = {self._voxel()}"]
        parts += [f"{source}: {words[part[row, column]]}" for source, part in labels.items()]
        if self.case.compared:
            pair = labels["prediction"], labels["reference"]
            for structure in STRUCTURES:
                score = slice_dice(*pair, structure)
                parts.append(f"{structure} Dice here {'-' if score is None else f'{score:.3f}'}")
        self.readout.value = html.escape(" · ".join(parts))

    def _write_scores(self) -> None:
        parts = []
        if self.case.compared:
            scores = [f"{it} {self.case.case_dice(it):.3f}" for it in STRUCTURES]
            parts.append("Dice of the case: " + ", ".join(scores))
        if self.case.layers:
            parts.append(f"{len(self.case.lesions)} lesions")
        if self.case.lesions and self.case.trusted:
            sizes = ", ".join(f"{it.diameter_mm:.0f}" for it in self.case.lesions[:12])
            parts.append(f"diameters {sizes} mm")
        if not self.case.trusted:
            parts.append("spacing not trusted: nothing in mm")
        self.scores.value = html.escape(" · ".join(parts))


def _legend(layers: Mapping[str, Layer]) -> str:
    swatch = '<span style="color:rgb{}">&#9632;</span> {}'
    return " &nbsp; ".join(swatch.format(color_of(name), html.escape(name)) for name in layers)
