r"""Draw the two systems as SVG: generator, critic and losses; encoder, decoder and cascade.

    python docs/draw_systems.py

Notebooks 02 and 03 show the files; they lie in the module, which is on every machine that runs a
notebook. The slices in them are of a phantom.
"""

import base64
import sys
from html import escape
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers import figures
from lits_helpers.figures import PALETTE, Layer, label_layers, render_slice
from lits_helpers.figures.drawing import mask_box
from lits_helpers.machine import written_whole
from lits_helpers.models import REGNET_CHANNELS
from lits_helpers.phantom import make_phantom
from lits_helpers.recipes import LIVER_RECIPES, TUMOR_RECIPES
from lits_helpers.volumes import window_to_uint8

FOLDER = Path(figures.__file__).parent
SEED, SHAPE = 1, (14, 256, 256)  # few slices: one is drawn
INK, GREY, PAPER = "#1d2733", "#5c6773", "#ffffff"
PREDICTED, REFERENCE, TUMOR = (
    "#{:02x}{:02x}{:02x}".format(*PALETTE[name])
    for name in ("predicted liver", "reference liver", "predicted tumor")
)
ENCODER_SIZES = ("1/2", "1/4", "1/8", "1/16", "1/32")  # of system B, of the slice
DECODER_SIZES = ("1/16", "1/8", "1/4", "1/2", "1/1")
DECODERS = ("original: 256, 128, 64, 32, 16 channels", "default: 128, 64, 32, 16, 8")
PIXELS = 96  # of the small pictures


class Drawing:
    """An SVG that grows by boxes, arrows, words and small pictures, on a white card.

    Args:
        width, height: of the drawing.
        title: what a screen reader says.
    """

    def __init__(self, width: int, height: int, title: str):
        self.size = width, height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" style="max-width:100%;height:auto" role="img" '
            'font-family="Helvetica, Arial, sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
        ]

    def text(self, x, y, words: str, *, size=14, color=INK, anchor="start", bold=False) -> None:
        """Write a line; `_{...}` is lowered, `*...*` is slanted."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
            f"{weight}>{_spans(words)}</text>"
        )

    def pair(self, x, y, recipe: str, words: str) -> None:
        """Write what a recipe does, beside its name."""
        self.text(x, y, recipe, color=GREY)
        self.text(x + 66, y, words)

    def notes(self, x, y, *lines: str) -> None:
        """Write small grey lines around x, from y on down."""
        for i, line in enumerate(lines):
            self.text(x, y + 18 * i, line, size=12, color=GREY, anchor="middle")

    def box(self, x, y, width, height, color: str, words=(), *, light=False, size=13) -> None:
        """Draw a box with lines of words in its middle."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{color}" '
            f'fill-opacity="{0.18 if light else 1}" stroke="{color}"/>'
        )
        first = y + height / 2 + 5 - 8.5 * (len(words) - 1)
        for i, line in enumerate(words):
            ink = INK if light or color in (PREDICTED, TUMOR) else PAPER
            self.text(x + width / 2, first + 17 * i, line, size=size, anchor="middle", color=ink)

    def arrow(self, *points, dashed=False, tip=True) -> None:
        """Draw a line through points, with a tip at its end."""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        end = ' marker-end="url(#tip)"' if tip else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="1.6"{dash}{end}/>'
        )

    def picture(self, x, y, side, rgb: np.ndarray, words: str) -> None:
        """Show a small picture with a line below it."""
        small = cv2.resize(rgb, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
        done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        assert done
        code = base64.b64encode(data.tobytes()).decode()
        self.parts.append(
            f'<image x="{x}" y="{y}" width="{side}" height="{side}" '
            f'href="data:image/jpeg;base64,{code}"/>'
        )
        self.text(x + side / 2, y + side + 16, words, size=13, anchor="middle")

    def write(self, path: Path) -> None:
        """Write the file."""
        with written_whole(path) as temporary:
            temporary.write_text("\n".join([*self.parts, "</svg>\n"]), encoding="utf-8")


def _spans(words: str) -> str:
    """Return words as SVG: what is between `*` slanted, what is in `_{}` lowered."""
    lowered = escape(words).replace("_{", '<tspan dy="4" font-size="75%">')
    lowered = lowered.replace("}", '</tspan><tspan dy="-4">\u200b</tspan>')
    parts = lowered.split("*")
    return "".join(
        f'<tspan font-style="italic">{part}</tspan>' if i % 2 else part
        for i, part in enumerate(parts)
    )


def liver_gan(slices: dict[str, np.ndarray]) -> Drawing:
    """Return the drawing of system A."""
    original, default = LIVER_RECIPES["original"], LIVER_RECIPES["default"]
    made = Drawing(1000, 604, "Generator, critic and losses of the liver GAN")
    made.text(24, 36, "System A: the liver GAN", size=18, bold=True)
    for shift in (8, 4):
        made.box(24 + shift, 68 - shift, 100, 100, GREY, light=True)
    made.picture(24, 68, 100, slices["slice"], "slice *x*, neighbours")
    made.arrow((130, 118), (156, 118))
    encoder = [(160, 100, "w"), (208, 78, "2w"), (256, 58, "4w"), (304, 42, "8w")]
    decoder = [(360, 58, "4w"), (408, 78, "2w"), (456, 100, "w"), (504, 118, "1")]
    for x, height, words in [*encoder, *decoder]:
        made.box(x, 118 - height / 2, 40, height, PREDICTED, [words], light=True)
    for (x, height, _), (to, *_) in zip(encoder[:3], decoder[2::-1], strict=True):
        top = 112 - height / 2
        made.arrow((x + 20, top + 4), (x + 20, top - 2), (to + 20, top - 2), (to + 20, top + 4),
                   dashed=True)  # fmt: skip
    for x, size in zip(range(180, 525, 48), ["1/2", "1/4", "1/8", "1/16"], strict=False):
        made.text(x, 194, size, size=12, color=GREY, anchor="middle")
    for x, size in zip((380, 428, 476, 524), ("1/8", "1/4", "1/2", "1/1"), strict=True):
        made.text(x, 194, size, size=12, color=GREY, anchor="middle")
    made.text(352, 216, "generator", size=15, anchor="middle", bold=True)
    widths = f"w = {original.width} channels in original, {default.width} in default"
    made.notes(352, 234, f"{widths}; dashed: default only")
    made.arrow((548, 118), (574, 118))
    made.picture(578, 68, 100, slices["predicted"], "predicted mask *p*")
    made.picture(704, 68, 100, slices["reference"], "reference mask *m*")
    made.arrow((808, 118), (834, 118))
    made.box(838, 76, 140, 84, INK, ["mask losses", "compare *p* and *m*", "pixel by pixel"])
    _critic(made, slices)
    made.box(24, 418, 952, 170, GREY, light=True)
    _liver_losses(made, original, default)
    return made


def _critic(made: Drawing, slices: dict[str, np.ndarray]) -> None:
    """Draw the critic and what it compares."""
    made.arrow((628, 188), (628, 252), (74, 252), (74, 272), dashed=False)
    made.arrow((754, 188), (754, 260), (200, 260), (200, 272))
    made.picture(24, 276, 100, slices["seen"], "*x p*")
    made.picture(150, 276, 100, slices["wanted"], "*x m*")
    made.arrow((256, 326), (282, 326))
    layers = [(286, 96), (344, 76), (402, 56), (460, 40)]
    for number, (x, height) in enumerate(layers, 1):
        made.box(x, 326 - height / 2, 46, height, GREY, [f"*f*_{{{number}}}"], light=True)
        if number > 1:
            made.arrow((x - 12, 326), (x - 1, 326))
    made.text(396, 392, "critic", size=15, anchor="middle", bold=True)
    made.notes(396, 408, "the same for both; original has three layers")
    made.arrow((510, 326), (550, 326))
    words = ["features of every layer,", "averaged to 8 x 8,", "of *x p* and of *x m*"]
    made.box(554, 286, 210, 80, GREY, words, light=True)
    made.arrow((768, 326), (834, 326))
    made.box(838, 286, 140, 80, INK, ["feature loss", "compares what", "the critic sees"])


def _liver_losses(made: Drawing, original, default) -> None:
    """Write the formulas, and who makes which small."""
    formulas = [
        "*L*_{pixel} = mean | *p* − *m* |",
        "*L*_{feature} = mean over *k* of mean | *f*_{k}(*x p*) − *f*_{k}(*x m*) |",
        "*L*_{entropy} = − mean ( *m* log *p* + (1 − *m*) log (1 − *p*) )",
        "*L*_{Dice} = 1 − (2 Σ *p m* + 1) / (Σ *p* + Σ *m* + 1), slice by slice",
    ]
    for i, formula in enumerate(formulas):
        made.text(44, 452 + 34 * i, formula, size=15)
    made.text(560, 446, "generator makes small", bold=True)
    made.pair(560, 470, "original", f"*L*_{{pixel}} + {original.feature_weight:g} *L*_{{feature}}")
    parts = f"*L*_{{pixel}} + *L*_{{entropy}} + *L*_{{Dice}} + {default.feature_weight:g}"
    made.pair(560, 494, "default", f"{parts} *L*_{{feature}}")
    made.text(560, 528, "critic makes", bold=True)
    made.pair(560, 552, "original", "*L*_{feature} small too")
    made.pair(560, 576, "default", "it large, its layers bounded (spectral norm)")


def tumor_regnet(slices: dict[str, np.ndarray]) -> Drawing:
    """Return the drawing of system B."""
    original, default = TUMOR_RECIPES["original"], TUMOR_RECIPES["default"]
    made = Drawing(1000, 640, "Cascade, encoder, decoder and loss of the tumor RegNet")
    made.text(24, 36, "System B: the tumor RegNet, behind system A", size=18, bold=True)
    made.picture(24, 62, 110, slices["liver"], "liver of system A")
    made.arrow((138, 117), (162, 117))
    low, high = (f"{value:+g}".replace("-", "−") for value in default.spec.window)
    words = [
        "box around the liver,",
        f"widened by {100 * default.spec.liver_margin:g} %;",
        "grey levels from",
    ]
    words += [f"{low} to {high} HU around", "the liver's median"]
    made.box(166, 66, 172, 102, GREY, words, light=True)
    made.arrow((342, 117), (366, 117))
    for shift in (8, 4):
        made.box(370 + shift, 62 - shift, 110, 110, GREY, light=True)
    made.picture(370, 62, 110, slices["crop"], "slice and its neighbours")
    made.arrow((490, 117), (514, 117))
    made.box(518, 76, 108, 82, TUMOR, ["encoder", "and decoder", "(below)"], light=True)
    made.arrow((630, 117), (654, 117))
    words = ["probability of", "0.5 or more, in", "the liver or at", "most 5 mm off"]
    made.box(658, 72, 140, 90, GREY, words, light=True)
    made.arrow((802, 117), (826, 117))
    made.picture(830, 62, 110, slices["labels"], "labels 0, 1, 2")
    _regnet(made)
    made.box(24, 478, 952, 146, GREY, light=True)
    _tumor_losses(made, original, default)
    return made


def _regnet(made: Drawing) -> None:
    """Draw the encoder, the decoder, and the ways past the depth."""
    middle = 306
    encoder = list(zip(range(60, 420, 72), (120, 96, 74, 56, 42), REGNET_CHANNELS, strict=True))
    decoder = list(zip(range(492, 850, 72), (56, 74, 96, 120, 140), DECODER_SIZES, strict=True))
    made.arrow((28, middle), (56, middle))
    for (x, height, channels), size in zip(encoder, ENCODER_SIZES, strict=True):
        made.box(x, middle - height / 2, 56, height, GREY, [f"{channels}"], light=True)
        made.notes(x + 28, 394, size)
    made.arrow((408, middle), (488, middle))
    for x, height, size in decoder:
        made.box(x, middle - height / 2, 56, height, TUMOR, light=True)
        made.notes(x + 28, 394, size)
    for (x, height, _), (to, high, _) in zip(encoder[3::-1], decoder, strict=False):
        top = middle - max(height, high) / 2 - 8
        made.arrow((x + 28, middle - height / 2), (x + 28, top), (to + 28, top),
                   (to + 28, middle - high / 2), dashed=True)  # fmt: skip
    made.arrow((852, middle), (884, middle))
    made.text(888, middle - 4, "tumor")
    made.text(888, middle + 14, "probability *p*")
    made.text(24, middle - 12, "slice", size=13)
    made.text(232, 416, "encoder: RegNetY-400MF", size=15, anchor="middle", bold=True)
    made.notes(
        232, 436, "channels and size of its five stages", "it begins with weights of ImageNet"
    )
    made.text(664, 416, "decoder", size=15, anchor="middle", bold=True)
    made.notes(664, 436, DECODERS[0], f"{DECODERS[1]}, and the dashed lines")


def _tumor_losses(made: Drawing, original, default) -> None:
    """Write the formulas, and what each recipe makes small."""
    made.text(44, 512, "*L*_{entropy} = − mean ( *t* log *p* + (1 − *t*) log (1 − *p*) )", size=15)
    made.text(44, 546, "*L*_{Dice} = 1 − (2 Σ *p t* + 1) / (Σ *p* + Σ *t* + 1)", size=15)
    made.text(44, 580, "*t*: the reference tumor, 0 or 1 in each pixel", color=GREY)
    made.text(44, 604, f"original: {original.spec.size} x {original.spec.size} pixels of the whole "
              "slice, three times the same", color=GREY)  # fmt: skip
    made.text(560, 506, "the network makes small", bold=True)
    made.pair(560, 530, "original", "*L*_{entropy}, over the whole slice")
    made.pair(560, 554, "default", "*L*_{entropy} + *L*_{Dice}, in the liver and 8 pixels around,")
    share = "half" if default.dice_per_image == 0.5 else f"{default.dice_per_image:.0%}"
    made.text(626, 576, f"*L*_{{Dice}} {share} slice by slice, the rest over the batch")
    made.text(626, 604, "in an epoch every tumor slice, and as many others")


def pictures() -> dict[str, np.ndarray]:
    """Return the small pictures, (H, W, 3) uint8 each, of a phantom and a displaced mask."""
    hu, labels, _ = make_phantom(SEED, SHAPE)
    k = int((labels == 2).sum(axis=(1, 2)).argmax())
    part = _square(labels[k] > 0, margin=0.7)
    plane, labels = hu[k][part], labels[k][part]
    liver = labels > 0
    moved = np.roll(liver, (3, -4), (0, 1))
    grey = window_to_uint8(plane, (-200, 300))
    around = float(np.median(plane[liver]))
    near = window_to_uint8(plane, (around - 100, around + 100))[_square(liver, margin=0.1)]
    outline = {"liver": Layer(liver, PALETTE["predicted liver"], thickness=3)}
    fills = label_layers("predicted", labels, style="fill", opacity=0.6)
    return {
        "slice": _rgb(grey),
        "predicted": moved[..., None] * np.uint8(PALETTE["predicted liver"]),
        "reference": liver[..., None] * np.uint8(PALETTE["reference liver"]),
        "seen": _rgb(grey * moved),
        "wanted": _rgb(grey * liver),
        "liver": render_slice(plane, layers=outline),
        "crop": _rgb(near),
        "labels": render_slice(plane, layers=fills),
    }


def _square(mask: np.ndarray, margin: float) -> tuple[slice, slice]:
    """Return the square around a mask, wider by a share of its side, within the slice."""
    top, left, height, width = mask_box(mask, margin=margin)
    side = min(max(height, width), *mask.shape)
    starts = (top + (height - side) // 2, left + (width - side) // 2)
    starts = (min(max(start, 0), n - side) for start, n in zip(starts, mask.shape, strict=True))
    return tuple(slice(start, start + side) for start in starts)


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)


def main() -> None:
    """Write both drawings."""
    slices = pictures()
    liver_gan(slices).write(FOLDER / "liver-gan.svg")
    tumor_regnet(slices).write(FOLDER / "tumor-regnet.svg")


if __name__ == "__main__":
    main()
