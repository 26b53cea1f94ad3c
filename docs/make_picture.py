r"""Make docs/picture.png, the README's picture, from a phantom.

    python docs/make_picture.py [--raw data/phantom-tiny/raw \
        --predictions runs/phantom-tiny/results/predictions]

After the notebooks have run, give both folders: the picture then shows the patient with most tumor
among those that were segmented. Without them a phantom is generated, and a displaced copy of its
reference stands for a prediction; the picture says so.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.cases import find_cases
from lits_helpers.figures import (
    EDGE_LETTERS,
    PALETTE,
    Picture,
    error_layers,
    label_layers,
    plane,
    plane_spacing,
    render_slice,
    save_figure,
    zoom_to,
)
from lits_helpers.figures.curves import show_image
from lits_helpers.figures.drawing import mask_box
from lits_helpers.figures.panels import color_key
from lits_helpers.phantom import make_phantom
from lits_helpers.pipeline import find_predictions
from lits_helpers.viewer.surface_view import LIVER_OPACITY, Mesh, make_meshes
from lits_helpers.volumes import read_segmentation, read_volume

PICTURE = Path(__file__).with_name("picture.png")
SEED, SHAPE = 1, (48, 256, 256)
PIXELS = 640
# (z, y, x), towards the light: from the front, above and the right
LIGHT = np.array([0.45, -0.8, -0.4])
FINENESS = 2  # the surface is drawn this much larger and averaged: smooth edges
GAP = 1.8  # pixels between samples of a surface; what lies between is closed afterwards
CLOSING = np.ones((3, 3), np.uint8)


def generated() -> tuple:
    """Return hu, prediction, reference, spacing_mm and the caption of a phantom without a model."""
    hu, reference, spacing_mm = make_phantom(SEED, SHAPE)
    prediction = np.roll(reference, (0, 2, -2), (0, 1, 2))
    caption = "Generated phantom; the prediction is a displaced copy of the reference"
    return hu, prediction, reference, spacing_mm, caption


def segmented(raw: Path, predictions: Path) -> tuple:
    """Return the same of the segmented patient with most tumor."""
    cases = {case.id: case for case in find_cases(raw) if case.segmentation}
    found = {i: path for i, path in find_predictions(predictions).items() if i in cases}
    if not found:
        raise SystemExit(f"no prediction in {predictions} belongs to a case in {raw}")
    references = {name: read_segmentation(cases[name].segmentation) for name in found}
    chosen = max(found, key=lambda name: np.count_nonzero(references[name] == 2))
    volume = read_volume(cases[chosen].volume, cases[chosen].orientation)
    prediction = read_segmentation(found[chosen], volume)
    reference = read_segmentation(cases[chosen].segmentation, volume)
    caption = f"Generated phantom {chosen}, segmented by the two models"
    return volume.hu, prediction, reference, volume.spacing_mm, caption


def cut(hu, layers, spacing_mm, name: str, index: int, box) -> np.ndarray:
    """Draw a part of a plane."""
    spacing = plane_spacing(spacing_mm, name)
    return render_slice(
        plane(hu, name, index),
        layers=layers,
        spacing_mm=spacing,
        zoom=zoom_to(PIXELS, box[2:], spacing),
        box=box,
        scale_bar=True,
        edges=EDGE_LETTERS[name],
    )


def draw(hu, prediction, reference, spacing_mm, caption: str) -> Picture:
    """Return the figure: axial contours, errors, coronal fill, surface."""
    z = int((reference == 2).sum(axis=(1, 2)).argmax())
    y = int((reference == 2).sum(axis=(0, 2)).argmax())
    axial, coronal = mask_box(reference[z] > 0), mask_box(plane(reference, "coronal", y) > 0)
    contours = label_layers("reference", reference[z], thickness=2)
    contours |= label_layers("prediction", prediction[z], thickness=2)
    fills = label_layers("prediction", plane(prediction, "coronal", y), style="fill", opacity=0.45)
    errors = error_layers(prediction[z] >= 1, reference[z] >= 1)
    panels = {
        "Prediction against reference": cut(hu, contours, spacing_mm, "axial", z, axial),
        "Errors of the liver": cut(hu, errors, spacing_mm, "axial", z, axial),
        "Prediction, coronal": cut(hu, fills, spacing_mm, "coronal", y, coronal),
        "Prediction in 3D": without_rim(render_surface(prediction, spacing_mm, 20, PIXELS)),
    }
    shares = [rgb.shape[1] / rgb.shape[0] for rgb in panels.values()]
    figure = Picture(14, 14 / sum(shares) + 0.9)
    axes = figure.subplots(1, 4, width_ratios=shares)  # all panels equally high
    for axis, (title, rgb) in zip(axes, panels.items(), strict=True):
        show_image(axis, rgb, title)
    color_key(figure, [*contours, *errors])
    figure.suptitle(caption, fontsize=11)
    return figure


def render_surface(labels: np.ndarray, spacing_mm, degrees: float, size: int) -> np.ndarray:
    """Return the translucent liver with its tumors, (size, size, 3) uint8 on white.

    Args:
        labels: (Z, Y, X) 0/1/2.
        spacing_mm: (dz, dy, dx).
        degrees: turn around the body's axis; 0 is seen from the front, the patient's right on the
            left.
        size: side of the picture, pixels.

    Raises:
        ValueError: the labels are empty.
    """
    meshes = make_meshes(labels, spacing_mm)
    liver = meshes["liver"].points
    center = (liver.min(axis=0) + liver.max(axis=0)) / 2
    scale = FINENESS * size / (2.1 * np.linalg.norm(liver - center, axis=1).max())
    clouds = {name: _cloud(mesh, center, scale) for name, mesh in meshes.items() if mesh}
    return _render(clouds, np.deg2rad(degrees), FINENESS * size)


def _cloud(mesh: Mesh, center: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample a mesh every GAP pixels or closer: (points, normals), (K, 3) in pixels."""
    corners = (mesh.points[mesh.triangles] - center) * scale  # (M, 3 corners, 3)
    edge = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1).max()
    parts = max(1, int(np.ceil(edge / GAP)))
    steps = [(i, j, parts - i - j) for i in range(parts + 1) for j in range(parts + 1 - i)]
    weights = np.array(steps, np.float32) / parts  # (S, 3)
    points = np.einsum("sc,mcx->msx", weights, corners).reshape(-1, 3)
    normals = np.einsum("sc,mcx->msx", weights, mesh.normals[mesh.triangles]).reshape(-1, 3)
    return points.astype(np.float32), normals.astype(np.float32)


def _render(clouds, angle: float, size: int) -> np.ndarray:
    picture = np.full((size, size, 3), 255, np.float32)
    for name in ("tumor", "liver"):  # the liver is laid over what is inside it
        if name in clouds:
            shade = _shaded(*clouds[name], angle, size)
            seen = shade > 0
            color = np.float32(PALETTE[f"predicted {name}"]) * shade[seen][:, None]
            opacity = LIVER_OPACITY if name == "liver" else 1.0
            picture[seen] = (1 - opacity) * picture[seen] + opacity * color
    small = cv2.resize(picture, (size // FINENESS,) * 2, interpolation=cv2.INTER_AREA)
    return np.clip(small, 0, 255).astype(np.uint8)


def _shaded(points, normals, angle: float, size: int) -> np.ndarray:
    """Return the brightness (size, size) of each pixel's nearest surface, 0 where there is none."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    away = normals[:, 1:] @ turn[:, 0]  # along y, from the viewer at the front
    facing = away < 0
    y, x = (points[facing, 1:] @ turn).T
    rows = np.round(size / 2 - points[facing, 0]).astype(np.int64)
    columns = np.round(size / 2 + x).astype(np.int64)
    lit = np.column_stack([normals[facing, 0], normals[facing, 1:] @ turn]) @ LIGHT
    bright = (255 * (0.35 + 0.65 * np.clip(lit, 0, 1))).astype(np.int64)
    nearness = (4 * (size - y)).astype(np.int64)
    buffer = np.zeros(size * size, np.int64)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    place = (rows * size + columns)[inside]
    np.maximum.at(buffer, place, (nearness << 8 | bright)[inside])
    # Nearness and brightness together stay below 2**24, so float32 holds them exactly.
    closed = cv2.morphologyEx(
        buffer.reshape(size, size).astype(np.float32), cv2.MORPH_CLOSE, CLOSING
    )
    return (closed.astype(np.int64) & 255).astype(np.float32) / 255


def without_rim(rgb: np.ndarray) -> np.ndarray:
    """Cut the white around a picture away."""
    top, left, height, width = mask_box((rgb < 255).any(axis=2), margin=0.05)
    return rgb[top : top + height, left : left + width]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    given = options.raw and options.predictions
    inputs = segmented(options.raw, options.predictions) if given else generated()
    print(save_figure(draw(*inputs), options.out, dpi=110))


if __name__ == "__main__":
    main()
