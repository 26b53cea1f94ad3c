"""The controls of the slice viewer: widgets, their ranges and their places. They decide nothing."""

import html

import ipywidgets as widgets

from ..figures import PLANES, WINDOWS
from ..metrics import FIRST_LABEL

PLAY_INTERVAL_MS = 100
STRUCTURES = tuple(FIRST_LABEL)
OWN_WINDOW = "own"
ONE, THREE, BESIDE = ARRANGEMENTS = ("one plane", "three planes", "layers side by side")
WIDTH = "340px"  # of the column of controls
STYLE = (  # handles that stand out from light and dark pages
    "<style>.lits-viewer .noUi-handle, .lits-viewer .ui-slider-handle"
    " { background: #1976d2 !important; border-color: #1976d2 !important; }</style>"
)
HALF, QUARTER = "166px", "81px"
FITS = {"overflow": "visible"}  # boxes of ipywidgets bring a scrollbar of their own
TIPS = {  # control -> what it does; front ends show "null" where there are no words
    "case": "the case that is shown; it is read when chosen",
    "slider": "slice of the plane",
    "arrangement": "one plane, three linked planes, or every layer beside the CT",
    "to_previous": "the lesion before this place, from the feet to the head",
    "to_next": "the lesion after this place, from the feet to the head",
    "to_largest": "the largest lesion",
    "to_worst": "the axial slice with most wrong voxels",
    "lesions": "lesions, the largest first; choose one to go there",
    "preset": "usual windows",
    "window": "HU shown as black and as white",
    "hide": "hide all layers",
    "style": "layers as outlines or as fills",
    "opacity": "opacity of fills",
    "errors": "false positives and negatives of a structure, in place of the layers",
    "zoom": "enlargement around the point",
    "row": "row of the point in this plane, counted from the top",
    "column": "column of the point in this plane, counted from the left",
    "marked": "mark the point with a cross",
    "ruler": "measure: drag over the picture",
    "position": "number of the slice, counted from 0, and its height above the first",
    "legend": "what the colors mean",
    "readout": "what is at the point",
    "scores": "scores of the case",
    "message": "message",
    "help": "what mouse and keys do in the picture",
    "to_file": "write this picture, at twice its size, beside the notebook",
}


class Controls:
    """Every widget of the viewer, in `box`; each exists in ipywidgets 7.7.1 and in 8.

    Args:
        cases: their names.
        image: the widget of the picture, see `front.make_picture`.
        help_text: how the picture is used.
        answers: whether the picture answers to the pointer.
    """

    def __init__(self, cases: list[str], image: widgets.Widget, help_text: str, answers: bool):
        self._make_view(cases)
        self._make_layers()
        self._make_point()
        self.ruler.disabled = not answers
        self.image = image
        self.legend, self.readout, self.scores, self.message = (widgets.HTML() for _ in range(4))
        self.help = widgets.HTML(
            f"<details><summary>Mouse and keys</summary>{html.escape(help_text)}</details>{STYLE}"
        )
        for name, text in TIPS.items():
            _explain(getattr(self, name), text)
        self.box = self._arranged(len(cases) > 1)
        self.box.add_class("lits-viewer")

    def drawn(self) -> list[widgets.Widget]:
        """Return the controls whose change only needs a new picture."""
        layers = [self.style, self.opacity, self.errors, self.arrangement, self.hide]
        return [*layers, self.marked, self.ruler]

    def tell(self, message: str) -> None:
        """Show a message, HTML; an empty one takes no room."""
        self.message.value = message
        self.message.layout.display = "" if message else "none"

    def typed(self) -> list[widgets.Widget]:
        """Return the controls of the point: slice, row, column."""
        return [self.slider, self.row, self.column]

    def offer_layers(self, names: list[str]) -> None:
        """Give every layer a checkbox; one that was there keeps its state."""
        was = {name: box.value for name, box in self.shown.items()}
        self.shown = {
            name: widgets.Checkbox(
                value=was.get(name, True),
                description=name,
                indent=False,
                layout={"width": HALF, "height": "24px"},
            )
            for name in names
        }
        for name, box in self.shown.items():
            _explain(box, f"show the layer {name}")
        self.layer_box.children = tuple(self.shown.values())

    def fit(self, lengths: tuple[int, int, int], place: tuple[int, int, int]) -> None:
        """Give slider, row and column their lengths and values."""
        slices = [self.slider, self.play]
        if (self.slider.max, self.slider.value) == (lengths[0] - 1, place[0]):
            slices = []  # it was dragged: a late message would pull it back
        groups = slices, [self.row], [self.column]
        for controls, length, at in zip(groups, lengths, place, strict=True):
            # The first two are linked in the browser: at no time may either hold a value outside of
            # the other's range, or the browser cuts it and sends it back.
            for control in controls:
                control.max = max(control.max, length - 1)
            for control in controls:
                control.value = at
            for control in controls:
                control.max = length - 1

    def enable(self, *, tumors: bool, compared: bool, layers: bool) -> None:
        """Disable what would do nothing now."""
        replaced = self.errors.value != "off" and self.arrangement.value != BESIDE
        for box in self.shown.values():
            box.disabled = replaced or self.hide.value
        self.opacity.disabled = self.style.value == "outline" or replaced
        self.style.disabled = replaced or not layers
        self.hide.disabled = not layers
        self.errors.disabled = self.to_worst.disabled = not compared
        for control in (self.to_largest, self.to_next, self.to_previous, self.lesions):
            control.disabled = not tumors

    def _make_view(self, cases: list[str]) -> None:
        self.case = _dropdown(cases, "case", WIDTH)
        self.plane = widgets.ToggleButtons(options=PLANES, style={"button_width": "100px"})
        _explain(self.plane, "the plane that is shown")
        self.plane.tooltips = [f"{name} slices" for name in PLANES]
        self.slider = widgets.IntSlider(
            description="slice", readout=False, layout={"width": "220px"}, style=_narrow("40px")
        )
        self.position = widgets.Label(layout={"width": "116px"})
        self.play = widgets.Play(interval=PLAY_INTERVAL_MS, layout={"width": HALF})
        widgets.jslink((self.play, "value"), (self.slider, "value"))
        self.arrangement = _dropdown(ARRANGEMENTS, "", HALF)
        self.preset = _dropdown([*WINDOWS, OWN_WINDOW], "window", HALF, value="abdomen")
        self.zoom = widgets.FloatSlider(
            value=1,
            min=1,
            max=8,
            step=0.25,
            description="zoom",
            readout=False,
            layout={"width": HALF},
        )
        self.window = widgets.IntRangeSlider(
            value=[int(level) for level in WINDOWS["abdomen"]],
            min=-1500,
            max=2000,
            step=5,
            description="HU",
            layout={"width": WIDTH},
        )
        for control in (self.zoom, self.window):
            control.style = _narrow("40px")

    def _make_layers(self) -> None:
        self.shown = {}  # layer name -> checkbox
        self.layer_box = widgets.HBox(layout={"flex_flow": "row wrap", "width": WIDTH} | FITS)
        self.style = _dropdown(["outline", "fill"], "as", HALF)
        self.opacity = widgets.FloatSlider(
            value=0.4,
            max=1,
            step=0.05,
            description="opacity",
            readout=False,
            layout={"width": HALF},
        )
        self.opacity.style = _narrow("50px")
        self.errors = _dropdown(["off", *STRUCTURES], "errors", "150px")
        self.hide = widgets.ToggleButton(description="hide", layout={"width": "72px"})

    def _make_point(self) -> None:
        for name in ("previous", "next", "largest", "worst"):
            button = widgets.Button(description=name, layout={"width": QUARTER})
            setattr(self, f"to_{name}", button)
        self.lesions = widgets.Select(rows=3, layout={"width": WIDTH})
        self.row, self.column = (
            widgets.BoundedIntText(description=name, layout={"width": width}, style=_narrow(label))
            for name, width, label in (("row", "84px", "26px"), ("column", "108px", "50px"))
        )
        self.marked = widgets.Checkbox(
            value=True, description="cross", indent=False, layout={"width": "60px"}
        )
        self.ruler = widgets.ToggleButton(description="ruler", layout={"width": "64px"})
        self.to_file = widgets.Button(description="save PNG", layout={"width": "104px"})

    def _arranged(self, choice: bool) -> widgets.HBox:
        rows = [
            *([[self.case]] if choice else []),
            [self.plane],
            [self.slider, self.position],
            [self.play, self.arrangement],
            [self.to_previous, self.to_next, self.to_largest, self.to_worst],
            [self.lesions],
            [self.layer_box],
            [self.errors, self.hide, self.to_file],
            [self.style, self.opacity],
            [self.preset, self.zoom],
            [self.window],
            [self.row, self.column, self.marked, self.ruler],
            [self.help],
        ]
        column = [widgets.HBox(row, layout=FITS) if len(row) > 1 else row[0] for row in rows]
        seen = [self.message, self.image, self.legend, self.readout, self.scores]
        sides = [  # where there is no room beside the picture, the controls go below it
            # `align_items`: a stretched picture would lose its aspect
            widgets.VBox(seen, layout={"flex": "1 1 400px", "align_items": "flex-start"} | FITS),
            widgets.VBox(column, layout={"width": "350px", "flex": "0 0 auto"} | FITS),
        ]
        return widgets.HBox(sides, layout={"flex_flow": "row wrap"} | FITS)


def swatch_html(name: str, color: tuple[int, int, int]) -> str:
    """Return a square of a color and the name of what has it."""
    style = f"display:inline-block;width:.8em;height:.8em;border:1px solid;background:rgb{color}"
    return f'<span style="{style}"></span> {html.escape(name)}'


def _dropdown(options, description: str, width: str, **more) -> widgets.Dropdown:
    style = _narrow("50px" if description else "0px")
    return widgets.Dropdown(
        options=options, description=description, layout={"width": width}, style=style, **more
    )


def _narrow(width: str) -> dict[str, str]:
    return {"description_width": width}


def _explain(control: widgets.Widget, text: str) -> None:
    """Give a control its tooltip: `description_tooltip` in ipywidgets 7, except for buttons."""
    old = control.has_trait("description_tooltip") and not control.has_trait("tooltip")
    setattr(control, "description_tooltip" if old else "tooltip", text)
