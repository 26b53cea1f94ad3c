"""The picture that answers to pointer and keys, where anywidget is installed."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import ipywidgets as widgets
import traitlets

from .gestures import KEYS

SCRIPT = Path(__file__).with_name("front.js")
STYLE = """
.lits-picture { max-width: 100%; max-height: 420px; min-height: 24px; touch-action: none;
  cursor: crosshair; display: block; }
@media (min-height: 900px) { .lits-picture { max-height: 512px; } }
.lits-picture:focus { outline: 2px solid #1976d2; outline-offset: 1px; }
"""
WITHOUT = "For a picture that answers to mouse and keys: pip install anywidget"


def make_picture(answer: Callable[[Mapping], None], wanted: bool = True) -> widgets.Widget:
    """Return the widget that shows the frames: an anywidget, or `ipywidgets.Image` without it.

    Either has `value`, the bytes of a JPEG.

    Args:
        answer: called with each event of the picture, see `gestures.Gestures`.
        wanted: False takes `ipywidgets.Image`.
    """
    try:
        import anywidget  # in Colab it switches custom widgets on by itself
    except ImportError:
        wanted = False
    if not wanted:
        return widgets.Image(format="jpeg", layout={"max_width": "100%", "max_height": "420px"})
    picture = _picture_class(anywidget.AnyWidget)()
    picture.on_msg(lambda _, event, __: picture.receive(event, answer))
    return picture


@cache
def _picture_class(base: type[widgets.Widget]) -> type[widgets.Widget]:
    class Picture(base):
        """What front.js shows, and how often it was answered."""

        _esm = SCRIPT.read_text(encoding="utf-8")
        _css = STYLE
        value = traitlets.Bytes().tag(sync=True)
        format = traitlets.Unicode("jpeg").tag(sync=True)
        alt = traitlets.Unicode("slice").tag(sync=True)
        taken_keys = traitlets.List(traitlets.Unicode(), list(KEYS)).tag(sync=True)
        answered = traitlets.Int().tag(sync=True)

        def receive(self, event: Mapping, answer: Callable[[Mapping], None]) -> None:
            with self.hold_sync():  # frame and answer are one message
                answer(event)
                self.answered += 1

    return Picture
