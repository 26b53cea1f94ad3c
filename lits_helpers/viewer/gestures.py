"""What the pointer and the keys do to the slice viewer."""

from collections.abc import Mapping

from ..figures import PLANES
from .views import Panel

KEYS = {  # of the browser -> slices to move, or what is done
    "ArrowUp": 1,
    "ArrowRight": 1,
    "ArrowDown": -1,
    "ArrowLeft": -1,
    "PageUp": 10,
    "PageDown": -10,
    "Home": -(10**6),
    "End": 10**6,
    " ": "hide",
    "+": "closer",
    "-": "farther",
    "0": "whole",
    "n": "next",
    "p": "previous",
    "l": "largest",
    "w": "worst",
    "r": "ruler",
    "1": "axial",
    "2": "coronal",
    "3": "sagittal",
}
SHIFTED = {"ArrowUp": (-1, 0), "ArrowDown": (1, 0), "ArrowLeft": (0, -1), "ArrowRight": (0, 1)}
ZOOM_STEP = 1.25
HU_ACROSS = 800  # a drag over the whole picture changes the window by so much
HELP = (
    "Click or drag: HU, labels and voxel there. "
    "Wheel, arrows, page keys, Home, End: slices. "
    "Ctrl-wheel, + and -: zoom, 0 the whole slice. "
    "Shift-drag: move the slice. Shift-arrows: move the point. "
    "Right drag: window; to the right wider, down brighter. "
    "Double click: nearest lesion; n, p, l: next, previous, largest. "
    "w: worst slice. r: ruler on and off. Space: hide the layers. 1, 2, 3: planes."
)


class Gestures:
    """Turn events of the picture into moves of a viewer.

    An event has "kind" (down, drag, wheel, zoom, double, key), a place "x", "y" as shares of the
    picture, "dx" and "dy" since the last event, "steps", "button", "shift", "key": some of these.
    """

    def __init__(self, viewer):
        self.viewer = viewer
        self.held: Panel | None = None  # the panel of the drag that is under way

    def take(self, event: Mapping) -> None:
        """Do what an event means."""
        getattr(self, f"_{event['kind']}")(event)

    def _down(self, event: Mapping) -> None:
        self.held = self._panel(event)
        if self.held is None:
            return
        self.viewer.choose_plane(self.held.plane)
        if self.viewer.controls.ruler.value and not event["button"]:
            pixel = self._pixel(event)
            self.viewer.ruler = (self.held.plane, pixel, pixel)
        elif not event["button"] and not event["shift"]:
            self._point(event)

    def _drag(self, event: Mapping) -> None:
        if self.held is None:
            return
        if event["button"] == 2:
            self.viewer.shift_window(-HU_ACROSS * event["dy"], HU_ACROSS * event["dx"])
        elif self.viewer.controls.ruler.value:
            end = self._pixel(event)  # without a ruler, as in a slice stepped to, it begins
            self.viewer.ruler = (*(self.viewer.ruler or (self.held.plane, end))[:2], end)
        elif event["shift"]:
            self.viewer.pan(self.held, event["dy"], event["dx"])
        else:
            self._point(event)

    def _wheel(self, event: Mapping) -> None:
        panel = self._panel(event)
        self.viewer.step(event["steps"], panel.plane if panel else None)

    def _zoom(self, event: Mapping) -> None:
        self.held = self._panel(event)
        if self.held:
            self.viewer.zoom_at(self.held, self._pixel(event), ZOOM_STEP ** event["steps"])

    def _double(self, event: Mapping) -> None:
        self.viewer.go_to_nearest()

    def _key(self, event: Mapping) -> None:
        viewer, controls, meaning = self.viewer, self.viewer.controls, KEYS[event["key"]]
        steps = event.get("steps", 1)
        if event["shift"] and event["key"] in SHIFTED:
            down, right = SHIFTED[event["key"]]
            index, row, column = viewer.place
            viewer.move_in_plane((index, row + steps * down, column + steps * right))
        elif isinstance(meaning, int):
            viewer.step(meaning * steps)
        elif meaning in PLANES:
            viewer.choose_plane(meaning)
        elif meaning in ("hide", "ruler"):
            control = getattr(controls, meaning)
            control.value = not control.value
        elif meaning in ("closer", "farther"):
            viewer.zoom_by(ZOOM_STEP if meaning == "closer" else 1 / ZOOM_STEP)
        elif meaning == "whole":
            viewer.zoom_by(0)
        else:
            getattr(viewer, f"go_to_{meaning}")()

    def _point(self, event: Mapping) -> None:
        row, column = self._pixel(event)
        self.viewer.move_in_plane((self.viewer.place[0], int(row), int(column)), follow=False)

    def _panel(self, event: Mapping) -> Panel | None:
        y, x = self._at(event)
        return next((panel for panel in self.viewer.panels if panel.holds(y, x)), None)

    def _pixel(self, event: Mapping) -> tuple[float, float]:
        """Return the (row, column) under the pointer in the slice that is held."""
        return self.held.pixel(*self._at(event))

    def _at(self, event: Mapping) -> tuple[float, float]:
        rows, columns = self.viewer.picture.shape[:2]
        return event["y"] * rows, event["x"] * columns
