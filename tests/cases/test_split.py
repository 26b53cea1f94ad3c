"""The split of LiTS's 131 cases: a value that no version may change.

With another one, patients a model was trained on would validate it.
"""

from lits_helpers.cases import Case, split_cases

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
