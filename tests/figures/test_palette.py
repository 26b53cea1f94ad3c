"""The palette: seven meanings that stay apart for every reader, on the greys of a CT."""

import itertools

import numpy as np
import pytest

from lits_helpers.figures import PALETTE, color_of, layer_name
from lits_helpers.volumes.dicom_seg import COLORS

MEANINGS = [
    f"{source} {organ}" for source in ("reference", "predicted") for organ in ("liver", "tumor")
]
MEANINGS += ["false positive", "false negative", "uncertain"]
# Complete color blindness on linear RGB. Source: G. Machado et al., IEEE TVCG 15 (6), 2009.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
GREYS = [(level,) * 3 for level in range(60, 211, 10)]  # soft tissue in the window of the abdomen


def linear(color) -> np.ndarray:
    share = np.array(color) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(color, sight="normal") -> np.ndarray:
    """Return CIELAB (D65) of an sRGB color as it is seen: a difference of 2 is just seen."""
    seen = np.clip(np.array(SIGHTS[sight]) @ linear(color), 0, 1)
    x, y, z = np.cbrt(np.array(TO_XYZ) @ seen / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(color, other) -> float:
    """Return the ratio of luminances as WCAG 2 defines it, 1 to 21."""
    dark, light = sorted(float(np.array(TO_XYZ)[1] @ linear(c)) for c in (color, other))
    return (light + 0.05) / (dark + 0.05)


def test_the_palette_has_seven_meanings():
    assert list(PALETTE) == MEANINGS
    assert len(set(PALETTE.values())) == 7


@pytest.mark.parametrize("sight", SIGHTS)
def test_colors_stay_apart_in_every_sight_and_from_the_greys_of_tissue(sight):
    seen = {name: lab(color, sight) for name, color in PALETTE.items()}
    for one, other in itertools.combinations(MEANINGS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 28, (one, other)
    for name in MEANINGS:
        nearest = min(np.linalg.norm(seen[name] - lab(grey, sight)) for grey in GREYS)
        assert nearest > 21, name


@pytest.mark.parametrize("name", MEANINGS)
def test_colors_stand_out_from_air_or_from_paper(name):
    assert contrast(PALETTE[name], (0, 0, 0)) > 3  # WCAG AA for graphics


def test_a_written_dicom_segment_has_the_color_of_its_meaning():
    assert COLORS == {1: PALETTE["predicted liver"], 2: PALETTE["predicted tumor"]}


def test_a_layer_is_called_by_its_meaning():
    assert layer_name("prediction", "tumor") == "predicted tumor"
    assert layer_name("reference", "liver") == "reference liver"
    assert layer_name("nnU-Net", "liver") == "nnU-Net liver"
    assert color_of("reference") == PALETTE["reference liver"]


@pytest.mark.parametrize("source", ["labels", "nnU-Net", "model A", "ours"])
def test_other_sources_have_other_colors(source):
    colors = {color_of(layer_name(source, organ)) for organ in ("liver", "tumor")}
    assert len(colors) == 2
    assert not colors & set(PALETTE.values())
