"""The benchmark of starting weights: who is trained on, and who is scored."""

from dataclasses import dataclass

import pytest

from benchmarks.recipe_tables import read_runs
from benchmarks.start_from import ROOT, parts, table


@dataclass(frozen=True)
class Scan:
    """What `parts` looks at."""

    id: str
    patient: str


SCANS = [Scan(str(number), f"person {number // 2}") for number in range(24)]  # two of each person


@pytest.mark.parametrize("folds", [0, 4])
def test_no_person_is_trained_on_and_scored(folds):
    person = {scan.id: scan.patient for scan in SCANS}
    scored = []
    for fold in range(folds or 12):
        training, scoring = parts(SCANS, fold, folds, 0)
        assert not {person[case] for case in training} & {person[case] for case in scoring}
        assert len(training) + len(scoring) == 24
        scored += scoring
    assert sorted(scored) == sorted(person)  # each once


def test_few_patients_are_among_many():
    few, scored = parts(SCANS, 1, 4, 2)
    many, _ = parts(SCANS, 1, 4, 5)
    assert (len(few), len(many)) == (4, 10)  # two scans of each person
    assert set(few) < set(many)
    assert not set(many) & set(scored)


def test_the_table_compares_the_same_folds_and_means_over_persons():
    def run(start, fold, *dice):
        wanted = {"system": "liver", "patients": 5, "seconds": 60.0, "start": start, "fold": fold}
        return wanted | {"dice": dice}

    runs = [
        run("random", 0, ["a", 0.5], ["a", 0.7], ["b", 0.8]),  # person a 0.6, b 0.8: 0.7
        run("synthetic", 0, ["a", 0.9], ["a", 0.9], ["b", 0.9]),
        run("synthetic", 1, ["c", 0.1]),  # has no partner yet
    ]
    assert table(runs).splitlines()[2:] == ["| liver | 5 | 60 | 0.700 | 0.900 | 1 |"]


def test_the_page_of_results_shows_the_table_of_the_recorded_runs():
    page = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    lines = table(read_runs(ROOT / "docs" / "results" / "start_from_runs.jsonl")).splitlines()
    assert [line for line in lines if line not in page] == []
    assert len(lines) > 3
