"""What many cases say together, the table of it, and metrics.csv."""

import json
import math

import numpy as np
import pytest

from lits_helpers.metrics import (
    dice,
    evaluate_case,
    evaluate_dataset,
    format_summary,
    read_metrics_csv,
    write_metrics_csv,
)

SHAPE = (12, 40, 48)
SPACING_MM = (5.0, 0.7, 0.8)


def case(case_id: str, *, right: int, liver: int = 100, spacing_mm=SPACING_MM, **marks) -> dict:
    """A row of a case with `liver` liver voxels, of which the prediction hits `right`."""
    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[4].flat[:liver] = 1
    prediction[4].flat[:right] = 1
    return {"case_id": case_id, **marks} | evaluate_case(prediction, reference, spacing_mm)


def tumor_case(case_id: str, *, found: int, missed: int, invented: int, spacing_mm=SPACING_MM):
    """A row of a case with single-voxel lesions on a liver of 200 voxels."""
    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[4].flat[:200] = prediction[4].flat[:200] = 1
    for number in range(found + missed + invented):
        place = 2 * number
        if number < found + missed:
            reference[4].flat[place] = 2
        if number < found or number >= found + missed:
            prediction[4].flat[place] = 2
    return {"case_id": case_id} | evaluate_case(prediction, reference, spacing_mm)


ROWS = [case("007", right=100), case("b", right=60), case("c", right=0)]  # Dice 1, 0.75, 0
TUMOR_ROWS = [
    tumor_case("p", found=3, missed=1, invented=0),
    tumor_case("q", found=1, missed=0, invented=3),
    tumor_case("r", found=0, missed=0, invented=2),
    tumor_case("s", found=0, missed=0, invented=0),
]


def test_mean_sd_and_median_are_those_of_the_cases():
    found = evaluate_dataset(ROWS)["liver_dice"]
    assert found["cases"] == 3
    assert found["mean"] == pytest.approx(1.75 / 3)
    assert found["median"] == pytest.approx(0.75)
    assert found["sd"] == pytest.approx(np.std([1, 0.75, 0], ddof=1))


def test_global_dice_weighs_voxels_and_not_cases():
    rows = [case("large", right=400, liver=400), case("small", right=0, liver=100)]
    summary = evaluate_dataset(rows)
    assert summary["liver_dice_global"] == pytest.approx(800 / 900)
    assert summary["liver_dice"]["mean"] == pytest.approx(0.5)


def test_training_cases_are_left_out_of_everything():
    known = case("t", right=100, training_case=True)
    with_mark = evaluate_dataset([*ROWS, known])
    assert with_mark == evaluate_dataset(ROWS) | {"training_cases": 1}


def test_a_reference_of_the_liver_alone_counts_in_nothing_about_tumors():
    with_liver = evaluate_dataset([*TUMOR_ROWS, {**TUMOR_ROWS[1], "liver_only": True}])
    about = {key for key in with_liver if key.startswith(("tumor_", "lesion_", "burden_"))}
    plain = evaluate_dataset(TUMOR_ROWS)
    assert {key: with_liver[key] for key in about} == {key: plain[key] for key in about}
    assert with_liver["liver_dice"]["cases"] == plain["liver_dice"]["cases"] + 1


def test_tumor_means_count_the_cases_with_tumor_only():
    summary = evaluate_dataset(TUMOR_ROWS)
    assert summary["cases_with_tumor"] == summary["tumor_dice"]["cases"] == 2
    assert summary["tumor_dice"]["mean"] == pytest.approx((6 / 7 + 2 / 5) / 2)
    assert (summary["cases_without_tumor"], summary["cases_without_tumor_clean"]) == (2, 1)


def test_tumor_dice_over_all_cases_counts_false_alarms_as_zero_and_silence_as_one():
    found = evaluate_dataset(TUMOR_ROWS)["tumor_dice_all_cases"]
    assert found["cases"] == 4
    assert found["mean"] == pytest.approx((6 / 7 + 2 / 5 + 0 + 1) / 4)


def test_false_tumors_of_healthy_cases_count_in_global_dice():
    assert evaluate_dataset(TUMOR_ROWS)["tumor_dice_global"] == pytest.approx(2 * 4 / (5 + 9))


@pytest.mark.parametrize("name", ["lesion", "lesion_small"])
@pytest.mark.parametrize("overlap", ["0", "50"])
def test_lesions_are_pooled_over_the_cases(name, overlap):
    summary = evaluate_dataset(TUMOR_ROWS)  # 4 found, 1 missed, 5 invented
    assert summary[f"{name}_precision_{overlap}"] == pytest.approx(4 / 9)
    assert summary[f"{name}_recall_{overlap}"] == pytest.approx(4 / 5)
    assert summary[f"{name}_f1_{overlap}"] == pytest.approx(8 / 14)


def test_share_of_nothing_is_none():
    summary = evaluate_dataset(TUMOR_ROWS)
    assert summary["lesion_large_recall_0"] is None
    assert summary["lesion_large_f1_50"] is None


def test_burden_error_is_the_root_mean_square_and_the_greatest():
    rows = [
        {**TUMOR_ROWS[0], "burden_reference": 0.30, "burden_prediction": 0.26},
        {**TUMOR_ROWS[2], "burden_reference": 0.0, "burden_prediction": 0.03},  # without tumor
    ]
    summary = evaluate_dataset(rows)
    assert summary["burden_rmse"] == pytest.approx(math.sqrt((0.0016 + 0.0009) / 2))
    assert summary["burden_max"] == pytest.approx(0.04)


def test_worst_cases_come_first():
    assert evaluate_dataset(ROWS)["worst_liver"] == [["c", 0.0], ["b", 0.75], ["007", 1.0]]
    assert [name for name, _ in evaluate_dataset(TUMOR_ROWS)["worst_tumor"]] == ["q", "p"]


def test_cases_with_untrusted_spacing_stay_out_of_mm_and_size_figures_only():
    unsure = tumor_case("u", found=1, missed=0, invented=0, spacing_mm=None)
    summary = evaluate_dataset([*TUMOR_ROWS, unsure])
    assert (summary["cases"], summary["cases_with_mm"]) == (5, 4)
    assert summary["liver_dice"]["cases"] == 5
    assert (summary["liver_assd_mm"]["cases"], summary["tumor_assd_mm"]["cases"]) == (4, 2)
    assert summary["lesion_recall_0"] == pytest.approx(5 / 6)
    assert summary["lesion_small_recall_0"] == pytest.approx(4 / 5)


def test_interval_is_that_of_the_normal_approximation_for_many_cases():
    values = np.random.default_rng(3).normal(0.8, 0.1, 300)
    found = evaluate_dataset([{**ROWS[0], "liver_dice": value} for value in values])["liver_dice"]
    half = 1.96 * values.std(ddof=1) / math.sqrt(300)
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_draws_patients_with_all_their_cases():
    rng = np.random.default_rng(0)
    found = [int(n) for n in rng.choice(100, 30, replace=False)]
    alone = evaluate_dataset([case(str(n), right=n) for n in found])["liver_dice"]
    thrice = [case(f"{n}-{k}", right=n, patient=str(n)) for n in found for k in range(3)]
    assert evaluate_dataset(thrice)["liver_dice"]["high"] == pytest.approx(alone["high"])
    unknown = [{**row, "patient": None} for row in thrice]
    assert evaluate_dataset(unknown)["liver_dice"]["high"] < alone["high"]


def test_a_patient_with_a_number_for_a_name_is_one_patient_and_no_row():
    def found(patients):
        rows = [case(str(n), right=30 * n, patient=who) for n, who in enumerate(patients)]
        return evaluate_dataset(rows)["liver_dice"]

    assert found([0, 0, 1, 1]) == found(["a", "a", "b", "b"])
    assert found([1, None, 2]) == found(["a", "b", "c"])  # the second row is no case of patient 1


def test_interval_depends_on_the_random_seed_alone():
    rows = [{**ROWS[0], "liver_dice": value} for value in np.linspace(0.3, 0.9, 17) ** 2]
    assert evaluate_dataset(rows, seed=1) == evaluate_dataset(rows, seed=1)
    assert evaluate_dataset(rows, seed=1)["liver_dice"] != evaluate_dataset(rows)["liver_dice"]


def test_one_case_has_a_mean_and_no_deviation():
    found = evaluate_dataset(ROWS[1:2])["liver_dice"]
    assert found == {"cases": 1, "sd": None} | dict.fromkeys(
        ("mean", "median", "low", "high"), pytest.approx(0.75)
    )


def test_infinite_value_is_not_dropped_from_the_mean():
    found = evaluate_dataset(ROWS)["liver_rvd_prediction"]  # (R - P) / P with nothing predicted
    assert (found["mean"], found["sd"]) == (math.inf, math.inf)
    assert found["median"] == pytest.approx(40 / 60)
    assert not math.isnan(found["low"] + found["high"])


def test_no_case_gives_no_figure():
    for rows in ([], [case("t", right=100, training_case=True)]):
        summary = evaluate_dataset(rows)
        assert summary["cases"] == summary["liver_dice"]["cases"] == 0
        assert summary["liver_dice"]["mean"] is None
        assert summary["liver_dice_global"] is summary["burden_rmse"] is None
        assert "0 cases" in format_summary(summary)


def test_summary_goes_through_json_unchanged():
    summary = evaluate_dataset([*ROWS, *TUMOR_ROWS])
    assert json.loads(json.dumps(summary)) == summary


def test_rows_come_back_from_csv_as_they_were(tmp_path):
    rows = [
        {**row, "training_case": bool(number % 2), "note": None} for number, row in enumerate(ROWS)
    ]
    rows[1] |= case("b", right=60, spacing_mm=None, note="voxel size cannot be trusted, it says 1")
    path = write_metrics_csv(rows, tmp_path / "results" / "metrics.csv")
    again = read_metrics_csv(path)
    assert again == rows
    assert [[type(value) for value in row.values()] for row in again] == [
        [type(value) for value in row.values()] for row in rows
    ]


def test_csv_has_a_column_for_whatever_any_row_names(tmp_path):
    rows = [{"case_id": "1"}, {"case_id": "2", "liver_dice": 0.5}]
    path = write_metrics_csv(rows, tmp_path / "metrics.csv")
    assert path.read_text() == "case_id,liver_dice\n1,\n2,0.5\n"


def test_table_names_the_worst_case_and_who_was_left_out():
    rows = [*ROWS, case("t", right=100, training_case=True), case("u", right=100, spacing_mm=None)]
    text = format_summary(evaluate_dataset(rows))
    assert "1 training cases left out" in text
    assert "1 without mm figures" in text
    assert "worst liver Dice: c 0.000, b 0.750, 007 1.000\n" in text
    assert max(len(line) for line in text.splitlines()[1:]) <= 84


def test_table_shows_the_ceiling_beside_the_score_where_it_is_known():
    rows = [{**row, "liver_dice_ceiling": 0.977} for row in ROWS]
    lines = format_summary(evaluate_dataset(rows)).splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("liver Dice"))
    assert "perfect model" in lines[place + 1]
    assert "0.977" in lines[place + 1]
    assert "perfect model" not in format_summary(evaluate_dataset(ROWS))


def test_columns_of_large_distances_stay_apart():
    rows = [{**row, "liver_hd95_mm": 10531.0994} for row in ROWS]
    line = next(
        line
        for line in format_summary(evaluate_dataset(rows)).splitlines()
        if line.startswith("liver HD95")
    )
    large = "10531.099"
    assert line.split()[-6:] == [large, "0.000", large, large, "to", large]


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
