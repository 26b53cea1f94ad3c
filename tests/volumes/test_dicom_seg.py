"""DICOM SEG out and in: equal labels at every position, whatever the order of the CT's axes."""

# ruff: noqa: E402  (what may be missing is asked for first)

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')
highdicom = pytest.importorskip("highdicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import ORIENTATIONS, affine_of, ramp, write_nifti
from helpers.drawn_dicom import PATIENT, write_enhanced, write_seg, write_series
from pydicom.uid import generate_uid

from lits_helpers.settings import real_data
from lits_helpers.volumes import read_geometry, read_segmentation, read_volume, write_segmentation

HU = ramp((4, 6, 5))
DCMQI = shutil.which("segimage2itkimage") or shutil.which(
    "segimage2itkimage", path=str(sys.prefix) + "/bin"
)


def small_labels():
    """Symmetrical along no axis; empty at the first and the last slice."""
    labels = np.zeros(HU.shape, np.uint8)
    labels[1:3, 2:5, 1:3] = 1
    labels[2, 2, 2] = 2
    return labels


def segmented(folder, orientation="LPS", labels=None):
    """Write a series and its SEG; return the CT and the SEG's path."""
    write_series(folder / orientation, HU, orientation)
    volume = read_volume(folder / orientation, series="4")
    labels = small_labels() if labels is None else labels
    return volume, write_segmentation(labels, volume, folder / f"{orientation}.dcm")


def by_dcmqi(path, out):
    """Return labels (Z, Y, X) of the SEG's extent and its RAS affine in LPS order, by dcmqi."""
    command = [DCMQI, "--inputDICOM", path, "--outputDirectory", out, "-t", "nii"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    labels = None
    for label in (1, 2):
        image = nib.load(out / f"{label}.nii.gz")
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("LPS")
        )
        image = image.as_reoriented(turn)
        values = (np.asarray(image.dataobj).T > 0) * np.uint8(label)
        labels = values if labels is None else np.maximum(labels, values)
    return labels, image.affine


@pytest.mark.parametrize("first", ["L", "R", "P", "A", "S", "I"])
def test_seg_equals_the_labels_in_all_orders_and_flips(tmp_path, first):
    for orientation in (name for name in ORIENTATIONS if name[0] == first):
        volume, path = segmented(tmp_path, orientation)
        np.testing.assert_array_equal(volume.hu, HU)
        np.testing.assert_array_equal(read_segmentation(path, like=volume), small_labels())
        # Positions by highdicom's affine, without our code: every voxel of the tumor and the liver.
        seg = highdicom.seg.segread(path).get_volume(combine_segments=False)
        index = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ affine_of(HU.shape, "LPS")) @ seg.affine
        for channel, label in ((0, 1), (1, 2)):
            found = np.argwhere(seg.array[..., channel])
            places = np.rint(found @ index[:3, :3].T + index[:3, 3]).astype(int)[:, ::-1]
            assert set(map(tuple, places)) == set(map(tuple, np.argwhere(small_labels() >= label)))


@pytest.mark.skipif(DCMQI is None, reason="pip install dcmqi: the independent reader")
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "ISA", "PSR"])
def test_dcmqi_reads_the_same_labels_at_the_same_places(tmp_path, orientation):
    _, path = segmented(tmp_path, orientation)
    (tmp_path / "out").mkdir()
    found, affine = by_dcmqi(path, tmp_path / "out")
    first = np.rint(np.linalg.inv(affine_of(HU.shape, "LPS")) @ affine[:, 3]).astype(int)[2::-1]
    labels = np.zeros_like(HU, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(first, found.shape, strict=True))] = found
    np.testing.assert_array_equal(labels, small_labels())


def dcmqi_meta(*segments):
    """Return what dcmqi wants to know, for segments (name, code) of SNOMED CT."""

    def coded(value, meaning):
        return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}

    attributes = [
        {
            "labelID": 1, "SegmentLabel": name, "SegmentDescription": name,
            "SegmentAlgorithmType": "MANUAL",
            "SegmentedPropertyCategoryCodeSequence": coded("123037004", "Anatomical Structure"),
            "SegmentedPropertyTypeCodeSequence": coded(code, name),
        }
        for name, code in segments
    ]  # fmt: skip
    common = {"ContentLabel": "SEGMENTATION", "SeriesDescription": "by dcmqi"}
    common |= {"SeriesNumber": "300", "InstanceNumber": "1", "BodyPartExamined": "LIVER"}
    return json.dumps(common | {"segmentAttributes": [[one] for one in attributes]})


@pytest.mark.skipif(DCMQI is None, reason="pip install dcmqi: the independent writer")
def test_seg_that_dcmqi_writes_is_read(tmp_path):
    write_series(tmp_path / "ct", HU, "LPI", order=[2, 0, 3, 1])
    (tmp_path / "meta.json").write_text(dcmqi_meta(("Liver", "10200004"), ("Mass", "4147007")))
    images = [
        write_nifti(part.astype(np.uint8), tmp_path / f"{n}.nii")
        for n, part in enumerate((small_labels() > 0, small_labels() == 2))
    ]
    command = {
        "--inputImageList": ",".join(map(str, images)),
        "--inputDICOMDirectory": tmp_path / "ct",
        "--outputDICOM": tmp_path / "seg.dcm",
        "--inputMetadata": tmp_path / "meta.json",
    }
    tool = Path(DCMQI).with_name("itkimage2segimage")
    words = [tool, "--skip", 1, *(word for pair in command.items() for word in pair)]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    found = read_segmentation(tmp_path / "seg.dcm", like=read_volume(tmp_path / "ct"))
    np.testing.assert_array_equal(found, small_labels())


def test_seg_names_segments_algorithm_and_every_source_slice(tmp_path):
    volume, path = segmented(tmp_path)
    seg = pydicom.dcmread(path)
    liver, tumor = seg.SegmentSequence
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in (liver, tumor)]
    assert codes == ["Liver", "Neoplasm"]
    assert [item.SegmentLabel for item in (liver, tumor)] == ["Liver", "Liver tumor"]
    assert all("RecommendedDisplayCIELabValue" in item for item in (liver, tumor))
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "lits-helpers"
    series = seg.ReferencedSeriesSequence[0]
    referred = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referred == set(volume.geometry.dicom)
    assert len(referred) == 4
    assert seg.PatientName == PATIENT
    assert seg.StudyInstanceUID == generate_uid(entropy_srcs=["study"])


@pytest.mark.parametrize("kept", [(), (1,), (2,)])
def test_seg_without_a_tumor_or_a_liver_returns_as_it_was(tmp_path, kept):
    labels = np.where(np.isin(small_labels(), kept), small_labels(), 0)
    volume, path = segmented(tmp_path, labels=labels)
    np.testing.assert_array_equal(read_segmentation(path, like=volume), labels)


def test_seg_of_a_multi_frame_ct_is_in_the_order_of_its_frames(tmp_path):
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    single = [pydicom.dcmread(p) for p in write_series(tmp_path / "s", HU, order=[2, 0, 3, 1])]
    made = LegacyConvertedEnhancedCTImage(single, generate_uid(), 7, generate_uid(), 1)
    (tmp_path / "multi").mkdir()
    made.save_as(tmp_path / "multi" / "one.dcm")
    volume = read_volume(tmp_path / "multi")
    path = write_segmentation(small_labels(), volume, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_segmentation(path, like=volume), small_labels())


@pytest.mark.parametrize(
    "tag",
    [
        "PatientName", "PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber",
        "StudyInstanceUID", "FrameOfReferenceUID", "SliceThickness", "SeriesNumber",
    ],
)  # fmt: skip
def test_seg_is_written_for_a_ct_that_lacks_what_it_must_repeat(tmp_path, tag):
    for path in write_series(tmp_path / "ct", HU):
        dataset = pydicom.dcmread(path)
        delattr(dataset, tag)
        dataset.PatientBirthDate = dataset.get("PatientBirthDate") and "19450230"  # no such day
        dataset.save_as(path)
    volume = read_volume(tmp_path / "ct")
    path = write_segmentation(small_labels(), volume, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_segmentation(path, like=volume), small_labels())


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PatientSex", "W"), ("SliceThickness", "nan"), ("SpecificCharacterSet", ""),
        ("SpecificCharacterSet", "ISO_IR 6"),
    ],
)  # fmt: skip
def test_seg_is_written_for_a_ct_that_says_what_the_standard_does_not_know(tmp_path, tag, value):
    with pydicom.config.disable_value_validation():
        files = write_series(tmp_path / "ct", HU, change=lambda *_: {tag: value})
    volume = read_volume(files[0].parent)
    path = write_segmentation(small_labels(), volume, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_segmentation(path, like=volume), small_labels())


@pytest.mark.parametrize(
    ("letters", "name"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
    ],
)
def test_seg_bears_the_name_of_its_ct_in_any_letters(tmp_path, letters, name):
    for path in write_series(tmp_path / "ct", HU):
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet, dataset.PatientName = letters, name
        dataset.save_as(path)
    volume = read_volume(tmp_path / "ct")
    path = write_segmentation(small_labels(), volume, tmp_path / "seg.dcm")
    assert str(pydicom.dcmread(path).PatientName) == name


@pytest.mark.parametrize(
    "tag", ["Rows", "SegmentationType", "PixelData", "DimensionIndexSequence", "BitsAllocated"]
)
def test_damaged_seg_is_refused_by_name(tmp_path, tag):
    files = write_series(tmp_path / "ct", HU)
    path = write_seg(tmp_path / "seg.dcm", files, small_labels())
    dataset = pydicom.dcmread(path)
    delattr(dataset, tag)
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"cannot read .*seg.dcm: no DICOM SEG, or damaged \("):
        read_segmentation(path, like=read_volume(tmp_path / "ct"))


def test_seg_of_an_enhanced_ct_is_in_the_order_of_its_frames(tmp_path):
    path = write_enhanced(tmp_path / "one.dcm", HU, "RAI", order=[2, 0, 3, 1])
    volume = read_volume(path)
    seg = write_segmentation(small_labels(), volume, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_segmentation(seg, like=volume), small_labels())
    twin = read_volume(write_nifti(HU, tmp_path / "ct.nii", "LAS"))
    np.testing.assert_array_equal(read_segmentation(seg, like=twin), small_labels())


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_seg_of_other_programs_is_read_in_each_form(tmp_path, kind):
    files = write_series(tmp_path / "ct", HU, "LPI", order=[2, 0, 3, 1])
    path = write_seg(tmp_path / "seg.dcm", files, small_labels(), "LPI", kind, order=[2, 0, 3, 1])
    found = read_segmentation(path, like=read_volume(tmp_path / "ct"))
    np.testing.assert_array_equal(found, small_labels())


def test_seg_is_a_reference_for_the_same_ct_as_nifti(tmp_path):
    _, path = segmented(tmp_path)
    twin = read_volume(write_nifti(HU, tmp_path / "ct.nii", "RAS"))
    np.testing.assert_array_equal(read_segmentation(path, like=twin), small_labels())
    assert read_geometry(path).shape == (2, 6, 5)  # the extent that holds labels


def test_seg_of_another_ct_is_refused_by_name(tmp_path):
    _, path = segmented(tmp_path)
    elsewhere = affine_of(HU.shape, "LPS", origin=(0.33, 0.0, 0.0))
    other = read_volume(write_nifti(HU, tmp_path / "ct.nii", affine=elsewhere))
    with pytest.raises(ValueError, match=r"LPS.dcm: its voxels lie elsewhere than those of the CT"):
        read_segmentation(path, like=other)
    cut = read_volume(write_nifti(HU[:2], tmp_path / "cut.nii"))
    with pytest.raises(ValueError, match=r"LPS.dcm reaches beyond the CT"):
        read_segmentation(path, like=cut)


def test_seg_wants_a_ct_from_dicom_that_is_still_there(tmp_path):
    nifti = read_volume(write_nifti(HU, tmp_path / "ct.nii"))
    with pytest.raises(ValueError, match=r"ct.nii came from no DICOM: write .nii.gz"):
        write_segmentation(small_labels(), nifti, tmp_path / "seg.dcm")
    volume, _ = segmented(tmp_path)
    (tmp_path / "LPS" / "IM002.dcm").unlink()
    with pytest.raises(ValueError, match=r"LPS no longer holds the slices"):
        write_segmentation(small_labels(), volume, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_slices_that_share_a_uid_take_no_seg_and_the_cure_is_named(tmp_path):
    write_series(tmp_path / "ct", HU, change=lambda k, position: {"SOPInstanceUID": "1.2.3"})
    volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.hu, HU)
    with pytest.raises(ValueError, match=r"slices share one UID.*write \.nii\.gz"):
        write_segmentation(small_labels(), volume, tmp_path / "out.dcm")


def test_enhanced_files_of_one_frame_each_are_a_volume_that_takes_no_seg(tmp_path):
    hu = ramp((4, 6, 6))  # square: a row would spread over a slice without a word
    for k, plane in enumerate(hu):
        path = tmp_path / "ct" / f"{k}.dcm"
        made = pydicom.dcmread(write_enhanced(path, plane[None]))
        place = made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        x, y, z = place.ImagePositionPatient
        place.ImagePositionPatient = [x, y, z + 5 * k]
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        made.save_as(path)
    volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.hu, hu)
    with pytest.raises(ValueError, match=r"several files of frames.*write \.nii\.gz"):
        write_segmentation(np.zeros(hu.shape, np.uint8), volume, tmp_path / "out.dcm")


def test_a_segment_without_a_name_is_what_its_code_says(tmp_path):
    volume, path = segmented(tmp_path)
    seg = pydicom.dcmread(path)
    for number, item in enumerate(seg.SegmentSequence, 1):
        item.SegmentLabel = f"Segment_{number}"  # as 3D Slicer names them
    seg.save_as(path)
    np.testing.assert_array_equal(read_segmentation(path, like=volume), small_labels())


def test_seg_of_other_structures_is_refused_by_its_segments(tmp_path):
    _, path = segmented(tmp_path)
    seg = pydicom.dcmread(path)
    for item, name in zip(seg.SegmentSequence, ("Spleen", "Kidney"), strict=True):
        item.SegmentLabel = name
        item.SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"
    seg.save_as(path)
    with pytest.raises(ValueError, match=r"neither liver nor tumor; its segments: Spleen, Kidney"):
        read_segmentation(path)


@pytest.mark.parametrize(
    ("name", "code", "label"),
    [
        ("Kidney tumor", "1", 0),
        ("Kidney tumor", "108369006", 0),
        ("Colorectal cancer", "86049000", 0),
        ("Liver without tumor", "1", 1),
        ("Liver without tumor", "108369006", 1),
    ],
)
def test_tumors_of_other_organs_are_none_of_the_liver_whatever_their_code(
    tmp_path, name, code, label
):
    volume, path = segmented(tmp_path)
    seg = pydicom.dcmread(path)
    seg.SegmentSequence[1].SegmentLabel = name
    seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue = code
    seg.save_as(path)
    found = read_segmentation(path, like=volume)
    np.testing.assert_array_equal(found, np.minimum(small_labels(), 1))
    seg.SegmentSequence[0].SegmentLabel = "Spleen"
    seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"
    seg.save_as(path)
    if label:
        found = read_segmentation(path, like=volume)
        np.testing.assert_array_equal(found, small_labels() == 2)  # that segment alone
    else:
        with pytest.raises(ValueError, match="neither liver nor tumor"):
            read_segmentation(path)


@pytest.mark.real
def test_real_series_takes_a_seg(tmp_path):
    if real_data() is None:
        pytest.skip("LITS_REAL names no folder with real data")
    volume = read_volume(real_data() / "dicom" / "HCC_015", series="103")
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[10:30, 200:300, 100:200] = 1
    labels[15:20, 220:240, 120:150] = 2
    path = write_segmentation(labels, volume, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_segmentation(path, like=volume), labels)
    if DCMQI:
        (tmp_path / "out").mkdir()
        found, affine = by_dcmqi(path, tmp_path / "out")
        first = np.rint(np.linalg.inv(volume.geometry.affine) @ affine[:, 3]).astype(int)[2::-1]
        cut = tuple(slice(a, a + n) for a, n in zip(first, found.shape, strict=True))
        np.testing.assert_array_equal(found, labels[cut])
        assert np.count_nonzero(found) == np.count_nonzero(labels)
