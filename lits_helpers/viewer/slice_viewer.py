"""A slice viewer of ipywidgets, the same on 7.7.1 (Colab) and 8.

`figures/drawing.py` makes its pictures. Each move is drawn while its message is handled. A browser
sends a slider's next position only after that, so a fast drag skips slices and none queue up.
"""

import html
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from IPython.display import Image, display

from ..figures import PLANES, WINDOWS, Layer, encode, encode_frame, montage_image, plane, with_key
from ..machine import written_whole
from ..metrics import slice_dice
from . import views
from .browsing import BrowsedCase, Voxel, browse, case_summary, lesion_lines
from .composing import Composer
from .controls import OWN_WINDOW, STRUCTURES, Controls, swatch_html
from .front import WITHOUT, make_picture
from .gestures import HELP, Gestures

FRAME = 512  # longer side of the picture, pixels
ERROR_STYLE = "color:#fff;background:#9b1c1c;padding:2px 6px"
EMPTY = encode(np.full((64, FRAME), 128, np.uint8))  # shown while there is no case


class SliceViewer:
    """Look through a volume in a notebook: put it on the last line of a cell.

    With anywidget the picture answers to mouse and keys; without it the typed fields do the same.

    Args:
        volume: a `volumes.Volume`, None where there are labels only, or a dict to choose from: name
            -> (volume, layers[, uncertainty[, notes]]), or name -> function without arguments that
            returns such a tuple when the case is chosen.
        layers: of a single volume: source -> labels (Z, Y, X) 0/1/2. With the sources "reference"
            and "prediction" there are scores and an error map.
        uncertainty: of a single volume: (Z, Y, X), 0 certain to 1, see `uncertainty_of`; a layer of
            its own where it is 0.5 or more.
        notes: of a single volume: sentences to show above the scores, such as flags.
        frame: longer side of the picture, pixels.
        static: also show a montage below, for places that show no widgets.
        answers: False leaves anywidget out.

    Attributes:
        controls: the widgets; `controls.box` is the whole viewer.
        case: the case that is shown.
        voxel: the point (z, y, x) where all planes meet.
        picture: the last picture drawn, (H, W, 3) uint8.
        panels: where its slices are.
        ruler: (plane, start, end) of what is measured, (row, column) each, or None.
        frames_drawn: how many pictures were drawn.

    Raises:
        ValueError: a volume or layer of the wrong shape, or no case.
    """

    def __init__(
        self,
        volume,
        layers: Mapping[str, np.ndarray] | None = None,
        *,
        uncertainty: np.ndarray | None = None,
        notes: Sequence[str] = (),
        frame: int = FRAME,
        static: bool = True,
        answers: bool = True,
    ):
        given = {"case": (volume, layers, uncertainty, notes)}
        self.cases = volume if isinstance(volume, Mapping) else given
        if not self.cases:
            raise ValueError("no case to show: give a volume or a dict of name -> (volume, layers)")
        self.frame, self.static = frame, static
        self.frames_drawn = 0
        self.case = self.ruler = None
        self._quiet = False
        self._composer = Composer(self)
        self._gestures = Gestures(self)
        image = make_picture(self.take, answers)
        answers = image.has_trait("answered")
        self.controls = Controls(list(self.cases), image, HELP if answers else WITHOUT, answers)
        if len(self.cases) > 1:
            self._callback(self._open)(None)
        else:  # nothing else could be shown
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

    @property
    def place(self) -> tuple[int, int, int]:
        """The point as (slice, row, column) of the chosen plane."""
        return self.place_in(self.controls.plane.value)

    def take(self, event: Mapping) -> None:
        """Do what pointer or keys did in the picture, and draw; see `gestures.Gestures`."""
        self._callback(lambda: self._gestures.take(event))(event)

    def move_to(self, voxel: Voxel, *, follow: bool = True) -> None:
        """Move the point; what lies outside is moved to the edge.

        Args:
            follow: an enlarged plane that no longer shows the point is moved along.
        """
        shape = self._opened().hu.shape
        inside = [min(max(int(at), 0), n - 1) for at, n in zip(voxel, shape, strict=True)]
        if (
            self.ruler
            and self.place_in(self.ruler[0])[0] != self.place_in(self.ruler[0], tuple(inside))[0]
        ):
            self.ruler = None  # it was measured in another slice
        self.voxel = tuple(inside)
        for name in PLANES if follow else ():
            top, left, height, width = self.box(name)
            _, row, column = self.place_in(name)
            if not (top <= row < top + height and left <= column < left + width):
                self.centers[name] = row, column
        self._show_place()

    def move_in_plane(self, place: tuple[int, int, int], *, follow: bool = True) -> None:
        """Move the point to (slice, row, column) of the chosen plane."""
        shape = self._lengths(self.controls.plane.value)
        place = tuple(min(max(at, 0), n - 1) for at, n in zip(place, shape, strict=True))
        voxel = views.from_plane(place, self.controls.plane.value, len(self._opened().hu))
        self.move_to(voxel, follow=follow)

    def step(self, slices: int, name: str | None = None) -> None:
        """Move by slices of a plane, the chosen one if None."""
        name = name or self.controls.plane.value
        index, row, column = self.place_in(name)
        index = min(max(index + slices, 0), self._lengths(name)[0] - 1)
        self.move_to(views.from_plane((index, row, column), name, len(self.case.hu)))

    def choose_plane(self, name: str) -> None:
        """Choose a plane; the point stays."""
        self.controls.plane.value = name
        self._show_place()

    def zoom_by(self, factor: float) -> None:
        """Enlarge all planes by a factor around the point; 0 shows them whole."""
        self._set_zoom(factor)
        self._center()

    def zoom_at(self, panel: views.Panel, pixel: tuple[float, float], factor: float) -> None:
        """Enlarge a plane by a factor; the pixel (row, column) of its slice stays where it is."""
        top, left, height, width = panel.box
        before = self.controls.zoom.value
        self._set_zoom(factor)
        ratio = before / self.controls.zoom.value
        middles = top + height / 2, left + width / 2
        self.centers[panel.plane] = tuple(
            at + (middle - at) * ratio for at, middle in zip(pixel, middles, strict=True)
        )

    def pan(self, panel: views.Panel, down: float, right: float) -> None:
        """Move an enlarged slice, by shares of the picture."""
        top, left, height, width = self.box(panel.plane)
        rows, columns = self.picture.shape[:2]
        self.centers[panel.plane] = (
            top + height / 2 - down * rows * height / panel.shape[0],
            left + width / 2 - right * columns * width / panel.shape[1],
        )

    def shift_window(self, level: float, width: float) -> None:
        """Move the window's middle and widen it, HU."""
        control = self.controls.window
        low, high = control.value
        width = max(high - low + width, 1)
        middle = (low + high) / 2 + level
        ends = (round(middle - width / 2), round(middle + width / 2))
        control.value = tuple(min(max(end, control.min), control.max) for end in ends)
        self._leave_preset()

    def go_to_largest(self) -> None:
        """Go to the largest lesion."""
        self.move_to(self._opened().largest_lesion().center)

    def go_to_next(self) -> None:
        """Go to the next lesion, from the feet to the head, and around."""
        self.move_to(self._opened().next_lesion(self.voxel).center)

    def go_to_previous(self) -> None:
        """Go to the lesion before."""
        self.move_to(self._opened().next_lesion(self.voxel, -1).center)

    def go_to_nearest(self) -> None:
        """Go to the lesion whose center is nearest to the point."""
        self.move_to(self._opened().nearest_lesion(self.voxel).center)

    def go_to_worst(self) -> None:
        """Go to the axial slice in which most is wrong, of the tumor where its errors are shown."""
        chosen = self.controls.errors.value
        index = self._opened().worst_slice(chosen if chosen in STRUCTURES else "liver")
        self.controls.plane.value = "axial"
        self.move_to((index, *self.voxel[1:]))

    def save(self, path: str | os.PathLike | None = None) -> Path:
        """Write the picture with its key as PNG, at twice its size.

        Args:
            path: None takes a name of case, plane and slice in the working folder.
        """
        picture, _, layers = self._composer.compose(2 * self.frame)
        name = f"{self.controls.case.value}-{self.controls.plane.value}-{self.place[0]}.png"
        path = Path(path or re.sub(r"[^\w.-]", "_", name))
        names = dict.fromkeys(name for panel in layers for name in panel)
        with written_whole(path, lasting=False) as temporary:
            temporary.write_bytes(encode(with_key(picture, names), "png"))
        return path

    def _listen(self) -> None:
        controls = self.controls
        for control in controls.drawn():
            control.observe(self._callback(), "value")
        for control in controls.typed():
            control.observe(self._callback(self._take_typed), "value")
        controls.case.observe(self._callback(self._open), "value")
        controls.plane.observe(self._callback(self._show_place), "value")
        controls.zoom.observe(self._callback(self._center), "value")
        controls.lesions.observe(self._callback(self._take_lesion), "value")
        controls.preset.observe(self._callback(self._take_preset), "value")
        controls.window.observe(self._callback(self._leave_preset), "value")
        for name in ("largest", "next", "previous", "worst"):
            button = getattr(controls, f"to_{name}")
            button.on_click(self._callback(getattr(self, f"go_to_{name}")))
        controls.to_file.on_click(self._callback(lambda: f"saved {self.save()}"))

    def _callback(self, action: Callable[[], str | None] = lambda: None) -> Callable:
        """Return what a widget calls: run an action, which may move other controls, and draw once.

        What the action returns is shown, and so is an error: a front end would drop it silently.
        """

        def call(_event) -> None:
            if self._quiet:
                return
            self._quiet = True
            try:
                said = action()
                self._draw()
            except Exception as error:
                text = html.escape(f"{type(error).__name__}: {error}")
                self.controls.tell(f'<b style="{ERROR_STYLE}">{text}</b>')
            else:
                self.controls.tell(html.escape(said or ""))
            finally:
                self._quiet = False

        return call

    def _take_typed(self) -> None:
        self.move_in_plane(tuple(control.value for control in self.controls.typed()))

    def _take_lesion(self) -> None:
        chosen = self.controls.lesions.value
        if chosen is not None:
            self.move_to(self._opened().lesions[chosen].center)

    def _take_preset(self) -> None:
        chosen = self.controls.preset.value
        if chosen != OWN_WINDOW:
            self.controls.window.value = WINDOWS[chosen]

    def _leave_preset(self) -> None:
        self.controls.preset.value = OWN_WINDOW

    def _open(self) -> None:
        """Let the former case go, then open the chosen one: two could fill the memory."""
        self.case = self.ruler = None
        controls = self.controls
        controls.image.value = EMPTY
        for text in (controls.legend, controls.readout, controls.scores):
            text.value = ""
        entry = self.cases[controls.case.value]
        self.case = browse(*(entry() if callable(entry) else entry))
        controls.offer_layers(self.case.layer_names)
        for box in controls.shown.values():
            box.observe(self._callback(), "value")
        lines = lesion_lines(self.case)
        controls.lesions.options = [(line, index) for index, line in enumerate(lines)]
        self.voxel = self.case.start
        self._center()
        self._show_place()
        lines = *self.case.notes, case_summary(self.case)
        controls.scores.value = lines_html("<br>".join(html.escape(line) for line in lines))

    def _opened(self) -> BrowsedCase:
        if self.case is None:
            raise ValueError(f"case {self.controls.case.value} could not be opened: choose another")
        return self.case

    def place_in(self, name: str, voxel: Voxel | None = None) -> tuple[int, int, int]:
        """Return the point, or another voxel, as (slice, row, column) of a plane."""
        return views.in_plane(voxel or self.voxel, name, len(self._opened().hu))

    def _lengths(self, name: str) -> tuple[int, int, int]:
        """Return how many slices, rows and columns a plane has."""
        hu = self._opened().hu
        return (hu.shape[PLANES.index(name)], *plane(hu, name, 0).shape)

    def _show_place(self) -> None:
        """Let slider, row, column and the list of lesions show the point."""
        controls = self.controls
        name = controls.plane.value
        controls.fit(self._lengths(name), self.place)
        index, count = self.place[0], self._lengths(name)[0]
        height = index * self.case.spacing_mm[PLANES.index(name)]
        unit = f" · {height:.0f} mm" if self.case.trusted else ""
        controls.position.value = f"{index} / {count - 1}{unit}"
        controls.lesions.value = self.case.lesion_at(self.voxel)

    def _center(self) -> None:
        self.centers = {name: self.place_in(name)[1:] for name in PLANES}

    def _set_zoom(self, factor: float) -> None:
        control = self.controls.zoom
        control.value = min(max(control.value * factor, control.min), control.max)

    def box(self, name: str) -> tuple[int, int, int, int]:
        """Return the part of a plane's slice that is shown, (top, left, height, width)."""
        return views.box_around(
            self.centers[name], self._lengths(name)[1:], self.controls.zoom.value
        )

    def _draw(self) -> None:
        controls, case = self.controls, self._opened()
        controls.enable(
            tumors=bool(case.lesions), compared=case.compared, layers=bool(case.layer_names)
        )
        self.picture, self.panels, layers = self._composer.compose(self.frame)
        controls.image.value = encode_frame(self.picture)
        controls.image.alt = f"{controls.plane.value} slice {controls.position.value}"
        controls.legend.value = lines_html(legend_html(layers))
        controls.readout.value = lines_html(html.escape(self._readout()))
        self.frames_drawn += 1

    def _readout(self) -> str:
        case, voxel = self.case, self.voxel
        words = ("background", "liver", "tumor")
        hu = f"HU {case.hu[voxel]} at voxel" if case.has_ct else "voxel"
        parts = [f"{hu} (z, y, x) = {voxel}"]
        parts += [f"{source}: {words[labels[voxel]]}" for source, labels in case.layers.items()]
        if case.uncertainty is not None:
            parts.append(f"uncertainty {case.uncertainty[voxel]:.2f}")
        if case.compared:
            parts.append("Dice of this slice: " + ", ".join(self._slice_scores()))
        low, high = self.controls.window.value
        if low == high:
            parts.append(f"the window is one HU wide: black up to {low}, white above")
        return " · ".join(parts)

    def _slice_scores(self) -> list[str]:
        sides = (self.case.layers[name] for name in ("prediction", "reference"))
        name = self.controls.plane.value
        cut = [plane(labels, name, self.place[0]) for labels in sides]
        scores = {name: slice_dice(*cut, name) for name in STRUCTURES}
        return [f"{n} {'-' if score is None else f'{score:.3f}'}" for n, score in scores.items()]


def legend_html(panels: Iterable[Mapping[str, Layer]]) -> str:
    """Return the names of all layers, each once and with a square of its color."""
    colors = {name: layer.color for layers in panels for name, layer in layers.items()}
    return " &nbsp; ".join(swatch_html(name, color) for name, color in colors.items())


def lines_html(text: str) -> str:
    """Return text as HTML, its lines closer than a control's; an empty text stays empty."""
    return f'<div style="line-height:1.4">{text}</div>' if text else ""
