"""Which lesion a prediction belongs to where it touches two, and what is said of sizes unknown."""

import numpy as np
import pytest

from lits_helpers.metrics import size_class_title
from lits_helpers.metrics.lesions import lesion_counts, list_lesions


def row(text: str) -> np.ndarray:
    """A mask of shape (3, 2, 24) drawn as a line: '#' is tumor."""
    mask = np.zeros((3, 2, 24), bool)
    mask[1, 0, : len(text)] = [sign == "#" for sign in text]
    return mask


def test_size_classes_are_titled_by_what_they_span():
    titles = [size_class_title(name) for name in ("small", "medium", "large")]
    assert titles == ["under 10 mm", "10 to 20 mm", "20 mm and more"]


def test_without_spacing_a_lesion_has_voxels_but_no_size():
    unknown = {"volume_mm3": None, "diameter_mm": None, "size_class": None}
    found = {"found_0": True, "found_50": True}
    assert list_lesions(row("..##.##."), row("..#####."), None) == [
        {"side": "reference", "number": 1, "voxels": 5, "overlap": 4, **found, **unknown},
        {"side": "prediction", "number": 1, "voxels": 2, "overlap": 2, **found, **unknown},
        {"side": "prediction", "number": 2, "voxels": 2, "overlap": 2, **found, **unknown},
    ]


def test_without_spacing_lesions_are_counted_but_not_by_size():
    counts = lesion_counts(list_lesions(row("..##...."), row("..##.##."), None))
    assert (counts["lesion_tp_0"], counts["lesion_fp_0"], counts["lesion_fn_0"]) == (1, 0, 1)
    of_sizes = {key: value for key, value in counts.items() if key.count("_") == 3}
    assert len(of_sizes) == 18
    assert set(of_sizes.values()) == {None}


@pytest.mark.parametrize(
    ("reference", "prediction", "found"),
    [
        # The second lesion is covered most by the second prediction, though the first touches it.
        ("###.#####...", "#####.######", [True, False, True, False]),
        # The second prediction shares most with the second lesion, though it touches the first.
        ("####.###", "##.#####", [False, True, False, True]),
    ],
)
def test_a_prediction_that_touches_two_lesions_belongs_to_the_one_it_shares_most_with(
    reference, prediction, found
):
    lesions = list_lesions(row(prediction), row(reference), (5.0, 0.7, 0.8))
    assert [lesion["found_50"] for lesion in lesions] == found


def test_a_lesion_of_exactly_ten_millimetres_is_medium():
    voxel_mm3 = np.pi / 6 * 1000
    for _ in range(50):  # the cube root is rounded
        _, lesion = list_lesions(row("#"), row("#"), (voxel_mm3, 1.0, 1.0))
        if lesion["diameter_mm"] >= 10:
            break
        voxel_mm3 = np.nextafter(voxel_mm3, np.inf)
    assert (lesion["diameter_mm"], lesion["size_class"]) == (10.0, "medium")
