"""Make docs/images/way.svg, the README's drawing of the data's way.

    python docs/make_way.py

Boxes bring their own ground and lines are mid-grey, so that it reads on white and on dark pages.
"""

from html import escape
from pathlib import Path

DRAWING = Path(__file__).parent / "images" / "way.svg"
WIDTH, HEIGHT = 900, 532
GREY = "#808890"  # lines: 3.6 to 1 on white, 5.3 to 1 on GitHub's dark ground
INK = "#1b2733"
DATA, LIVER, TUMOR, RESULT = "#e6ebf0", "#f3c9ba", "#f7e7a9", "#bfe3f2"
FONT = "font-family='Segoe UI, Helvetica, Arial, sans-serif'"
# (x, y, width, height, ground, title, line below)
BOXES = (
    (20, 16, 200, 62, DATA, "LiTS", "Kaggle, or MSD without account"),
    (240, 16, 200, 62, DATA, "Your folder", "NIfTI or DICOM, read in place"),
    (460, 16, 200, 62, DATA, "Generated patients", "made on the spot"),
    (
        20,
        136,
        640,
        62,
        DATA,
        "Prepared cases",
        "HU and labels at native size, lossless; split by patient",
    ),
    (20, 256, 310, 62, LIVER, "A: liver GAN", "a generator against a critic of features"),
    (350, 256, 310, 62, TUMOR, "B: tumor RegNet", "an encoder from ImageNet, in the liver's box"),
    (700, 256, 180, 62, LIVER, "Liver weights", "come with the project"),
    (700, 136, 180, 62, DATA, "Any CT", "a file, a folder, a zip"),
    (
        20,
        366,
        860,
        52,
        RESULT,
        "Labels: 0 background, 1 liver, 2 tumor",
        "in the CT's own geometry",
    ),
    (20, 458, 200, 58, RESULT, "Files", "NIfTI, DICOM SEG, STL"),
    (240, 458, 200, 58, RESULT, "Report", "one page, how far to trust it"),
    (460, 458, 200, 58, RESULT, "Scores", "Dice, lesions, mm, intervals"),
    (680, 458, 200, 58, RESULT, "Pictures", "viewer, figures, surface"),
)
# (from x, y, to x, y, words on the way)
ARROWS = (
    (120, 78, 120, 136, ""),
    (340, 78, 340, 136, "check, turn, pack"),
    (560, 78, 560, 136, ""),
    (175, 198, 175, 256, "train"),
    (505, 198, 505, 256, "train"),
    (175, 318, 175, 366, "segment"),
    (505, 318, 505, 366, "segment"),
    (790, 198, 790, 256, "read, check"),
    (790, 318, 790, 366, "segment"),
    (120, 418, 120, 458, ""),
    (340, 418, 340, 458, ""),
    (560, 418, 560, 458, ""),
    (780, 418, 780, 458, ""),
)


def box(x: int, y: int, width: int, height: int, ground: str, title: str, line: str) -> str:
    """Return a box with a title and a line below it."""
    middle = x + width / 2
    return (
        f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='8' fill='{ground}' "
        f"stroke='{GREY}'/>"
        f"<text x='{middle:g}' y='{y + height / 2 - 4:g}' font-size='16' font-weight='600'>"
        f"{escape(title)}</text>"
        f"<text x='{middle:g}' y='{y + height / 2 + 16:g}' font-size='13'>{escape(line)}</text>"
    )


def arrow(x: int, y: int, to_x: int, to_y: int, words: str) -> str:
    """Return an arrow downwards, with words on a ground of their own."""
    line = (
        f"<path d='M{x} {y} L{to_x} {to_y - 8}' stroke='{GREY}' stroke-width='2'/>"
        f"<path d='M{to_x - 6} {to_y - 10} h12 l-6 9 z' fill='{GREY}'/>"
    )
    if not words:
        return line
    width, middle = 8 * len(words) + 14, (y + to_y) / 2 - 4
    return line + (
        f"<rect x='{x - width / 2:g}' y='{middle - 10:g}' width='{width}' height='20' rx='10' "
        f"fill='#ffffff' stroke='{GREY}'/>"
        f"<text x='{x}' y='{middle + 4.5:g}' font-size='13'>{escape(words)}</text>"
    )


def drawing() -> str:
    """Return the drawing as SVG."""
    parts = [arrow(*one) for one in ARROWS] + [box(*one) for one in BOXES]
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' "
        f"width='{WIDTH}' height='{HEIGHT}' role='img'>"
        "<title>From CTs to labels, reports, scores and pictures</title>"
        f"<g {FONT} fill='{INK}' text-anchor='middle'>"
    )
    return "\n".join([head, *parts, "</g></svg>"]) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
    print(DRAWING)
