"""Liver and tumors to turn with the mouse in a notebook: one piece of HTML, no GPU, no network."""

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from ..figures import PALETTE, layer_name
from ..metrics import FIRST_LABEL, filled_box
from .controls import swatch_html

STEPS_MM = {"liver": 2.5, "tumor": 1.25}  # mesh width: a lesion of 3 mm must survive
LIVER_OPACITY = 0.45
MARKS = {  # (x, y, z)
    "R": (-1, 0, 0),
    "L": (1, 0, 0),
    "A": (0, -1, 0),
    "P": (0, 1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
SMOOTHING = 0.8  # cubes: hides the steps between slices
SHADING_STEPS_MM = {"liver": 5.0, "tumor": 2.5}  # coarse: a browser draws the mesh at each move
SCRIPT = Path(__file__).with_name("surface.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes:
        points: (N, 3) float32, mm, (z, y, x) from the first voxel's center.
        triangles: (M, 3) int32 indices into `points`.
        normals: (N, 3) float32, outwards, of length 1.
    """

    points: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray


class SurfaceView:
    """The translucent liver with its tumors; drag to turn it. Put it on the last line of a cell.

    The first view is from the front, the patient's right on the left; letters mark the sides of the
    body, as R(ight), H(ead) and A(nterior). A page that runs no scripts (GitHub) shows the key
    only.

    Args:
        labels: (Z, Y, X) 0/1/2, the prediction.
        spacing_mm: (dz, dy, dx).
        size: side of the square picture, pixels.
        reference: (Z, Y, X) 0/1/2; the boxes in the key show its surfaces.

    Attributes:
        meshes: name of the layer -> mesh, of those that are not empty, in the order of drawing.

    Raises:
        ValueError: the labels are empty.
    """

    def __init__(
        self,
        labels: np.ndarray,
        spacing_mm: tuple[float, float, float],
        size: int = 420,
        reference: np.ndarray | None = None,
    ):
        self.size = size
        made = {"prediction": make_meshes(labels, spacing_mm, SHADING_STEPS_MM)}
        if reference is not None and reference.any():
            made["reference"] = make_meshes(reference, spacing_mm, SHADING_STEPS_MM)
        self.meshes = {
            layer_name(source, organ): meshes[organ]
            for organ in ("tumor", "liver")  # the livers are laid over what is inside them
            for source, meshes in made.items()
            if meshes[organ]
        }

    def _repr_html_(self) -> str:
        liver = self.meshes["predicted liver"].points
        center = (liver.min(axis=0) + liver.max(axis=0)) / 2
        radius = float(np.linalg.norm(liver - center, axis=1).max())
        shown = [
            _packed(mesh, center, radius)
            | {"color": PALETTE[name], "opacity": LIVER_OPACITY if "liver" in name else 1.0}
            for name, mesh in self.meshes.items()
        ]
        data, marks = (html.escape(json.dumps(part)) for part in (shown, MARKS))
        style = "touch-action: none; cursor: grab; display: block; max-width: 100%"
        label = "the liver in 3D; drag it or use the arrow keys to turn it"
        canvas = (
            f'<canvas class="lits-surface" width="{self.size}" height="{self.size}"'
            f' style="{style}" tabindex="0" role="application" aria-label="{label}"'
            f' data-lm-suppress-shortcuts="true" data-marks="{marks}" data-meshes="{data}">'
            "</canvas>"
        )
        key = "".join(_key_box(name) for name in self.meshes)
        return f"<div>{canvas}{key}</div><script>\n{SCRIPT}</script>"


def _key_box(name: str) -> str:
    """Return a line of the key, with the box that shows the surface; a reference's is not shown."""
    checked = "" if name.startswith("reference") else " checked"
    key = swatch_html(name, PALETTE[name])
    return f'<label style="margin-right:1em"><input type="checkbox"{checked}> {key}</label>'


def _packed(mesh: Mesh, center: np.ndarray, radius: float) -> dict:
    """Return a mesh for the script: points (x, y, z) within the unit ball."""
    points = ((mesh.points - center) / radius)[:, ::-1]
    return {
        "points": _base64(points.astype("<f4")),
        "triangles": _base64(mesh.triangles.astype("<u4")),
        "winding": _winding(mesh),
    }


def _winding(mesh: Mesh) -> int:
    """Return the sign on the screen of a triangle that faces the viewer, by the mesh's normals."""
    a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
    turned = np.cross(b - a, c - a) * mesh.normals[mesh.triangles[:, 0]]
    return 1 if turned.sum() > 0 else -1


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def make_meshes(
    labels: np.ndarray,
    spacing_mm: tuple[float, float, float],
    steps_mm: Mapping[str, float] = STEPS_MM,
) -> dict[str, Mesh | None]:
    """Return the meshes of "liver" and "tumor" of labels (Z, Y, X); the tumor's may be None.

    Raises:
        ValueError: there is no liver to show.
    """
    if not labels.any():
        raise ValueError("no surface: the labels hold neither liver nor tumor")
    return {
        name: make_mesh(labels >= first, spacing_mm, steps_mm[name])
        for name, first in FIRST_LABEL.items()
    }


def make_mesh(
    mask: np.ndarray, spacing_mm: tuple[float, float, float], step_mm: float = 2.5
) -> Mesh | None:
    """Return the surface of a mask (Z, Y, X), or None if it is empty.

    The mask is averaged to cubes of about `step_mm` first, so a finer scan makes no larger mesh.
    """
    if not mask.any():
        return None
    values, origin, steps = _resampled(mask, spacing_mm, step_mm)
    values = gaussian_filter(values, SMOOTHING)
    level = min(0.5, 0.5 * float(values.max()))  # a single small lesion must not vanish
    points, triangles, normals, _ = marching_cubes(values, level, spacing=steps)
    return Mesh((points + origin).astype(np.float32), triangles.astype(np.int32), normals)


def _resampled(mask: np.ndarray, spacing_mm, step_mm: float):
    """Return (values, origin_mm, steps_mm) of the mask's box in cubes of `step_mm`."""
    box = filled_box(mask)
    part = mask[box].astype(np.float32)
    counts = [max(1, round(n * mm / step_mm)) for n, mm in zip(part.shape, spacing_mm, strict=True)]
    steps = np.array(part.shape) * spacing_mm / counts
    flat = (counts[2], counts[1])
    part = np.stack([cv2.resize(plane, flat, interpolation=cv2.INTER_AREA) for plane in part])
    columns = part.reshape(len(part), -1)
    method = cv2.INTER_AREA if counts[0] < len(part) else cv2.INTER_LINEAR
    part = cv2.resize(columns, (columns.shape[1], counts[0]), interpolation=method)
    values = np.pad(part.reshape(counts), 2)  # a closed surface, also at the volume's edge
    origin = (
        (np.array([extent.start for extent in box]) - 0.5) * spacing_mm + 0.5 * steps - 2 * steps
    )
    return values, origin, tuple(steps)
