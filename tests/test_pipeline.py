"""What each notebook begins with: data and models are found, restored, or made on the spot."""

from dataclasses import replace

import pytest
from prepared_runs import VARIABLES, write_checkpoint, write_prepared, write_raw
from small_runs import small_liver

from lits_helpers import pipeline, recipes
from lits_helpers.checkpoints import read_origin
from lits_helpers.pipeline import (
    acquisition,
    checkpoint_path,
    ensure_liver_model,
    ensure_prepared,
    ensure_tumor_model,
)
from lits_helpers.pipeline import trainings as trainings_module
from lits_helpers.pipeline.acquisition import parse_numbers
from lits_helpers.preprocess import open_prepared
from lits_helpers.settings import load_settings

ENSURE = {"liver": ensure_liver_model, "tumor": ensure_tumor_model}
TRAIN = {"liver": "train_liver_gan", "tumor": "train_tumor_regnet"}
NOTEBOOK = {"liver": "notebook 02", "tumor": "notebook 03"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Settings of a full run on phantoms that are small."""
    for tiny in (True, False):
        monkeypatch.setitem(acquisition.PHANTOMS, tiny, (3, (12, 40, 48)))
    return load_settings(tmp_path, device="cpu")


@pytest.fixture
def trainings(monkeypatch):
    """Calls of the trainings, of which none is done."""
    calls = []
    for system, name in TRAIN.items():

        def record(*given, system=system, **options):
            calls.append((system, given, options))

        monkeypatch.setattr(trainings_module, name, record)
    return calls


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- data ----------------------------------------------------------------------------------------


def test_missing_phantoms_are_made_and_prepared_once(small):
    data = ensure_prepared(small, workers=0)
    assert [case.id for case in data.cases] == ["0", "1", "2"]
    assert (data.root, data.split.test) == (small.prepared, ())
    assert sorted(data.split.training + data.split.validation) == ["0", "1", "2"]
    assert data.split.validation
    before = files_below(small.raw) | files_below(small.prepared)
    assert ensure_prepared(small, workers=0) == data
    assert files_below(small.raw) | files_below(small.prepared) == before


def test_slices_for_system_a_are_exported_where_they_are_asked_for(small):
    data = ensure_prepared(small, workers=0)
    assert not (data.root / "images").exists()
    data = ensure_prepared(small, png=True, workers=0)
    for kind in ("images", "masks"):
        pictures = list((data.root / kind / "0").glob("*.png"))
        assert len(pictures) == data.case("0").shape[0]


def test_a_folder_is_read_in_place(small, tmp_path):
    scans = write_raw(tmp_path / "scans", cases=2)
    before = files_below(scans)
    data = ensure_prepared(replace(small, source="folder", raw=scans), workers=0)
    assert [case.id for case in data.cases] == ["0", "1"]
    assert files_below(scans) == before


def test_drive_is_mounted_before_a_folder_on_it_is_read(small, tmp_path, monkeypatch):
    scans = tmp_path / "drive" / "scans"
    monkeypatch.setattr(acquisition, "drive_folder", lambda *_: write_raw(scans, cases=2))
    data = ensure_prepared(replace(small, source="folder", raw=scans, drive=True), workers=0)
    assert [case.id for case in data.cases] == ["0", "1"]


def test_a_folder_of_which_nothing_can_be_prepared_is_named(small, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "volume-0.nii").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"none of the cases under .*scans could be"):
        ensure_prepared(replace(small, source="folder", raw=tmp_path / "scans"), workers=0)


def test_a_folder_without_cases_is_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no case under .*scans: expected volume-N\.nii"):
        ensure_prepared(replace(small, source="folder", raw=tmp_path / "scans"))
    with pytest.raises(FileNotFoundError, match=r"no prepared case under .*run notebook 01"):
        open_prepared(tmp_path / "prepared")


def test_kaggle_is_asked_for_the_numbers_of_the_form(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(acquisition, "download", lambda _, numbers, **o: asked.append((numbers, o)))
    data = write_prepared(tmp_path / "drawn")
    chosen = replace(small, source="kaggle", prepared=data.root)
    found = ensure_prepared(chosen, case_numbers="0-2", png=True)
    assert asked == [("0-2", {"png": True, "workers": None})]
    assert found.cases == data.cases


def test_cases_without_reference_are_in_no_part_of_the_split(small, tmp_path):
    scans = write_raw(tmp_path / "scans", cases=4)
    (scans / "segmentations" / "segmentation-2.nii").unlink()
    data = ensure_prepared(replace(small, source="folder", raw=scans), workers=0)
    assert len(data.cases) == 4
    assert not data.case("2").has_segmentation
    assert sorted(data.split.training + data.split.validation) == ["0", "1", "3"]


def test_an_unknown_case_is_named_with_those_there_are(tmp_path):
    data = write_prepared(tmp_path)
    with pytest.raises(KeyError, match=r"no case '7' in .*; there are 0, 1, 2"):
        data.volume_path("7")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-2, 27", [0, 1, 2, 27]),
        ("5", [5]),
        ("3,1,3,1-2", [1, 2, 3]),
        ("7-7,", [7]),
        ("", list(range(131))),
        (" ", list(range(131))),
    ],
)
def test_case_numbers_are_read_from_text(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["a", "1-", "-3", "1;2", "1-2-3", "1.5", "9-5"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match='case numbers look like "0-9, 27", got'):
        parse_numbers(text)


# --- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ENSURE)
def test_a_model_that_is_there_is_returned(small, trainings, system):
    path = write_checkpoint(checkpoint_path(small, system), system, network=False)
    assert ENSURE[system](small, None) == path
    assert path == small.runs / system / "checkpoints" / "best_model.pth"
    assert trainings == []


@pytest.mark.parametrize("system", ENSURE)
@pytest.mark.parametrize("source", ["folder", "kaggle"])
def test_without_phantoms_a_missing_model_names_its_notebook(small, trainings, system, source):
    with pytest.raises(
        FileNotFoundError, match=f"no {system} model at .*{NOTEBOOK[system]} trains one"
    ):
        ENSURE[system](replace(small, source=source), None)
    assert trainings == []


@pytest.mark.parametrize("system", ENSURE)
def test_a_model_on_drive_is_brought_back(small, trainings, monkeypatch, system):
    restored = []
    monkeypatch.setattr(
        trainings_module, "restore_model", lambda *given: restored.append(given) or True
    )
    assert ENSURE[system](small, None) == checkpoint_path(small, system)
    assert restored == [(small, system)]
    assert trainings == []


@pytest.mark.parametrize("system", ENSURE)
@pytest.mark.parametrize("tiny", [True, False])
def test_on_phantoms_a_small_model_is_trained_beside_a_full_run(
    small, trainings, tmp_path, system, tiny
):
    data = write_prepared(tmp_path / "drawn")
    chosen = replace(small, tiny=tiny)
    runs = small.runs if tiny else small.runs / "small"
    assert ENSURE[system](chosen, data) == runs / system / "checkpoints" / "best_model.pth"
    recipe = getattr(recipes, f"{system}_recipe")(tiny=True)
    given = (data.root, runs / system, data.split, recipe)
    assert trainings == [(system, given, {"device": "cpu", "mirror": None})]


def test_the_small_model_is_trained_once(small, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.LIVER_RECIPES, "default", small_liver())
    monkeypatch.setattr(recipes, "TINY_LIVER", {})
    data = write_prepared(tmp_path / "drawn")
    path = ensure_liver_model(small, data)
    assert read_origin(path).training_ids == data.split.training
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert ensure_liver_model(small, data) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_what_a_stopped_training_left_goes_to_drive_too(small, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    kept = []
    monkeypatch.setattr(trainings_module, "train_liver_gan", stopped)
    monkeypatch.setattr(trainings_module, "keep_run", lambda *given: kept.append(given))
    data = write_prepared(tmp_path / "drawn")
    with pytest.raises(KeyboardInterrupt):
        pipeline.train_liver(small, data)
    assert kept == [(small.runs / "liver", None)]


@pytest.mark.parametrize("system", ENSURE)
def test_options_go_to_the_training_and_win_over_the_settings(small, trainings, tmp_path, system):
    data = write_prepared(tmp_path / "drawn")
    recipe = getattr(recipes, f"{system}_recipe")("original")
    getattr(trainings_module, f"train_{system}")(small, data, recipe, seed=3, device="cuda")
    given = (data.root, small.runs / system, data.split, recipe)
    assert trainings == [(system, given, {"device": "cuda", "mirror": None, "seed": 3})]
