"""References of 3D-IRCADb and CHAOS: folders of masks beside a DICOM CT."""

import cv2
import numpy as np
import pytest

pytest.importorskip("pydicom", reason='pip install highdicom "pylibjpeg[all]"')

from helpers.drawn import body
from helpers.drawn_dicom import shuffled, write_series

from lits_helpers.cases import find_cases
from lits_helpers.preprocess import open_prepared, prepare
from lits_helpers.volumes import open_volume, read_segmentation, read_volume

HU, LABELS = body((9, 30, 38))


def mask(chosen):
    return chosen.astype(np.int16) * 255


def write_ircadb(folder, labels=LABELS, **tags):
    """3Dircadb1.N as it is given out: CT, and one folder of DICOM for each structure."""
    write_series(folder / "PATIENT_DICOM", HU, **tags)
    halves = np.arange(labels.shape[2]) < 11
    parts = {
        "liver": labels > 0,
        "livertumor01": (labels == 2) & halves,
        "livertumor02": (labels == 2) & ~halves,
        "livercyst": np.roll(labels == 1, 3, axis=2),
        "bone": labels == 0,
    }
    for number, (name, part) in enumerate(parts.items()):
        write_series(
            folder / "MASKS_DICOM" / name, mask(part), order=[*range(4, 9), *range(4)],
            series=10 + number,
        )  # fmt: skip
    return folder


def write_chaos(folder, orientation="LPS", backwards=False, order=None):
    """N/DICOM_anon and N/Ground of CHAOS; masks are numbered by position, from 5 on."""
    write_series(folder / "DICOM_anon", HU, orientation, order)
    (folder / "Ground").mkdir()
    for k, plane in enumerate(LABELS[::-1] if backwards else LABELS):
        path = str(folder / "Ground" / f"liver_GT_{k + 5}.png")
        cv2.imwrite(path, (plane > 0).astype(np.uint8) * 255)
    return folder


def test_ircadb_joins_tumors_and_leaves_cysts(tmp_path):
    root = write_ircadb(tmp_path)
    volume = read_volume(root / "PATIENT_DICOM")
    found = read_segmentation(root / "MASKS_DICOM", like=volume)
    np.testing.assert_array_equal(found, LABELS)


def test_ircadb_masks_are_paired_by_position_with_a_turned_ct(tmp_path):
    root = write_ircadb(tmp_path, order=[8, 0, 4, 2, 6, 1, 3, 5, 7])
    volume = read_volume(root / "PATIENT_DICOM", orientation="RPS")
    found = read_segmentation(root / "MASKS_DICOM", like=volume)
    np.testing.assert_array_equal(found, LABELS[:, :, ::-1])


def test_ircadb_masks_may_bear_the_rescaling_of_their_ct(tmp_path):
    root = write_ircadb(tmp_path)
    tags = {"RescaleIntercept": -1024, "PixelRepresentation": 0, "series": 10}
    write_series(root / "MASKS_DICOM" / "liver", mask(LABELS > 0) - 1024, **tags)
    found = read_segmentation(root / "MASKS_DICOM", like=read_volume(root / "PATIENT_DICOM"))
    np.testing.assert_array_equal(found, LABELS)


def test_ircadb_masks_of_another_ct_are_refused(tmp_path):
    root = write_ircadb(tmp_path)
    write_series(root / "MASKS_DICOM" / "liver", mask(LABELS > 0), order=range(8), series=30)
    (root / "MASKS_DICOM" / "liver" / "IM009.dcm").unlink()
    volume = read_volume(root / "PATIENT_DICOM")
    with pytest.raises(ValueError, match=r"liver: its 8 slices lie elsewhere than those of the CT"):
        read_segmentation(root / "MASKS_DICOM", like=volume)


@pytest.mark.parametrize("orientation", ["LPS", "LPI"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("order", [range(9), range(8, -1, -1), shuffled(9)])
def test_chaos_masks_are_paired_by_position_whatever_the_names_say(
    tmp_path, orientation, backwards, order
):
    root = write_chaos(tmp_path, orientation, backwards, order)
    volume = read_volume(root / "DICOM_anon")
    np.testing.assert_array_equal(volume.hu, HU)
    found = read_segmentation(root / "Ground", like=volume)
    np.testing.assert_array_equal(found, LABELS > 0)


def test_chaos_of_another_count_is_refused(tmp_path):
    root = write_chaos(tmp_path)
    (root / "Ground" / "liver_GT_8.png").unlink()
    with pytest.raises(ValueError, match=r"Ground holds 8 masks, its CT 9 slices"):
        read_segmentation(root / "Ground", like=read_volume(root / "DICOM_anon"))


def test_both_are_found_checked_and_prepared(tmp_path):
    write_ircadb(tmp_path / "raw" / "3Dircadb1.1")
    write_chaos(tmp_path / "raw" / "chaos" / "7", backwards=True)
    for folder, layout, expected in (
        ("3Dircadb1.1", "ircadb", LABELS),
        ("chaos", "chaos", (LABELS > 0).astype(np.uint8)),
    ):
        cases = find_cases(tmp_path / "raw" / folder, layout)
        report = prepare(cases, tmp_path / layout, workers=0, png=False)
        assert len(report.prepared) == 1, report.table()
        (case,) = open_prepared(tmp_path / layout).cases
        assert case.liver_only == (layout == "chaos")
        prepared = open_prepared(tmp_path / layout)
        np.testing.assert_array_equal(open_volume(prepared.labels_path(case.id)).read(), expected)
