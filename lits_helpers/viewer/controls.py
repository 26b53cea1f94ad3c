"""The controls of the slice viewer: widgets, their ranges and their places. They decide nothing."""

import ipywidgets as widgets

from ..figures import PLANES, WINDOWS
from ..metrics import FIRST_LABEL

PLAY_INTERVAL_MS = 100
STRUCTURES = tuple(FIRST_LABEL)
OWN_WINDOW = "own"


class Controls:
    """Every widget of the viewer, in `box`; each exists in ipywidgets 7.7.1 and in 8."""

    def __init__(self, cases: list[str]):
        self._make_view(cases)
        self._make_layers()
        self._make_point()
        self.image = widgets.Image(
            format="jpeg", layout={"align_self": "flex-start", "max_width": "100%"}
        )
        self.legend = widgets.HTML()
        self.readout = widgets.HTML()
        self.scores = widgets.HTML()
        self.message = widgets.HTML()
        self.box = self._arranged(len(cases) > 1)

    def drawn(self) -> list[widgets.Widget]:
        """Return the controls whose change only needs a new picture."""
        layers = [self.style, self.opacity, self.errors, self.beside]
        return [self.slider, *layers, self.marked, self.zoom, self.row, self.column]

    def offer_layers(self, names: list[str]) -> None:
        """Give every layer a checkbox; one that was there keeps its state."""
        was = {name: box.value for name, box in self.shown.items()}
        self.shown = {
            name: widgets.Checkbox(value=was.get(name, True), description=name, indent=False)
            for name in names
        }
        self.layer_box.children = tuple(self.shown.values())

    def fit(self, lengths: tuple[int, int, int]) -> None:
        """Give slider, row and column their lengths and put them into the middle."""
        for control, length in zip((self.slider, self.row, self.column), lengths, strict=True):
            control.max = length - 1
            control.value = length // 2
        self.play.max = self.slider.max
        self.play.value = self.slider.value

    def _make_view(self, cases: list[str]) -> None:
        self.case = widgets.Dropdown(options=cases, description="case")
        self.plane = widgets.ToggleButtons(options=PLANES, style={"button_width": "80px"})
        self.slider = widgets.IntSlider(description="slice", layout={"width": "430px"})
        self.play = widgets.Play(interval=PLAY_INTERVAL_MS)
        widgets.jslink((self.play, "value"), (self.slider, "value"))
        presets = [*WINDOWS, OWN_WINDOW]
        self.preset = widgets.Dropdown(options=presets, value="abdomen", description="window")
        self.window = widgets.IntRangeSlider(
            value=[int(level) for level in WINDOWS["abdomen"]],
            min=-1500,
            max=2000,
            step=5,
            description="HU",
            layout={"width": "400px"},
        )

    def _make_layers(self) -> None:
        self.shown = {}  # layer name -> checkbox
        self.layer_box = widgets.HBox()
        self.style = widgets.Dropdown(options=["outline", "fill"], description="layers as")
        self.opacity = widgets.FloatSlider(value=0.4, max=1, step=0.05, description="opacity")
        self.errors = widgets.Dropdown(options=["off", *STRUCTURES], description="error map")
        self.beside = widgets.Checkbox(description="side by side", indent=False)

    def _make_point(self) -> None:
        self.to_largest = widgets.Button(description="largest tumor")
        self.to_next = widgets.Button(description="next lesion")
        self.to_worst = widgets.Button(description="worst slice", tooltip="most wrong voxels")
        self.zoom = widgets.FloatSlider(value=1, min=1, max=8, step=0.5, description="zoom")
        self.row = widgets.BoundedIntText(description="row", layout={"width": "150px"})
        self.column = widgets.BoundedIntText(description="column", layout={"width": "150px"})
        self.marked = widgets.Checkbox(description="mark point", indent=False)

    def _arranged(self, choice: bool) -> widgets.VBox:
        rows = [
            [self.case, self.plane] if choice else [self.plane],
            [self.preset, self.window],
            [self.layer_box],
            [self.style, self.opacity],
            [self.errors, self.beside],
            [self.message],
            [self.image],
            [self.legend],
            [self.slider, self.play],
            [self.to_largest, self.to_next, self.to_worst],
            [self.zoom, self.row, self.column, self.marked],
            [self.readout],
            [self.scores],
        ]
        return widgets.VBox([widgets.HBox(row) if len(row) > 1 else row[0] for row in rows])
