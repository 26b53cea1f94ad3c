"""Meshes: as large as the voxels, closed, outwards, and where the CT's file says."""

from collections import Counter

import numpy as np
import pytest
from helpers.drawn import ORIENTATIONS, SPACING_MM, body, write_nifti

from lits_helpers.report import enclosed, surface, write_stl
from lits_helpers.report.meshes import TRIANGLE
from lits_helpers.volumes import read_volume, volume_from_array

VOXEL_MM3 = float(np.prod(SPACING_MM))


def read_stl(path):
    content = path.read_bytes()
    return np.frombuffer(content, TRIANGLE, offset=84)


def masks():
    labels = body()[1]
    specks = np.zeros((9, 12, 14), bool)
    specks[3:6, 2:5, 8:13] = True
    single = np.zeros((5, 6, 7), bool)
    single[2, 3, 1] = True
    return {"liver": labels > 0, "lesion": labels == 2, "block": specks, "voxel": single}


@pytest.mark.parametrize("name", ["liver", "lesion", "block", "voxel"])
def test_a_surface_is_closed_and_encloses_what_the_voxels_do(name):
    mask = masks()[name]
    triangles = surface(mask)
    assert enclosed(triangles) == pytest.approx(np.count_nonzero(mask), rel=0.02)
    edges = Counter()
    for corners in np.round(triangles, 4).tolist():
        a, b, c = map(tuple, corners)
        edges.update(frozenset(pair) for pair in ((a, b), (b, c), (c, a)) if pair[0] != pair[1])
    assert all(count % 2 == 0 for count in edges.values())


def test_a_mesh_at_the_volumes_edge_is_closed_too():
    assert enclosed(surface(np.ones((3, 4, 5), bool))) == pytest.approx(60, rel=0.02)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_a_mesh_lies_at_the_same_mm_whatever_the_files_axes(tmp_path, orientation):
    mask = body()[1] == 2
    volume = read_volume(write_nifti(body()[0], tmp_path / "ct.nii", orientation))
    found = read_stl(write_stl(mask, volume, tmp_path / "tumor.stl"))
    corners = found["corners"].reshape(-1, 3).astype(float)
    # The drawn grid: LPS axes from this origin, in RAS+ coordinates.
    z, y, x = np.argwhere(mask).mean(axis=0) * SPACING_MM
    expected = (-71.5 - x, 33.25 - y, 410.0 + z)
    np.testing.assert_allclose((corners.min(0) + corners.max(0)) / 2, expected, atol=1.5)
    assert enclosed(found["corners"]) == pytest.approx(VOXEL_MM3 * mask.sum(), rel=0.02)
    outwards = found["corners"].mean(axis=1) - corners.mean(axis=0)
    assert np.mean(np.einsum("ij,ij->i", outwards, found["normal"]) > 0) > 0.95
    a, b, c = np.moveaxis(found["corners"], 1, 0)
    assert np.einsum("ij,ij->i", np.cross(b - a, c - a), found["normal"]).min() >= 0


def test_a_mesh_without_millimetres_or_content_is_refused(tmp_path):
    hu, labels = body()
    with pytest.raises(ValueError, match="no mesh, its voxel size cannot be trusted"):
        write_stl(labels > 0, volume_from_array(hu), tmp_path / "liver.stl")
    with pytest.raises(ValueError, match=r"no mesh for tumor\.stl: the labels hold none of it"):
        write_stl(labels > 2, volume_from_array(hu, SPACING_MM), tmp_path / "tumor.stl")
