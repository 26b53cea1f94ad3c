"""Summaries: two empty masks agree, rows without a name have their number, intervals repeat."""

import numpy as np

from lits_helpers.metrics import dice, evaluate_case, evaluate_dataset


def rows():
    """Five cases: a tumor of ten voxels of which 0, 2, 5, 9 and 10 are found."""
    for found in (5, 0, 9, 2, 10):
        reference, prediction = np.zeros((2, 12, 40, 48), np.uint8)
        reference[4].flat[:100] = prediction[4].flat[:100] = 1
        reference[4].flat[:10] = prediction[4].flat[:found] = 2
        yield evaluate_case(prediction, reference, (5.0, 0.7, 0.8))


def test_dice_from_counts_is_one_for_two_empty_masks():
    assert (dice(0, 0, 0), dice(0, 3, 0), dice(3, 5, 7)) == (1.0, 0.0, 0.5)


def test_rows_without_a_name_are_told_by_their_number():
    assert [name for name, _ in evaluate_dataset(rows())["worst_tumor"]] == [1, 3, 0, 2, 4]


def test_every_figure_comes_again_from_the_same_rows():
    first, again = evaluate_dataset(rows()), evaluate_dataset(rows())
    assert first == again
    assert first["tumor_dice_all_cases"] == first["tumor_dice"]
    assert first["tumor_dice"]["low"] < first["tumor_dice"]["mean"] < first["tumor_dice"]["high"]
