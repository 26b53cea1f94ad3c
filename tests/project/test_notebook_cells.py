"""Cells that the tiny run passes by, executed: the MSD archive in 01, a zip of DICOM in 04."""

import gzip
import logging
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest

pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import BODY_SPACING_MM, body, write_nifti
from helpers.drawn_dicom import write_series
from helpers.kaggle_stand_in import serving
from helpers.msd_stand_in import SERVERS, Shelf, archive_of, tar_of
from helpers.notebook_rules import read_notebooks
from helpers.repository import ROOT

import lits_helpers
from lits_helpers import pipeline
from lits_helpers.pipeline import acquisition
from lits_helpers.settings import load_settings
from lits_helpers.volumes import read_volume

FIRST, *_, LAST = read_notebooks(ROOT / "notebooks")


def run_cells(notebook, *beginnings, **names):
    """Execute the settings cell and those that begin so, as the notebook orders them."""
    for _, source in notebook.of("code"):
        if source.startswith("# @title Settings") or source.startswith(beginnings):
            form = {name: names[name] for name in names if name.isupper()}
            exec(source, names)  # the form's defaults first, then what is chosen in it
            names.update(form)
    return names


def test_notebook_01_fetches_from_msd_and_says_its_licence(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    hu, labels = body()
    files = {}
    for folder, array in (("imagesTr", hu), ("labelsTr", labels)):
        path = write_nifti(array, tmp_path / f"{folder}.nii", spacing_mm=BODY_SPACING_MM)
        packed = gzip.compress(path.read_bytes(), mtime=0)
        files[f"Task03_Liver/{folder}/liver_3.nii.gz"] = packed
    with serving(Shelf(archive=tar_of(files)), SERVERS) as shelf:
        monkeypatch.setattr(acquisition, "MsdArchive", lambda folder: archive_of(shelf, folder))
        monkeypatch.setattr(acquisition, "find_mounted", lambda _: None)
        given = {"root": tmp_path, "load_settings": load_settings, "pipeline": pipeline}
        form = {"SOURCE": "msd", "CASES": "3", "TINY": True}
        made = run_cells(FIRST, "places =", "data = pipeline.ensure_prepared", **given, **form)
    assert [case.id for case in made["data"].cases] == ["liver_3"]
    assert "CC BY-SA 4.0" in caplog.text
    prose = "".join(source for _, source in FIRST.of("markdown"))
    assert "Task03_Liver" in prose
    assert "CC BY-SA 4.0" in prose


def test_notebook_04_segments_an_uploaded_zip_of_dicom(tmp_path):
    write_series(tmp_path / "study", body()[0], spacing_mm=BODY_SPACING_MM)
    packed = shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "study")
    shown = []
    given = {"settings": load_settings(tmp_path), "results": tmp_path / "results", "Path": Path}
    given |= {"lits_helpers": lits_helpers, "pipeline": pipeline, "display": shown.append}
    run_cells(LAST, "if OWN_CT", **given, OWN_CT=packed)
    assert len(shown) == 1
    assert (tmp_path / "results" / "reported" / "upload.html").is_file()
    seg = tmp_path / "results" / "segmented" / "upload.dcm"
    assert lits_helpers.volumes.read_segmentation(seg, like=read_volume(packed)).max() <= 2


def test_notebook_04_finds_trained_models_wherever_they_are(tmp_path):
    given = {name: Mock() for name in ("lits_helpers", "pipeline", "settings", "display")}
    given |= {"results": tmp_path, "Path": Path}
    run_cells(LAST, "if OWN_CT", **given, OWN_CT="ct.nii.gz", OWN_MODELS="trained")
    models = given["lits_helpers"].segment.call_args.kwargs
    assert models["liver"] is given["pipeline"].ensure_liver_model.return_value
    assert models["tumor"] is given["pipeline"].ensure_tumor_model.return_value


@pytest.mark.parametrize("notebook", read_notebooks(ROOT / "notebooks")[1:3], ids=["02", "03"])
def test_a_training_stopped_in_its_first_epoch_is_told_not_raised(notebook, tmp_path):
    names = {"history": [], "recipe": Mock(), "settings": load_settings(tmp_path)}
    names["figures"] = Mock()
    run_cells(notebook, "title = ", "folder = settings.runs", **names)
    names["figures"].plot_history.assert_not_called()
    names["figures"].picture_grid.assert_not_called()
