"""Panels, montages and grids of pictures."""

import cv2
import numpy as np
import pytest
from helpers.drawn import SPACING_MM, labeled_volume
from helpers.viewed_cases import SHAPE
from matplotlib.figure import Figure

from lits_helpers import figures
from lits_helpers.figures import montage, montage_image, panels, seven_panels


def test_seven_panels_hold_seven_pictures_and_a_key():
    hu, labels = labeled_volume()
    figure = seven_panels(hu[6], np.roll(labels[6], 2, 0), labels[6], spacing_mm=SPACING_MM[1:])
    pictures = [axis for axis in figure.axes if axis.images]
    assert len(pictures) == 7
    assert "tumor: 0.667" in figure.axes[7].get_legend().get_title().get_text()
    shape = pictures[0].images[0].get_array().shape
    assert shape[0] / shape[1] == pytest.approx(
        30 * 0.7 / (26 * 0.8), rel=0.05
    )  # the liver, not all


def test_seven_panels_of_a_slice_without_labels():
    hu = labeled_volume()[0][0]
    nothing = np.zeros(SHAPE[1:], np.uint8)
    assert isinstance(seven_panels(hu, nothing, nothing), Figure)


def test_a_montage_spreads_over_the_labeled_slices():
    hu, labels = labeled_volume()
    assert panels.spread_slices(hu, {"reference": labels}, 4) == [3, 5, 6, 8]
    assert panels.spread_slices(hu, None, 3) == [0, 6, 11]
    assert panels.spread_slices(hu, {"reference": labels}, 99) == [3, 4, 5, 6, 7, 8]


def test_a_montage_has_a_tile_for_each_slice():
    hu, labels = labeled_volume()
    wide = montage_image(hu, {"reference": labels}, slices=[3, 4, 5], columns=3)
    high = montage_image(hu, {"reference": labels}, slices=[3, 4, 5], columns=1)
    assert wide.shape[1] > 2.9 * high.shape[1]
    assert high.shape[0] > 2.9 * wide.shape[0]
    assert isinstance(montage(hu, {"reference": labels}), Figure)


def test_picture_grid_shows_files_and_names_what_is_missing(tmp_path):
    path = tmp_path / "3_17.png"
    cv2.imwrite(str(path), np.full((20, 40, 3), 90, np.uint8))
    figure = figures.picture_grid([path, path, path])
    assert [axis.get_title() for axis in figure.axes] == ["3_17", "3_17", "3_17", ""]
    with pytest.raises(FileNotFoundError, match=r"no pictures.*gone\.png"):
        figures.picture_grid([path, tmp_path / "gone.png"])
    with pytest.raises(FileNotFoundError, match="an empty list"):
        figures.picture_grid([])
