"""Metrics of one case: hand-drawn, every empty case, and bad input."""

import math

import numpy as np
import pytest

from lits_helpers.metrics import evaluate_case, evaluate_lesions

SHAPE = (12, 40, 48)
SPACING_MM = (5.0, 0.7, 0.8)
DIAGONAL_MM = math.hypot(11 * 5.0, 39 * 0.7, 47 * 0.8)
MASK_KEYS = (
    "dice voe rvd_reference rvd_prediction assd_mm rmsd_mm max_surface_mm hd95_mm "
    "intersection size_reference size_prediction"
).split()
MM_KEYS = [f"{part}_{key}" for part in ("liver", "tumor") for key in MASK_KEYS if "_mm" in key]
COUNTS = [f"{kind}_{overlap}" for kind in ("tp", "fp", "fn") for overlap in ("0", "50")]
CLASS_COUNTS = [f"lesion_{size}_{c}" for size in ("small", "medium", "large") for c in COUNTS]


def volume(*boxes: tuple[int, tuple[slice, ...]]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for label, box in boxes:
        labels[box] = label
    return labels


def box(z: int, y: int, x: int, depth: int, height: int, width: int) -> tuple[slice, ...]:
    return slice(z, z + depth), slice(y, y + height), slice(x, x + width)


EMPTY = volume()
LIVER = volume((1, box(3, 5, 6, 4, 10, 20)))  # 800 voxels
LIVER_AND_TUMOR = volume((1, box(3, 5, 6, 4, 10, 20)), (2, box(4, 8, 10, 2, 4, 5)))  # 40 of them


def test_result_has_exactly_the_named_keys():
    keys = {f"{part}_{key}" for part in ("liver", "tumor") for key in MASK_KEYS}
    keys |= {f"lesion_{count}" for count in COUNTS} | set(CLASS_COUNTS)
    keys |= {"burden_reference", "burden_prediction"}
    assert set(evaluate_case(LIVER, LIVER_AND_TUMOR, SPACING_MM)) == keys


def test_result_holds_plain_numbers():
    result = evaluate_case(LIVER, LIVER_AND_TUMOR, SPACING_MM)
    assert {type(value) for value in result.values()} == {int, float}


def test_overlap_figures_of_a_liver_predicted_half_and_shifted():
    prediction = volume((1, box(3, 5, 16, 4, 10, 10)), (1, box(3, 25, 16, 4, 5, 10)))
    result = evaluate_case(prediction, LIVER, SPACING_MM)  # 400 right, 200 elsewhere, 800 real
    assert result["liver_intersection"] == 400
    assert (result["liver_size_prediction"], result["liver_size_reference"]) == (600, 800)
    assert result["liver_dice"] == pytest.approx(800 / 1400)
    assert result["liver_voe"] == pytest.approx(1 - 400 / 1000)
    assert result["liver_rvd_reference"] == pytest.approx(-0.25)  # too little predicted
    assert result["liver_rvd_prediction"] == pytest.approx(1 / 3)  # the script's sign and divisor


def test_tumor_counts_as_liver():
    result = evaluate_case(LIVER, LIVER_AND_TUMOR, SPACING_MM)
    assert result["liver_dice"] == 1
    assert result["liver_size_reference"] == 800
    assert result["tumor_dice"] == 0


@pytest.mark.parametrize(("axis", "step_mm"), list(enumerate(SPACING_MM)))
def test_shift_by_two_voxels_is_twice_that_axis_spacing(axis, step_mm):
    result = evaluate_case(np.roll(LIVER, 2, axis), LIVER, SPACING_MM)
    assert result["liver_max_surface_mm"] == pytest.approx(2 * step_mm)


def test_tumor_distances_do_not_see_the_liver():
    prediction = volume((1, box(3, 5, 6, 4, 10, 20)), (2, box(4, 8, 12, 2, 4, 5)))
    result = evaluate_case(prediction, LIVER_AND_TUMOR, SPACING_MM)
    assert result["liver_max_surface_mm"] == 0
    assert result["tumor_max_surface_mm"] == pytest.approx(1.6)


def test_burden_is_tumor_over_liver():
    result = evaluate_case(LIVER, LIVER_AND_TUMOR, SPACING_MM)
    assert (result["burden_reference"], result["burden_prediction"]) == (0.05, 0)


def test_perfect_prediction_scores_best_everywhere():
    result = evaluate_case(LIVER_AND_TUMOR, LIVER_AND_TUMOR, SPACING_MM)
    for part in ("liver", "tumor"):
        assert result[f"{part}_dice"] == 1
        for key in ("voe", "rvd_reference", "rvd_prediction", "assd_mm", "hd95_mm"):
            assert result[f"{part}_{key}"] == 0
    assert (result["lesion_tp_50"], result["lesion_fp_50"], result["lesion_fn_50"]) == (1, 0, 0)


BOTH_EMPTY = {"dice": 1, "voe": 0, "rvd_reference": 0, "rvd_prediction": 0} | dict.fromkeys(
    ("assd_mm", "rmsd_mm", "max_surface_mm", "hd95_mm"), 0
)
ONE_EMPTY = {"dice": 0, "voe": 1} | dict.fromkeys(
    ("assd_mm", "rmsd_mm", "max_surface_mm", "hd95_mm"), pytest.approx(DIAGONAL_MM)
)
MISSED = ONE_EMPTY | {"rvd_reference": -1, "rvd_prediction": math.inf}
INVENTED = ONE_EMPTY | {"rvd_reference": math.inf, "rvd_prediction": -1}


@pytest.mark.parametrize(
    ("prediction", "reference", "part", "expected"),
    [
        (EMPTY, EMPTY, "liver", BOTH_EMPTY),
        (EMPTY, EMPTY, "tumor", BOTH_EMPTY),
        (LIVER, LIVER, "tumor", BOTH_EMPTY),
        (EMPTY, LIVER, "liver", MISSED),
        (LIVER, LIVER_AND_TUMOR, "tumor", MISSED),
        (LIVER, EMPTY, "liver", INVENTED),
        (LIVER_AND_TUMOR, LIVER, "tumor", INVENTED),
    ],
)
def test_every_empty_mask_has_its_stated_value(prediction, reference, part, expected):
    result = evaluate_case(prediction, reference, SPACING_MM)
    assert {key: result[f"{part}_{key}"] for key in expected} == expected


@pytest.mark.parametrize("side", ["prediction", "reference"])
def test_burden_without_liver_is_zero(side):
    pair = {"prediction": LIVER_AND_TUMOR, "reference": LIVER_AND_TUMOR} | {side: EMPTY}
    assert evaluate_case(**pair, spacing_mm=SPACING_MM)[f"burden_{side}"] == 0


def test_empty_case_has_no_lesions_to_count():
    result = evaluate_case(EMPTY, EMPTY, SPACING_MM)
    assert {result[f"lesion_{count}"] for count in COUNTS} == {0}


def test_missing_an_organ_is_never_better_than_any_prediction_of_it():
    far = volume((1, (slice(11, 12), slice(39, 40), slice(47, 48))))
    near = volume((1, (slice(0, 1), slice(0, 1), slice(0, 1))))
    found = evaluate_case(far, near, SPACING_MM)
    missed = evaluate_case(EMPTY, near, SPACING_MM)
    for key in ("assd_mm", "rmsd_mm", "max_surface_mm", "hd95_mm"):
        assert found[f"liver_{key}"] == pytest.approx(missed[f"liver_{key}"])


def test_untrusted_spacing_gives_no_figure_in_mm_and_all_others():
    known = evaluate_case(LIVER, LIVER_AND_TUMOR, SPACING_MM)
    unknown = evaluate_case(LIVER, LIVER_AND_TUMOR, None)
    without = dict.fromkeys([*MM_KEYS, *CLASS_COUNTS])
    assert unknown == known | without


def test_one_slice_can_be_measured():
    prediction, reference = LIVER[5:6], LIVER_AND_TUMOR[5:6]
    assert evaluate_case(prediction, reference, SPACING_MM)["liver_dice"] == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64"])
def test_dtype_and_memory_order_change_nothing(dtype):
    prediction = np.asfortranarray(np.roll(LIVER_AND_TUMOR, 1, 2).astype(dtype))
    result = evaluate_case(prediction, LIVER_AND_TUMOR.astype(dtype)[:], SPACING_MM)
    assert result == evaluate_case(np.roll(LIVER_AND_TUMOR, 1, 2), LIVER_AND_TUMOR, SPACING_MM)


def test_boolean_mask_is_a_liver():
    assert evaluate_case(LIVER > 0, LIVER, SPACING_MM)["liver_dice"] == 1


def test_inputs_are_left_alone():
    prediction, reference = LIVER.copy(), LIVER_AND_TUMOR.copy()
    evaluate_case(prediction, reference, SPACING_MM)
    assert np.array_equal(prediction, LIVER)
    assert np.array_equal(reference, LIVER_AND_TUMOR)


def test_lesion_list_agrees_with_the_counts():
    lesions = evaluate_lesions(LIVER, LIVER_AND_TUMOR, SPACING_MM)
    assert [(one["side"], one["voxels"], one["found_0"]) for one in lesions] == [
        ("reference", 40, False)
    ]


@pytest.mark.parametrize(
    ("prediction", "reference", "spacing_mm", "words"),
    [
        (LIVER[1:], LIVER, SPACING_MM, r"one shape, got \(11, 40, 48\) and \(12, 40, 48\)"),
        (LIVER[0], LIVER[0], SPACING_MM, r"prediction must be .*\(Z, Y, X\).* shape \(40, 48\)"),
        (LIVER[:0], LIVER[:0], SPACING_MM, r"filled \(Z, Y, X\) volume, got shape \(0, 40, 48\)"),
        (LIVER * 0.5, LIVER, SPACING_MM, "prediction must hold integer labels .* threshold first"),
        (LIVER, LIVER * 255, SPACING_MM, "reference must hold labels 0, 1, 2 only.* 0 to 255"),
        (LIVER.astype(int) - 1, LIVER, SPACING_MM, "from -1 to 0"),
        (LIVER, LIVER, (5.0, 0.7), r"spacing_mm must be \(dz, dy, dx\).* got \(5.0, 0.7\)"),
        (LIVER, LIVER, (5.0, 0.0, 0.8), "each above 0"),
        (LIVER, LIVER, (5.0, math.nan, 0.8), "each above 0"),
    ],
)
def test_bad_input_is_named(prediction, reference, spacing_mm, words):
    with pytest.raises(ValueError, match=words):
        evaluate_case(prediction, reference, spacing_mm)


TUMOR = np.zeros((12, 40, 48), np.uint8)
TUMOR[4:6, 8:12, 10:15] = 2  # 40 voxels of 2.8 mm3


def test_lesions_are_listed_with_their_size_in_mm():
    reference, prediction = evaluate_lesions(TUMOR, TUMOR, (5.0, 0.7, 0.8))
    for lesion, side in ((reference, "reference"), (prediction, "prediction")):
        assert (lesion["side"], lesion["voxels"], lesion["size_class"]) == (side, 40, "small")
        assert lesion["volume_mm3"] == pytest.approx(112)
        assert lesion["diameter_mm"] == pytest.approx((6 * 112 / np.pi) ** (1 / 3))


@pytest.mark.parametrize("measure", [evaluate_case, evaluate_lesions])
def test_a_spacing_that_is_infinite_is_refused(measure):
    with pytest.raises(ValueError, match=r"each above 0, or None, got \(5\.0, inf, 0\.8\)"):
        measure(TUMOR, TUMOR, (5.0, np.inf, 0.8))
