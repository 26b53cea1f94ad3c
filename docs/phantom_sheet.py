"""Draw generated slices, and real ones from LITS_REAL beside them, for judging the wide phantom.

    python docs/phantom_sheet.py sheet.png --first 0 --labels

The real half is for looking at only: a sheet that holds it must not be published.
"""

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.phantom import wide_case
from lits_helpers.volumes import read_volume

WINDOW = (-160, 240)
SIDE = 256  # pixels of a slice in the sheet
COLOURS = ((1, (90, 220, 90)), (2, (60, 60, 255)))  # label, BGR of its outline


def draw_sheet(out: Path, first: int = 0, *, labels: bool = False, real: str | None = None) -> None:
    """Write a PNG of 24 generated slices and, right of them, of 24 real ones."""
    rows = [_generated(seed, labels) for seed in range(first, first + 24)]
    sheet = _tile(rows)
    if real:
        sheet = np.hstack([sheet, np.full((len(sheet), 12, 3), 255, np.uint8), _tile(_real(real))])
    cv2.imwrite(str(out), sheet)


def _generated(seed: int, labels: bool) -> np.ndarray:
    hu, segmentation, _, _ = wide_case(seed)
    area = (segmentation > 0).sum((1, 2))
    share = np.random.default_rng((seed, 1)).uniform(0.05, 0.95)
    k = int(np.searchsorted(np.cumsum(area), share * area.sum()))
    tile = _tone(hu[k])
    for value, colour in COLOURS if labels else ():
        mask = cv2.resize((segmentation[k] >= value).astype(np.uint8), (SIDE, SIDE))
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, outlines, -1, colour, 1)
    return tile


def _real(root: str) -> list[np.ndarray]:
    """Return 24 slices of the volumes below `root`, spread over each volume's height."""
    paths = sorted(Path(root).glob("lits*/**/volume-*.nii.gz"))
    tiles = []
    for path in paths:
        hu = read_volume(path).hu
        tiles += [_tone(hu[int(part * (len(hu) - 1))]) for part in (0.2, 0.5, 0.8)]
    return tiles[:24]


def _tone(plane: np.ndarray) -> np.ndarray:
    """Return a slice in WINDOW as (SIDE, SIDE, 3) uint8."""
    low, high = WINDOW
    grey = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)
    way = cv2.INTER_AREA if plane.shape[0] > SIDE else cv2.INTER_LINEAR
    grey = cv2.resize((grey * 255).astype(np.uint8), (SIDE, SIDE), interpolation=way)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def _tile(tiles: list[np.ndarray]) -> np.ndarray:
    return np.vstack([np.hstack(tiles[n : n + 4]) for n in range(0, len(tiles) - 3, 4)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--labels", action="store_true", help="draw outlines")
    arguments = parser.parse_args()
    draw_sheet(
        arguments.out, arguments.first, labels=arguments.labels, real=os.environ.get("LITS_REAL")
    )
