"""The split of LiTS's 131 cases: a value that no version may change.

With another one, patients a model was trained on would validate it.
"""

import pytest

from lits_helpers.cases import Case, find_cases, split_cases


def numbered(numbers):
    return [Case(str(n), str(n), None) for n in numbers]


LITS = numbered(range(131))
VALIDATION = "2 6 17 18 29 47 50 55 56 66 71 72 90 99 101 110 115 127"
FOLD_3 = "0 4 5 9 16 26 32 35 36 43 53 57 63 87 88 102 112 114"


def test_lits_is_split_as_ever_when_nothing_is_said():
    assert split_cases(LITS) == split_cases(LITS, validation=0.15, test=0.0, fold=None)


@pytest.mark.parametrize(
    ("numbers", "shares", "training", "validation", "test"),
    [  # places of the patients: 2 0.11, 6 0.11, 4 0.44, 5 0.54, 3 0.62, 8 0.64, 7 0.90, 1 0.97
        ((1, 7, 8), (0.15, 0.0), "1 7", "8", ""),  # the lowest place goes where nobody lies
        ((1, 7, 8), (0.15, 0.1), "1", "7", "8"),
        ((2, 4, 6, 3, 5), (0.45, 0.45), "4", "3 5", "2 6"),  # the largest part gives up its highest
    ],
)
def test_parts_that_would_stay_empty_are_filled_as_ever(
    numbers, shares, training, validation, test
):
    split = split_cases(numbered(numbers), *shares)
    found = [" ".join(part) for part in (split.training, split.validation, split.test)]
    assert found == [training, validation, test]


def test_shares_that_leave_no_training_are_refused():
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 0.5 \+ 0.5"):
        split_cases(LITS, validation=0.5, test=0.5)


def test_without_a_validation_share_there_is_no_fold():
    with pytest.raises(ValueError, match="for validation=0, got 0"):
        split_cases(LITS, validation=0, fold=0)


def test_cases_are_found_in_a_folder_that_is_linked(tmp_path):
    real, root = tmp_path / "disk", tmp_path / "raw"
    real.mkdir()
    root.mkdir()
    (real / "volume-7.nii").write_bytes(b"x")
    (root / "part").symlink_to(real, target_is_directory=True)
    (real / "back").symlink_to(root, target_is_directory=True)  # leads round in a circle
    assert [case.volume for case in find_cases(root)] == [root / "part" / "volume-7.nii"]
