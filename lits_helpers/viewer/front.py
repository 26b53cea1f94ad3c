"""The picture that answers to pointer and keys, where anywidget is installed."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import ipywidgets as widgets

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
        picture = _answering_picture()() if wanted else None
    except ImportError:
        picture = None
    if picture is None:
        return widgets.Image(format="jpeg", layout={"max_width": "100%", "max_height": "420px"})

    def receive(_, event, __) -> None:
        with picture.hold_sync():  # frame and answer are one message
            answer(event)
            picture.answered += 1

    picture.on_msg(receive)
    return picture


@cache
def _answering_picture() -> type[widgets.Widget]:
    import anywidget  # in Colab it switches custom widgets on by itself
    import traitlets

    class Picture(anywidget.AnyWidget):
        """What front.js shows, and how often it was answered."""

        _esm = SCRIPT.read_text(encoding="utf-8")
        _css = STYLE
        value = traitlets.Bytes().tag(sync=True)
        format = traitlets.Unicode("jpeg").tag(sync=True)
        alt = traitlets.Unicode("slice").tag(sync=True)
        taken_keys = traitlets.List(traitlets.Unicode(), list(KEYS)).tag(sync=True)
        answered = traitlets.Int().tag(sync=True)

    return Picture
