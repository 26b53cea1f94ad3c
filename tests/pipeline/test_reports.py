"""Reports from files: each CT with its labels, what the record knows, one broken case."""

import csv

import numpy as np
import pytest
from helpers.drawn import BODY_SPACING_MM, body, write_nifti
from helpers.drawn_predictions import predict
from helpers.grey_models import bright_model, tumor_model
from helpers.prepared_runs import write_prepared

from lits_helpers.__main__ import main
from lits_helpers.cases import find_cases
from lits_helpers.inference import find_volumes, second_look, segment_files
from lits_helpers.machine import read_json
from lits_helpers.pipeline import flags_of, open_result, report_predictions
from lits_helpers.pipeline.reports import cts_of
from lits_helpers.preprocess import open_prepared, prepare
from lits_helpers.report import judge
from lits_helpers.volumes import read_segmentation, read_volume, volume_from_array


@pytest.fixture(scope="module")
def cts(tmp_path_factory):
    """Two CTs and their labels, drawn."""
    root = tmp_path_factory.mktemp("reports")
    hu, labels = body()
    for number in (3, 4):
        write_nifti(hu, root / "cts" / f"volume-{number}.nii", spacing_mm=BODY_SPACING_MM)
        labeled = root / "labels" / f"prediction-volume-{number}.nii.gz"
        write_nifti(labels, labeled, spacing_mm=BODY_SPACING_MM)
    return root


def test_the_shell_reports_a_folder_and_one_broken_case_ends_no_other(cts, tmp_path, capsys):
    labels = cts / "labels"
    (labels / "prediction-volume-5.nii.gz").write_bytes(b"nothing")
    try:
        out = tmp_path / "out"
        assert main(["report", str(labels), "--ct", str(cts / "cts"), "--out", str(out)]) == 1
    finally:
        (labels / "prediction-volume-5.nii.gz").unlink()
    assert "report: no report, see above: 5" in capsys.readouterr().err
    with open(out / "report.csv", newline="") as stream:
        assert [row["case_id"] for row in csv.DictReader(stream)] == ["3", "4"]
    assert (out / "3.html").exists()


def test_the_shell_reports_one_file_of_any_name_with_meshes(cts, tmp_path, capsys):
    labels = cts / "labels" / "prediction-volume-3.nii.gz"
    mine = tmp_path / "mine.nii.gz"
    mine.write_bytes(labels.read_bytes())
    ct = str(cts / "cts" / "volume-4.nii")
    assert main(["report", str(mine), "--ct", ct, "--out", str(tmp_path), "--meshes"]) == 0
    assert "mine: " in capsys.readouterr().out
    assert (tmp_path / "mine-liver.stl").exists()


@pytest.mark.parametrize("packed", [True, False])
def test_cts_are_found_as_they_were_to_be_segmented(cts, tmp_path, capsys, packed):
    """Packed cases, and a layout that names cases otherwise than the one that fits best."""
    ct = write_prepared(tmp_path / "packed", cases=2).root if packed else cts / "cts"
    ids = ["0", "1"] if packed else ["volume-3", "volume-4"]
    for case_id in ids:
        path = tmp_path / "labels" / f"prediction-volume-{case_id}.nii.gz"
        write_nifti(body()[1], path, spacing_mm=BODY_SPACING_MM)
    words = ["report", str(tmp_path / "labels"), "--ct", str(ct), "--out", str(tmp_path / "out")]
    assert main([*words, *([] if packed else ["--layout", "suffix"])]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ids


def test_one_ct_for_several_labels_is_refused(cts, tmp_path, capsys):
    ct = str(cts / "cts" / "volume-4.nii")
    assert main(["report", str(cts / "labels"), "--ct", ct, "--out", str(tmp_path)]) == 1
    assert "is one CT, the labels are of 2: name its folder" in capsys.readouterr().err


def test_two_cts_of_one_name_are_refused_by_both(cts, tmp_path):
    for phase in ("arterial", "venous"):
        write_nifti(body()[0], tmp_path / phase / "volume-3.nii", spacing_mm=BODY_SPACING_MM)
    labels = {"3": cts / "labels" / "prediction-volume-3.nii.gz"}
    words = r"several CTs are called 3: .*arterial.volume-3\.nii, .*venous.volume-3\.nii; name the"
    with pytest.raises(ValueError, match=words):
        cts_of(labels, tmp_path)
    assert cts_of(labels, tmp_path / "venous")["3"].parent.name == "venous"


def test_the_shell_compares_two_dates_of_one_patient(cts, tmp_path, capsys):
    given = ["report", str(cts / "labels"), "--ct", str(cts / "cts"), "--out", str(tmp_path)]
    assert main([*given, "--compare", "3", "4"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / '3-4.html'}\n"
    (pair,) = read_json(tmp_path / "3-4.json")["pairs"]
    assert (pair["apart_mm"], pair["ml_change"]) == (0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3-4.html", "3-4.json"]
    assert main([*given, "--compare", "3", "7"]) == 1
    assert "no labels of case 7; there are those of 3, 4" in capsys.readouterr().err


def test_labels_of_another_grid_and_labels_without_ct_are_named(cts, tmp_path):
    moved = write_nifti(body()[1], tmp_path / "moved.nii", spacing_mm=(5.0, 0.9, 0.8))
    places = {"3": cts / "cts" / "volume-3.nii"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.csv").write_text("of before")
    rows, failed = report_predictions({"3": moved, "9": moved}, places, tmp_path / "out")
    assert rows == []
    assert (tmp_path / "out" / "report.csv").read_text() == "of before"
    assert "its header puts the voxels elsewhere than the CT" in failed["3"]
    assert "no CT of case 9 was found" in failed["9"]


def test_labels_of_other_numbers_are_remarked_on(cts, tmp_path):
    labels = np.array((0, 2, 1), np.uint8)[body()[1]]
    given = write_nifti(labels, tmp_path / "in" / "3.nii", spacing_mm=BODY_SPACING_MM)
    names = '{"labels": {"background": 0, "tumor": 1, "liver": 2}}'
    given.with_name("dataset.json").write_text(names)
    places = {"3": cts / "cts" / "volume-3.nii"}
    _, failed = report_predictions({"3": given}, places, tmp_path / "out")
    assert not failed
    remarks = read_json(tmp_path / "out" / "3.json")["flags"]["remarks"]
    assert "labels are read as dataset.json says: liver 2; tumor 1" in remarks


def test_prepared_cases_are_reported_without_naming_their_cts(tmp_path):
    data = write_prepared(tmp_path, cases=1)
    predictions = predict(data, tmp_path / "predictions", {"0": body()[1]})
    rows, failed = report_predictions(predictions, {"0": data.volume_path("0")}, tmp_path / "out")
    assert not failed
    assert (rows[0]["case_id"], rows[0]["lesions"]) == ("0", 1)


def test_what_was_odd_about_a_prepared_ct_is_in_its_report_and_its_mask_s_oddities_are_not(
    tmp_path,
):
    hu, labels = body()
    identity = {"affine": np.eye(4), "orientation": "LAS"}
    write_nifti(hu, tmp_path / "raw" / "volume-0.nii", **identity)
    scaled = labels.astype(np.float32) * np.float32(0.9999999)
    write_nifti(scaled, tmp_path / "raw" / "segmentation-0.nii", **identity)
    prepare(find_cases(tmp_path / "raw"), tmp_path / "prepared", workers=0, png=False)
    data = open_prepared(tmp_path / "prepared")
    codes = [finding["code"] for finding in data.case("0").record["findings"]]
    assert codes == ["labels_mended", "spacing_untrusted", "turned"]
    segment_files(find_volumes(data.volume_path("0")), tmp_path / "made", bright_model())
    made = {"0": tmp_path / "made" / "prediction-volume-0.nii.gz"}
    report_predictions(made, {"0": data.volume_path("0")}, tmp_path / "out")
    remarks = read_json(tmp_path / "out" / "0.json")["flags"]["remarks"]
    assert len(remarks) == 2
    assert "1 mm" in remarks[0]
    assert "read as LAS" in remarks[1]
    flags = flags_of(*open_as_shown(data, made["0"]), made["0"])
    assert flags == read_json(tmp_path / "out" / "0.json")["flags"]


def open_as_shown(data, path):
    volume, layers = open_result(data, "0", path)
    return volume, layers["prediction"]


def test_a_report_from_a_file_knows_how_sure_the_model_was(cts, tmp_path):
    model = bright_model()
    segment_files(find_volumes(cts / "cts"), tmp_path / "made", model)
    made = {"3": tmp_path / "made" / "prediction-volume-3.nii.gz"}
    report_predictions(made, {"3": cts / "cts" / "volume-3.nii"}, tmp_path / "out")
    report = read_json(tmp_path / "out" / "3.json")
    assert 0 <= report["evidence"]["liver_disagreement"] < 1
    assert report["makers"]["liver"][0]["training_ids"] == []


def test_a_report_of_a_tumor_model_alone_says_that_nobody_looked_for_the_liver(cts, tmp_path):
    segment_files(find_volumes(cts / "cts"), tmp_path / "made", None, tumor_model(0.9))
    made = tmp_path / "made" / "prediction-volume-3.nii.gz"
    ct = cts / "cts" / "volume-3.nii"
    (row,), _ = report_predictions({"3": made}, {"3": ct}, tmp_path / "out")
    assert (row["liver_ml"], row["burden"], row["flag"]) == (None, None, "look at it")
    assert row["reasons"] == "the liver was not looked for: no flag can judge these labels"
    flags = flags_of(read_volume(ct), read_segmentation(made), made)
    assert flags == read_json(tmp_path / "out" / "3.json")["flags"]


def test_a_second_look_finds_no_doubt_in_a_model_that_has_none():
    hu, labels = body()
    volume = volume_from_array(hu, (5.0, 0.7, 0.8))
    assert second_look(volume, labels, None) == {}
    assert second_look(volume, 0 * labels, bright_model()) == {}
    found = second_look(volume, labels, [bright_model(), bright_model(0.7)])
    assert found["liver_unsure"] == 0  # answers 0 or 1
    assert found["liver_removed"] > 0.1  # bright bone, which is no liver
    assert found["models_disagreement"] > 0


def test_a_tumor_model_is_as_unsure_as_its_probabilities_say():
    hu, labels = body()
    volume = volume_from_array(hu, (5.0, 0.7, 0.8))
    sure, doubtful = tumor_model(0.999), tumor_model(0.6)
    assert second_look(volume, np.minimum(labels, 1), None, sure) == {}
    tumor, liver = (np.count_nonzero(labels[labels.max(axis=(1, 2)) == 2] >= n) for n in (2, 1))
    found = [second_look(volume, labels, None, model)["tumor_unsure"] for model in (sure, doubtful)]
    # 1 - 2 p T / (p L + T): the models say it of the whole liver
    expected = [1 - 2 * p * tumor / (p * liver + tumor) for p in (0.999, 0.6)]
    assert found == pytest.approx(expected, abs=0.01)
    judged = judge({"tumor_unsure": 0.25})
    assert judged["reasons"] == ["the model is unsure of the tumor (25% of it)"]
