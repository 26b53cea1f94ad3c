"""References that are folders of masks beside a DICOM CT, paired by position: 3D-IRCADb and CHAOS.

3D-IRCADb has a folder of DICOM for each structure; CHAOS has PNG files, which are numbered along
the patient, upwards or downwards.
"""

import logging
import re
from pathlib import Path

import numpy as np

from .dicom import opened, read_dicom
from .geometry import Geometry, matched_to, same_grid
from .pngs import read_png

logger = logging.getLogger(__name__)

LIVER = re.compile(r"liver", re.IGNORECASE)
TUMORS = re.compile(r"liver_?tumou?rs?_?\d*", re.IGNORECASE)  # not livercyst
TISSUE_HU = (-200, 300)  # beyond, a single metal clip would decide
NUMBER = re.compile(r"(\d+)\D*$")


def read_masks(folder: Path, like) -> np.ndarray:
    """Read a folder of masks as labels (Z, Y, X) uint8.

    Args:
        folder: with folders ``liver``, ``livertumor01`` and so on, all of whose tumors are joined;
            or with one PNG a slice, above 0 in the liver.
        like: the CT, a `Volume`, which tells where the masks lie.

    Raises:
        ValueError: no liver in it, or the masks do not fit the CT.
    """
    if like is None:
        raise ValueError(f"{folder} holds masks: read it with its CT, like=read_volume(...)")
    pictures = sorted(folder.glob("*.png"), key=_number)
    if pictures:
        return _read_pictures(pictures, folder, like)
    parts = sorted(part for part in folder.iterdir() if part.is_dir())
    livers = [part for part in parts if LIVER.fullmatch(part.name)]
    tumors = [part for part in parts if TUMORS.fullmatch(part.name)]
    if not livers:
        raise ValueError(f"{folder} holds no folder liver and no PNG masks")
    labels = np.zeros(like.geometry.shape, np.uint8)
    for label, part in [(1, livers[0]), *((2, part) for part in tumors)]:
        labels[_read_structure(part, like.geometry)] = label
    return labels


def _number(path: Path) -> int:
    match = NUMBER.search(path.stem)
    return int(match[1]) if match else -1


def _read_structure(folder: Path, like: Geometry) -> np.ndarray:
    """Return a DICOM mask (Z, Y, X) bool on the CT's voxels."""
    with opened(folder) as store:
        series = max(store.series(), key=lambda one: len(one.slices))
    values, geometry = read_dicom(folder, series.uid)
    if not same_grid(geometry, like):
        raise ValueError(
            f"{folder}: its {len(series.slices)} slices lie elsewhere than those of the CT"
        )
    present = values > values.min()  # stored 0 and 255, but the header may have the CT's intercept
    return matched_to(geometry, like).as_internal(geometry.as_stored(present))


def _read_pictures(pictures: list[Path], folder: Path, like) -> np.ndarray:
    """Return the liver as labels, from one PNG mask for each position of the CT.

    Nothing says whether their numbers grow upwards. The liver is of even brightness: of both
    directions the one under whose mask HU vary less is taken.
    """
    columns, rows, count = like.geometry.stored_shape[:3]
    if len(pictures) != count:
        raise ValueError(f"{folder} holds {len(pictures)} masks, its CT {count} slices")
    stored = np.zeros((columns, rows, count), np.uint8)
    for k, path in enumerate(pictures):
        mask = read_png(path) > 0
        if mask.shape != (rows, columns):
            raise ValueError(f"{path} has {mask.shape} pixels, its CT {(rows, columns)}")
        stored[..., k] = mask.T
    ways = [like.geometry.as_internal(one) for one in (stored, stored[..., ::-1])]
    hu = like.hu
    spreads = [np.clip(hu[one > 0], *TISSUE_HU).std() if one.any() else 0.0 for one in ways]
    if spreads[1] < spreads[0]:
        logger.info("%s: its numbers grow against the CT's positions, as its liver shows", folder)
        return np.ascontiguousarray(ways[1])
    return np.ascontiguousarray(ways[0])
