"""Which series of a study is taken, which slices make one, and what is refused as no even stack."""

import numpy as np
import pytest

pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import ramp
from helpers.drawn_dicom import shuffled, write_series
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage, generate_uid

from lits_helpers.volumes import read_volume

HU = ramp((7, 20, 24))
OTHERS = {  # what lies in a study beside its CT
    "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "capture": {"SOPClassUID": SecondaryCaptureImageStorage},
    "mr": {"SOPClassUID": MRImageStorage, "Modality": "MR"},
    "color": {"SamplesPerPixel": 3, "SOPClassUID": CTImageStorage},
}


pytestmark = pytest.mark.usefixtures("nobody_is_named")


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


def stacked(k, position):
    return moved(k, position, [0, 0, -5.0 * k])


def second_patient(k, position):
    return {"PatientID": "P2" if k == 3 else "P1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (uneven, r"series 4: .*5\.3 mm from IM001.dcm on, 6\.055 mm after IM006.dcm.*even spacing"),
        (tilted, r"series 4: .*tilted by 14\.6 degrees .*gantry tilt"),
        (doubled, r"series 4: IM00[45].dcm and IM00[45].dcm lie at one place"),
        (stacked, r"series 4: IM00[12].dcm and IM00[12].dcm lie at one place"),
        (second_patient, r"series 4: IM004.dcm is of another patient than IM001.dcm"),
    ],
)
def test_series_that_is_no_even_stack_is_refused_by_series_and_file(tmp_path, change, words):
    write_series(tmp_path, HU, change=change)
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("Rows", None), ("Rows", 0), ("Columns", None),
        ("ImagePositionPatient", [1.0, 2.0]), ("ImagePositionPatient", ["nan", "0", "0"]),
        ("ImageOrientationPatient", [1.0, 0.0, 0.0]),
        ("PixelSpacing", [0.7]), ("PixelSpacing", [0.0, 0.0]),
        ("RescaleSlope", 0), ("RescaleSlope", "nan"), ("RescaleIntercept", [1, 2]),
        ("RescaleIntercept", "inf"),
    ],
)  # fmt: skip
def test_number_that_makes_no_sense_is_named_with_its_tag_and_file(tmp_path, tag, value):
    with disable_value_validation():
        write_series(tmp_path, HU, change=lambda k, _: {tag: value} if k == 6 else {})
    words = rf"series 4 may lack a slice: .*IM007.dcm: its {tag} makes no sense: .*; mend or remove"
    with pytest.raises(ValueError, match=words):
        read_volume(tmp_path)


def test_localizer_whose_numbers_make_no_sense_is_left_aside(tmp_path):
    write_series(tmp_path / "ct", HU)
    with disable_value_validation():
        write_series(
            tmp_path, HU[:1], series=1, change=lambda *_: {"PixelSpacing": [0.7]}, **OTHERS["scout"]
        )
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)


def test_series_that_says_no_direction_is_no_axial_ct(tmp_path):
    write_series(tmp_path, HU, change=lambda *_: {"ImageOrientationPatient": None})
    with pytest.raises(ValueError, match=r"no axial CT series.* 4 \(7 slices, without positions\)"):
        read_volume(tmp_path)


def test_pixels_of_another_shape_than_their_header_says_are_named(tmp_path):
    write_series(tmp_path, HU, change=lambda *_: {"Rows": 10})
    with pytest.raises(ValueError, match=r"IM001.dcm: its pixels are \(2, 10, 24\)"):
        read_volume(tmp_path)


def test_more_pixels_than_a_header_can_state_are_refused(tmp_path):
    write_series(tmp_path, HU, change=lambda *_: {"Rows": 40000})
    with pytest.raises(ValueError, match="series 4 has 7 slices of 40000 x 24"):
        read_volume(tmp_path)


def test_slices_without_a_uid_of_their_own_are_read(tmp_path):
    write_series(tmp_path, HU)
    for path in tmp_path.iterdir():
        slice_of_ct = dcmread(path)
        del slice_of_ct.SOPInstanceUID
        slice_of_ct.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ([3], r"a slice is missing at z = 425 mm \(IM003.dcm and IM005.dcm are 10 mm apart, the"),
        ([2, 3, 5], r"3 slices are missing at z = 420, 425, 435 mm \(IM002.dcm and IM005.dcm are"),
    ],
)
def test_missing_slices_are_named_by_their_places(tmp_path, gone, words):
    files = write_series(tmp_path, ramp((9, 20, 24)))
    for k in gone:
        files[k].unlink()
    with pytest.raises(ValueError, match=rf"series 4: {words}.*export the whole series again"):
        read_volume(tmp_path)


def test_two_series_of_one_number_want_the_uid(tmp_path):
    write_series(tmp_path / "a", HU)
    uid = generate_uid(entropy_srcs=["another"])
    write_series(tmp_path / "b", HU[:5], SeriesInstanceUID=uid)
    with pytest.raises(ValueError, match=r"several series 4: name one by its UID: .*\d, "):
        read_volume(tmp_path, series="4")
    np.testing.assert_array_equal(read_volume(tmp_path, series=uid).hu, HU[:5])


def test_acquisitions_with_a_step_between_them_are_apart(tmp_path):
    def change(k, position):
        return {"AcquisitionNumber": 1 + k // 4} | moved(k, position, [0, 0, 2.0 * (k // 4)])

    write_series(tmp_path, HU, change=change)
    np.testing.assert_array_equal(read_volume(tmp_path).hu, HU[:4])


def test_several_patients_want_a_choice(tmp_path):
    write_series(tmp_path / "a", HU)
    write_series(tmp_path / "b", HU[:5], series=6, patient="P2", study="second")
    with pytest.raises(ValueError, match=r"several patients: name one \(series=\)"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path, series="6").hu, HU[:5])
