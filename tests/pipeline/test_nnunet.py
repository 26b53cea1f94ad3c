"""A split in nnU-Net's layout: the same cases, voxels and folds."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers.prepared_runs import write_prepared, write_raw

from lits_helpers.__main__ import main
from lits_helpers.cases import find_cases, load_case
from lits_helpers.machine import read_json
from lits_helpers.pipeline import export_nnunet
from lits_helpers.preprocess import open_prepared, prepare
from lits_helpers.settings import load_settings
from lits_helpers.volumes import open_volume


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four prepared cases, stored in three orientations, and what the shell wrote of them."""
    root = tmp_path_factory.mktemp("nnunet")
    data = write_prepared(root, cases=4)
    out = root / "nnUNet_raw" / "Dataset501_Liver"
    call = ["crossval", "--prepared", str(data.root), "--runs", str(root / "runs")]
    assert main([*call, "--folds", "2", "--nnunet", str(out)]) == 0
    assert not (root / "runs").exists()
    return data, out


def test_the_folder_holds_what_nnunet_looks_for(made):
    _, out = made
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == [
        "dataset.json",
        *(f"imagesTr/{n}_0000.nii.gz" for n in range(4)),
        *(f"labelsTr/{n}.nii.gz" for n in range(4)),
        "splits_final.json",
    ]
    assert read_json(out / "dataset.json") == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "file_ending": ".nii.gz",
        "numTraining": 4,
    }


def test_the_folds_are_those_of_the_cross_validation(made):
    data, out = made
    folds = [open_prepared(data.root, validation=1 / 2, fold=number).split for number in (0, 1)]
    splits = read_json(out / "splits_final.json")
    assert splits == [{"train": [*f.training], "val": [*f.validation]} for f in folds]
    assert sorted(name for split in splits for name in split["val"]) == ["0", "1", "2", "3"]


def test_images_and_labels_hold_the_prepared_voxels_on_one_grid_each(made):
    data, out = made
    cases = find_cases(out)
    assert [case.id for case in cases] == ["0", "1", "2", "3"]
    raw = {case.id: nib.load(case.volume) for case in find_cases(data.root.parent / "raw")}
    for case in cases:
        volume, labels, findings = load_case(case)
        assert not findings
        np.testing.assert_array_equal(volume.hu, open_volume(data.volume_path(case.id)).read())
        np.testing.assert_array_equal(labels, open_volume(data.labels_path(case.id)).read())
        image, reference = nib.load(case.volume), nib.load(case.segmentation)
        assert (image.get_data_dtype(), reference.get_data_dtype()) == (np.int16, np.uint8)
        np.testing.assert_array_equal(image.affine, reference.affine)
        np.testing.assert_array_equal(image.affine, raw[case.id].affine)
        np.testing.assert_array_equal(image.dataobj, raw[case.id].dataobj)


def test_an_interrupted_export_goes_on_and_a_case_prepared_anew_is_written_anew(made, tmp_path):
    data, _ = made
    settings = load_settings(tmp_path, prepared=data.root, runs=tmp_path / "runs", device="cpu")
    out = tmp_path / "out"
    export_nnunet(settings, out, folds=2)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    (out / "labelsTr" / "1.nii.gz").unlink()
    data.volume_path("2").touch()
    export_nnunet(settings, out, folds=2)
    changed = [p for p in out.rglob("*.nii.gz") if p.stat().st_mtime_ns != times[p]]
    assert {path.name.split("_")[0].split(".")[0] for path in changed} == {"1", "2"}


def test_cases_whose_tumors_are_not_known_are_left_out(tmp_path):
    cases = find_cases(write_raw(tmp_path / "raw", cases=4))
    cases[2] = replace(cases[2], liver_only=True)
    prepare(cases, tmp_path / "prepared", workers=0, png=False)
    settings = load_settings(tmp_path, prepared=tmp_path / "prepared", device="cpu")
    splits = read_json(export_nnunet(settings, tmp_path / "out", folds=2))
    known = {"0", "1", "3"}
    assert {name for split in splits for name in split["val"]} == known
    assert all({*split["train"], *split["val"]} == known for split in splits)
    assert len(list((tmp_path / "out" / "imagesTr").iterdir())) == 3
    assert read_json(tmp_path / "out" / "dataset.json")["numTraining"] == 3
