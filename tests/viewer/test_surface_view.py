"""Surfaces of organs, and the page that turns them."""

import base64
import html
import json
import re

import numpy as np
import pytest
from helpers.drawn import SPACING_MM, labeled_volume

from lits_helpers.figures import PALETTE
from lits_helpers.viewer import SurfaceView, surface_view


def test_a_mesh_encloses_the_volume_of_its_mask():
    mask = np.zeros((30, 60, 50), bool)
    mask[0:20, 10:50, 5:35] = True  # it touches the first slice
    spacing = (2.0, 0.7, 0.8)
    mesh = surface_view.make_mesh(mask, spacing, step_mm=1.5)
    a, b, c = (mesh.points[mesh.triangles[:, k]].astype(float) for k in range(3))
    volume = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
    assert volume == pytest.approx(20 * 40 * 30 * np.prod(spacing), rel=0.06)
    ends = mesh.points.min(axis=0), mesh.points.max(axis=0)
    assert np.allclose(np.mean(ends, axis=0), [19.0, 29.5 * 0.7, 19.5 * 0.8], atol=0.3)
    middles = (a + b + c) / 3 - [19.0, 29.5 * 0.7, 19.5 * 0.8]
    outward = np.einsum("ij,ij->i", mesh.normals[mesh.triangles[:, 0]], middles)
    assert (outward > 0).mean() > 0.95


def test_a_surface_to_turn_is_one_piece_of_html_without_addresses():
    _, labels = labeled_volume()
    page = SurfaceView(labels, SPACING_MM)._repr_html_()
    assert "http" not in page
    meshes = json.loads(html.unescape(re.search('data-meshes="([^"]+)"', page)[1]))
    colors = [tuple(mesh["color"]) for mesh in meshes]
    assert colors == [PALETTE["predicted tumor"], PALETTE["predicted liver"]]
    for mesh in meshes:
        points = np.frombuffer(base64.b64decode(mesh["points"]), "<f4")
        triangles = np.frombuffer(base64.b64decode(mesh["triangles"]), "<u4")
        assert np.abs(points).max() <= 1
        assert triangles.max() < len(points) / 3


def shown(view) -> tuple[list[str], list[bool]]:
    """Return the names in the key, and whether each is shown at first."""
    lines = re.findall(r"<label.*?</label>", view._repr_html_())
    return [re.sub("<.*?>", "", line).strip() for line in lines], [" checked" in x for x in lines]


def test_the_reference_is_in_the_key_and_shown_on_request():
    _, labels = labeled_volume()
    liver = np.roll(labels >= 1, 3, 1).astype(np.uint8)
    names = ["predicted tumor", "predicted liver"]
    assert shown(SurfaceView(labels, SPACING_MM)) == (names, [True, True])
    assert shown(SurfaceView(labels, SPACING_MM, reference=0 * labels))[0] == names
    view = SurfaceView(labels, SPACING_MM, reference=liver)
    assert shown(view) == ([*names, "reference liver"], [True, True, False])
    assert list(view.meshes) == [*names, "reference liver"]


def test_triangles_of_a_surface_wind_alike_so_that_backs_are_left_out():
    _, labels = labeled_volume()
    for mesh in SurfaceView(labels, SPACING_MM).meshes.values():
        a, b, c = (mesh.points[mesh.triangles[:, k]] for k in range(3))
        turned = np.einsum("ij,ij->i", np.cross(b - a, c - a), mesh.normals[mesh.triangles[:, 0]])
        assert (np.sign(turned) == np.sign(turned.sum())).mean() > 0.97


def test_labels_without_liver_have_no_surface():
    with pytest.raises(ValueError, match="no surface"):
        surface_view.make_meshes(np.zeros((12, 40, 48), np.uint8), SPACING_MM)
