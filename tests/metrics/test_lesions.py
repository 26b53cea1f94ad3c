"""Lesion detection: hand-drawn matches and misses, and an independent count by brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lits_helpers.metrics import size_class_title
from lits_helpers.metrics.lesions import lesion_counts, list_lesions

SPACING_MM = (5.0, 0.7, 0.8)
WIDTH = 24


def row(text: str) -> np.ndarray:
    """A mask of shape (3, 2, WIDTH) drawn as a line: '#' is tumor."""
    mask = np.zeros((3, 2, WIDTH), bool)
    mask[1, 0, : len(text)] = [sign == "#" for sign in text]
    return mask


def counts(prediction: np.ndarray, reference: np.ndarray) -> dict[str, tuple[int, int, int]]:
    found = lesion_counts(list_lesions(prediction, reference, SPACING_MM))
    return {
        o: tuple(found[f"lesion_{kind}_{o}"] for kind in ("tp", "fp", "fn")) for o in "0 50".split()
    }


@pytest.mark.parametrize(
    ("reference", "prediction", "at_0", "at_50"),
    [
        ("..####..", "..####..", (1, 0, 0), (1, 0, 0)),
        ("..####..", "........", (0, 0, 1), (0, 0, 1)),
        ("........", "..####..", (0, 1, 0), (0, 1, 0)),
        ("####....", "....####", (0, 1, 1), (0, 1, 1)),  # touching is not overlapping
        ("..####..", "..##....", (1, 0, 0), (0, 1, 1)),  # exactly half is not more than half
        ("..####..", "..###...", (1, 0, 0), (1, 0, 0)),
        ("..##....", "..#####.", (1, 0, 0), (0, 1, 1)),
        ("..#####.", "..##.##.", (1, 0, 0), (1, 0, 0)),  # two parts, together four of five
        ("..##.##.", "..#####.", (2, 0, 0), (2, 0, 0)),  # one prediction spans two lesions
        ("##...##.", "#######.", (2, 0, 0), (2, 0, 0)),  # four of seven
        ("##....##", "########", (2, 0, 0), (0, 1, 2)),  # four of eight
        ("##.##.##", "##.##...", (2, 0, 1), (2, 0, 1)),
        ("#####.##", "####..##", (2, 0, 0), (2, 0, 0)),
        ("####.###", "###.####", (2, 0, 0), (2, 0, 0)),  # the second overlaps both, joins its own
    ],
)
def test_hand_drawn_lesions_are_counted(reference, prediction, at_0, at_50):
    assert counts(row(prediction), row(reference)) == {"0": at_0, "50": at_50}


def test_touched_lesion_counts_at_overlap_0_even_if_its_prediction_belongs_to_another():
    reference = row("######.##")
    prediction = row("..######.")  # four of the first, one of the second: they become one group
    assert counts(prediction, reference)["0"] == (2, 0, 0)


def test_prediction_goes_to_the_group_it_shares_most_with():
    reference = row("#########.#..")
    prediction = row("######.####..")  # its second part: two of the first lesion, one of the second
    lesions = list_lesions(prediction, reference, SPACING_MM)
    assert [lesion["found_50"] for lesion in lesions] == [True, False, True, True]


@pytest.mark.parametrize("step", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
def test_voxels_that_meet_at_an_edge_or_corner_are_two_lesions(step):
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = mask[step] = True
    assert len(list_lesions(np.zeros_like(mask), mask, SPACING_MM)) == 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_voxels_that_share_a_face_are_one_lesion(axis):
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = np.moveaxis(mask, axis, 0)[1, 0, 0] = True
    assert [lesion["voxels"] for lesion in list_lesions(np.zeros_like(mask), mask, None)] == [2]


def test_more_lesions_than_a_byte_counts_are_told_apart():
    mask = np.zeros((3, 40, 48), bool)
    mask[1, ::2, ::2] = True  # 480 single voxels
    found = lesion_counts(list_lesions(mask, mask, SPACING_MM))
    assert (found["lesion_tp_50"], found["lesion_fp_50"], found["lesion_fn_50"]) == (480, 0, 0)


def test_size_is_that_of_the_sphere_of_equal_volume():
    mask = np.zeros((12, 40, 48), bool)
    mask[4:6, 10:20, 10:25] = True  # 300 voxels of 2.8 mm3
    (lesion,) = list_lesions(np.zeros_like(mask), mask, SPACING_MM)
    assert lesion["volume_mm3"] == pytest.approx(840)
    assert 4 / 3 * math.pi * (lesion["diameter_mm"] / 2) ** 3 == pytest.approx(840)
    assert lesion["size_class"] == "medium"


@pytest.mark.parametrize(
    ("diameter_mm", "name"),
    [(9.99, "small"), (10.01, "medium"), (19.99, "medium"), (20.01, "large"), (90.0, "large")],
)
def test_size_classes_meet_at_10_and_20_mm(diameter_mm, name):
    voxel_mm3 = math.pi / 6 * diameter_mm**3
    (lesion,) = list_lesions(row("....."), row("..#.."), (voxel_mm3, 1.0, 1.0))
    assert lesion["size_class"] == name


def test_lesions_count_in_the_class_of_their_own_size():
    reference, prediction = np.zeros((2, 12, 40, 48), bool)
    reference[2:8, 5:25, 5:25] = True  # 23 mm: large
    prediction[2:3, 5:7, 5:7] = True  # 3 mm: small, touches it
    prediction[10, 35, 40] = True  # small and wrong
    found = lesion_counts(list_lesions(prediction, reference, SPACING_MM))
    assert (found["lesion_large_tp_0"], found["lesion_large_fn_50"]) == (1, 1)
    assert (found["lesion_small_fp_0"], found["lesion_small_fp_50"]) == (1, 2)
    assert (found["lesion_small_fn_0"], found["lesion_small_tp_0"]) == (0, 0)


def flooded(mask: np.ndarray) -> list[set]:
    """Components by flood fill, in voxel order."""
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    lesions = []
    while left:
        reached, front = set(), [min(left)]
        while front:
            z, y, x = front.pop()
            if (z, y, x) in left:
                left.remove((z, y, x))
                reached.add((z, y, x))
                front += [(z - 1, y, x), (z + 1, y, x), (z, y - 1, x)]
                front += [(z, y + 1, x), (z, y, x - 1), (z, y, x + 1)]
        lesions.append(reached)
    return lesions


def brute_counts(prediction: np.ndarray, reference: np.ndarray) -> dict:
    real, predicted = flooded(reference), flooded(prediction)
    shared = np.array([[len(r & s) for s in predicted] for r in real], int).reshape(
        len(real), len(predicted)
    )
    touched, touching = shared.any(axis=1), shared.any(axis=0)
    at_0 = (touched.sum(), (~touching).sum(), (~touched).sum())
    found, right = set(), set()
    leaders = {r: int(shared[r].argmax()) for r in range(len(real)) if touched[r]}
    groups = [[r for r in leaders if leaders[r] == s] for s in range(len(predicted))]
    with_group = [[shared[g, s].sum() for g in groups] for s in range(len(predicted))]
    chosen = [int(np.argmax(with_group[s])) if touching[s] else None for s in range(len(predicted))]
    for number, group in enumerate(groups):
        joined = [s for s in range(len(predicted)) if chosen[s] == number]
        a = set().union(*(real[r] for r in group))
        b = set().union(*(predicted[s] for s in joined))
        if a and b and len(a & b) > 0.5 * len(a | b):
            found.update(group)
            right.update(joined)
    at_50 = (len(found), len(predicted) - len(right), len(real) - len(found))
    return {"0": tuple(int(n) for n in at_0), "50": at_50}


pairs = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 9)).flatmap(
    lambda shape: arrays.arrays(bool, (2, *shape))
)


@given(pairs)
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_an_independent_count(pair):
    assert counts(*pair) == brute_counts(*pair)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_stricter_overlap_never_finds_more_and_classes_add_up(pair):
    found = lesion_counts(list_lesions(*pair, (2.0, 6.0, 9.0)))
    assert found["lesion_tp_50"] <= found["lesion_tp_0"]
    assert found["lesion_fp_50"] >= found["lesion_fp_0"]
    for kind in ("tp_0", "fp_0", "fn_0", "tp_50", "fp_50", "fn_50"):
        parts = [found[f"lesion_{size}_{kind}"] for size in ("small", "medium", "large")]
        assert sum(parts) == found[f"lesion_{kind}"]


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
