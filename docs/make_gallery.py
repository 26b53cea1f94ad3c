r"""Make the pictures of docs/gallery.md from executed notebooks.

./nbconvert_ci.sh
python docs/make_gallery.py [--notebooks runs/phantom-tiny/results/notebooks]
"""

import argparse
import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.machine import written_whole

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"
PICTURES = {  # id of a cell -> name of its picture
    "01-10": "01-patient",
    "01-12": "01-windows",
    "01-14": "01-histogram",
    "02-09": "02-input",
    "02-14": "02-history",
    "02-16": "02-validation",
    "03-09": "03-input",
    "03-14": "03-history",
    "03-16": "03-validation",
    "04-14": "04-dice",
    "04-15": "04-agreement",
    "04-16": "04-recall",
    "04-19": "04-montage",
    "04-20": "04-panels",
}
WIDEST = 1000  # pixels


def make_pictures(notebooks: Path, folder: Path) -> list[Path]:
    """Write the pictures that executed notebooks hold; return their paths.

    Raises:
        SystemExit: a cell shows no picture; names it.
    """
    cells = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        cells |= {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    paths = []
    for key, name in PICTURES.items():
        shown = [
            output["data"]["image/png"]
            for output in cells.get(key, {}).get("outputs", ())
            if "image/png" in output.get("data", {})
        ]
        if not shown:
            raise SystemExit(f"cell {key} shows no picture in {notebooks}: run ./nbconvert_ci.sh")
        paths.append(save_small(base64.b64decode(shown[-1]), folder / f"{name}.png"))
    return paths


def save_small(data: bytes, path: Path) -> Path:
    """Write a PNG at most `WIDEST` wide, of 256 colors: less than half the bytes.

    The colors are spread over all there are, so that thin outlines on many greys keep theirs.
    """
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize(
            (WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS
        )
    small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, 3, dither=Image.Dither.NONE)
    with written_whole(path) as temporary:
        small.save(temporary, "PNG", optimize=True)
    return path


def main() -> None:
    """Write all pictures and say where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    executed = ROOT / "runs" / "phantom-tiny" / "results" / "notebooks"
    parser.add_argument("--notebooks", type=Path, default=executed)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    for path in make_pictures(options.notebooks, options.out):
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
