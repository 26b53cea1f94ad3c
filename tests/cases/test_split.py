"""The split is by patient and complete; that of LiTS's 131 cases no version may change.

With another one, patients a model was trained on would validate it.
"""

import contextlib
import itertools

import pytest

from lits_helpers.cases import Case, find_cases, split_cases

LITS = [Case(str(n), str(n), None) for n in range(131)]
VALIDATION = "2 6 17 18 29 47 50 55 56 66 71 72 90 99 101 110 115 127"
FOLD_3 = "0 4 5 9 16 26 32 35 36 43 53 57 63 87 88 102 112 114"


def test_lits_is_split_as_ever():
    split = split_cases(LITS, validation=0.15)
    assert " ".join(split.validation) == VALIDATION
    assert split.training == tuple(c.id for c in LITS if c.id not in VALIDATION.split())
    assert split.test == ()


def test_fold_3_of_lits_holds_the_patients_it_ever_held():
    assert " ".join(split_cases(LITS, validation=0.15, fold=3).validation) == FOLD_3


def numbered_as(*names):
    return [Case(name, name, None) for name in names]


def numbered(count):
    return [Case(str(n), str(n), None) for n in range(count)]


def test_adding_cases_moves_no_other():
    before, after = split_cases(numbered(80), 0.2, 0.1), split_cases(numbered(131), 0.2, 0.1)
    for part in ("training", "validation", "test"):
        assert set(getattr(before, part)) <= set(getattr(after, part))


def test_split_is_by_patient_and_complete():
    cases = [Case(str(n), f"patient {n // 3}", None) for n in range(60)]
    split = split_cases(cases, validation=0.3, test=0.2)
    patients = [
        {case.patient for case in cases if case.id in part}
        for part in (split.training, split.validation, split.test)
    ]
    assert all(patients)
    assert not any(one & other for one, other in itertools.combinations(patients, 2))
    assert sorted(split.training + split.validation + split.test) == sorted(c.id for c in cases)


def test_split_meets_its_shares_on_average():
    split = split_cases(numbered(2000), validation=0.15, test=0.1)
    assert len(split.validation) == pytest.approx(300, abs=50)
    assert len(split.test) == pytest.approx(200, abs=50)


def test_folds_validate_every_patient_once_and_leave_the_test_alone():
    splits = [split_cases(numbered(131), 0.2, 0.2, fold=fold) for fold in range(4)]
    validated = [case_id for split in splits for case_id in split.validation]
    assert len(validated) == len(set(validated))
    assert set(validated) | set(splits[0].test) == {str(n) for n in range(131)}
    assert len({split.test for split in splits}) == 1
    with pytest.raises(ValueError, match="fold must be 0 to 3"):
        split_cases(numbered(9), 0.2, 0.2, fold=4)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8, 10, 15, 20])
def test_folds_of_a_small_set_share_no_patient_and_leave_the_test_alone(count):
    splits = []
    for fold in range(11):
        with contextlib.suppress(ValueError):
            splits.append(split_cases(numbered(count), 0.09, 0.03, fold=fold))
    assert len(splits) < 11
    assert len({split.test for split in splits}) == 1
    parts = [splits[0].test, *(split.validation for split in splits)]
    assert sorted(itertools.chain(*parts), key=int) == [str(n) for n in range(count)]


def test_a_fold_without_patients_is_refused():
    with pytest.raises(ValueError, match="fold 1 holds none of the 8 patients: leave it out"):
        split_cases(numbered(8), 0.09, 0.03, fold=1)


def test_small_sets_still_validate_and_one_patient_trains():
    for count in range(2, 12):
        split = split_cases(numbered(count), validation=0.15)
        assert split.validation
        assert split.training
    assert split_cases(numbered(1), validation=0.15) == split_cases(numbered(1), validation=0)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        split_cases(numbered(5), validation=0.6, test=0.5)


def test_split_leaves_somebody_to_train_on_where_all_hash_elsewhere():
    names = [f"p{n}" for n in range(300)]
    pair = [name for name in names if split_cases(numbered_as(name), 0.9).validation][:2]
    split = split_cases(numbered_as(*pair), validation=0.9)
    assert (len(split.training), len(split.validation)) == (1, 1)


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
    split = split_cases(numbered_as(*map(str, numbers)), *shares)
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
