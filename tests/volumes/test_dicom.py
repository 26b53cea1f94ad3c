"""DICOM in: which series is taken, where its voxels lie, and what is refused."""

# ruff: noqa: E402  (what may be missing is asked for first)

import logging
import random
import shutil
import sys
import zipfile

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')
pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import SPACING_MM, ramp
from helpers.drawn_dicom import PATIENT, write_series
from pydicom.uid import (
    CTImageStorage,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from lits_helpers.settings import real_data
from lits_helpers.volumes import find_studies, open_volume, read_volume

HU = ramp((7, 20, 24))
OTHERS = {  # what lies in a study beside its CT
    "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "capture": {"SOPClassUID": SecondaryCaptureImageStorage},
    "mr": {"SOPClassUID": MRImageStorage, "Modality": "MR"},
    "color": {"SamplesPerPixel": 3, "SOPClassUID": CTImageStorage},
}


@pytest.fixture(autouse=True)
def nobody_is_named(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert PATIENT not in caplog.text
    assert "Jane" not in caplog.text


def shuffled(count):
    return random.Random(3).sample(range(count), count)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PixelRepresentation": 0, "RescaleIntercept": -1024},
        {"RescaleSlope": 2, "RescaleIntercept": -1000},
    ],
)
@pytest.mark.parametrize("orientation", ["LPS", "LPI", "RAS"])
def test_series_has_the_voxels_and_places_that_simpleitk_reads(tmp_path, orientation, tags):
    sitk = pytest.importorskip("SimpleITK", reason="pip install SimpleITK")
    files = write_series(tmp_path, HU, orientation, order=shuffled(7), **tags)
    volume = read_volume(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    image = reader.Execute()
    oracle = sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(volume.hu, sitk.GetArrayFromImage(oracle))
    np.testing.assert_allclose(volume.spacing_mm, oracle.GetSpacing()[::-1], atol=1e-5)
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    turn = np.diag([-1, -1, 1])
    np.testing.assert_allclose(
        np.array(volume.geometry.affine)[:3],
        turn @ np.column_stack([directions, image.GetOrigin()]),
        atol=1e-4,
    )


def test_axial_ct_of_most_slices_is_taken_and_the_others_are_listed(tmp_path, caplog):
    write_series(tmp_path / "a" / "b", HU, order=shuffled(7), SeriesDescription="portal")
    write_series(tmp_path / "arterial", HU[:5], series=3)
    write_series(tmp_path / "coronal", ramp((9, 9, 9)), "LSP", series=9)
    for number, (name, tags) in enumerate(OTHERS.items()):
        write_series(tmp_path / name, ramp((9, 8, 8)), series=20 + number, **tags)
    (tmp_path / "readme.txt").write_text("x" * 500)
    (tmp_path / "empty").touch()
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)
    line = next(text for text in caplog.messages if "series 4 (7 slices, portal)" in text)
    for other in (
        "3 (5 slices)", "not axial", "localizer", "secondary capture", "MR", "RGB",
    ):  # fmt: skip
        assert other in line
    np.testing.assert_array_equal(read_volume(tmp_path, series="3").hu, HU[:5])
    with pytest.raises(ValueError, match=r"no series 5 with slices; there are: .*3 \(5 slices\)"):
        read_volume(tmp_path, series="5")


def test_a_file_stands_for_its_series(tmp_path):
    files = write_series(tmp_path, HU)
    for number, path in enumerate(write_series(tmp_path / "other", ramp((9, 20, 24)), series=5)):
        shutil.move(path, tmp_path / f"other{number}.dcm")
    np.testing.assert_array_equal(read_volume(files[2]).hu, HU)


def test_zip_is_read_as_the_folder_in_it_and_unpacks_nothing(tmp_path):
    write_series(tmp_path / "study", HU)
    packed = shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "study")
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(read_volume(packed).hu, HU)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [("../a.dcm", "outside its folder"), ("/a.dcm", "outside its folder"), (None, "damaged")],
)
def test_hostile_or_damaged_zip_is_refused_by_name(tmp_path, name, words):
    path = tmp_path / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name or "a.dcm", b"x" * 900)
    if name is None:
        path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match=rf"upload.zip: .*{words}"):
        read_volume(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_pixels_are_decoded(tmp_path, syntax):
    hu = ramp((3, 64, 72))  # JPEG 2000 wants some size
    for path in write_series(tmp_path, hu):
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, hu)


def test_multi_frame_file_is_a_volume(tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    files = write_series(tmp_path / "single", HU, order=shuffled(7))
    single = [pydicom.dcmread(path) for path in files]
    made = LegacyConvertedEnhancedCTImage(single, generate_uid(), 7, generate_uid(), 1)
    (tmp_path / "multi").mkdir()
    made.save_as(tmp_path / "multi" / "one.dcm")
    volume = read_volume(tmp_path / "multi")
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.spacing_mm == SPACING_MM


def test_copies_of_slices_count_once_and_acquisitions_are_apart(tmp_path):
    def named(number):
        return lambda k, _: {
            "AcquisitionNumber": number,
            "SOPInstanceUID": generate_uid(entropy_srcs=[str(number), str(k)]),
        }

    write_series(tmp_path / "one", HU, change=named(1))
    write_series(tmp_path / "copy", HU, change=named(1))
    write_series(tmp_path / "two", HU[:5] + 1, change=named(2))
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)
    np.testing.assert_array_equal(read_volume(tmp_path, series="4:2").hu, HU[:5] + 1)


def test_acquisitions_that_follow_each_other_are_one_volume(tmp_path):
    write_series(tmp_path, HU, change=lambda k, _: {"AcquisitionNumber": 1 + k // 3})
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)


def moved(k, position, by):
    return {"ImagePositionPatient": [float(value) for value in np.round(position + by, 4)]}


def uneven(k, position):
    return moved(k, position, [0, 0, 0.3 * k**1.5])


def tilted(k, position):
    return moved(k, position, [0, 1.3 * k, 0])


def doubled(k, position):
    return moved(k, position, [0, 0, -5.0 if k == 4 else 0])


def second_patient(k, position):
    return {"PatientID": "P2" if k == 3 else "P1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (uneven, r"series 4: its slices are .* mm apart .*even spacing"),
        (tilted, r"series 4: .*tilted by 14\.6 degrees .*gantry tilt"),
        (doubled, r"series 4: IM00[45].dcm and IM00[45].dcm lie at one place"),
        (second_patient, r"series 4: IM004.dcm is of another patient than IM001.dcm"),
    ],
)
def test_series_that_is_no_even_stack_is_refused_by_series_and_file(tmp_path, change, words):
    write_series(tmp_path, HU, change=change)
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


def test_missing_slice_is_named_by_its_neighbours(tmp_path):
    write_series(tmp_path, HU)[3].unlink()
    words = (
        r"series 4: IM003.dcm and IM005.dcm are 10 mm apart, the others 5 mm: a slice is missing"
    )
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


def test_cut_file_is_named(tmp_path):
    files = write_series(tmp_path, HU)
    files[2].write_bytes(files[2].read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"series 4, .*IM003.dcm: its pixels are damaged"):
        read_volume(tmp_path)


def test_several_patients_want_a_choice(tmp_path):
    write_series(tmp_path / "a", HU)
    write_series(tmp_path / "b", HU[:5], series=6, patient="P2", study="second")
    with pytest.raises(ValueError, match=r"several patients: name one \(series=\)"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path, series="6").hu, HU[:5])


@pytest.mark.parametrize(("name", "words"), [("DICOMDIR", "only a DICOMDIR"), ("x", "no DICOM im")])
def test_folder_without_images_is_refused(tmp_path, name, words):
    (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


def test_missing_package_is_named_with_its_cure(tmp_path, monkeypatch):
    write_series(tmp_path, HU)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"pip install highdicom"):
        read_volume(tmp_path)


def test_slices_are_read_at_random(tmp_path):
    write_series(tmp_path / "study", HU)
    volume = open_volume(tmp_path / "study", cache=tmp_path / "cache")
    np.testing.assert_array_equal(volume.slice(5), HU[5])
    assert volume.spacing_mm == SPACING_MM


def test_studies_are_told_apart_and_a_broken_file_ends_no_other(tmp_path, caplog):
    write_series(tmp_path / "a", HU)
    write_series(tmp_path / "b", HU, study="second", patient="P2")
    write_series(tmp_path / "c", HU, study="third", **OTHERS["mr"])
    (tmp_path / "b" / "IM001.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    studies = find_studies(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    assert [{path.parent.name for path in files} for files in studies.values()] == [{"a"}, {"b"}]


@pytest.mark.real
def test_real_series_equal_simpleitk(caplog):
    sitk = pytest.importorskip("SimpleITK", reason="pip install SimpleITK")
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    study = real_data() / "dicom" / "HCC_015"
    reader = sitk.ImageSeriesReader()
    for label, folder in (("4", "19981101_s004_acq1"), ("103", "19981101_s103_acq3")):
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(study / folder)))
        image = reader.Execute()
        volume = read_volume(study, series=label)
        np.testing.assert_array_equal(volume.hu, sitk.GetArrayFromImage(image))
        np.testing.assert_allclose(volume.spacing_mm, image.GetSpacing()[::-1], atol=1e-5)
    assert read_volume(study).hu.shape[0] == 62
    assert any("not taken: 4 (61 slices" in text for text in caplog.messages)
