"""Slices of packed cases, PNG folders and NIfTI pairs, and the data sets of them."""

import json
import os
import shutil

import cv2
import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.drawn import (
    BODY_SPACING_MM,
    SPACING_MM,
    blob,
    body,
    ramp,
    stored_as,
    write_case,
    write_nifti,
)
from helpers.logs import logged
from helpers.packed_cases import LIVER, TUMOR, write_packed_case

from lits_helpers.cases import find_cases
from lits_helpers.datasets import LiverSlices, TumorSlices
from lits_helpers.datasets.slices import find_slices, fingerprint, nearest_neighbors
from lits_helpers.preprocess import prepare, prepared_cases
from lits_helpers.recipes import InputSpec
from lits_helpers.volumes import Frame, resize_mask, slice_levels


def test_liver_item_is_the_windowed_slice_and_the_liver_with_its_tumor(prepared):
    image, mask = LiverSlices(prepared, ["3"], LIVER)[5]
    aspect = SPACING_MM[1] / SPACING_MM[2]
    levels = slice_levels(ramp()[5], LIVER, Frame(aspect))
    torch.testing.assert_close(image, torch.from_numpy(levels / np.float32(255))[None])
    assert torch.equal(mask[0], torch.from_numpy(resize_mask(blob()[5], 32, aspect) >= 1).float())
    assert (image.dtype, mask.dtype) == (torch.float32, torch.float32)


def test_slices_follow_the_order_of_the_case_ids(prepared):
    slices = LiverSlices(prepared, ["12", "3"], LIVER)
    assert len(slices) == 9 + 12
    assert torch.equal(slices[9][0], LiverSlices(prepared, ["3"], LIVER)[0][0])
    assert torch.equal(slices[-1][0], slices[20][0])
    with pytest.raises(IndexError, match="slice 21 of a data set of 21"):
        slices[21]


def test_data_set_survives_spawned_workers(prepared):
    import pickle

    slices = LiverSlices(prepared, ["3"], LIVER)
    again = pickle.loads(pickle.dumps(slices))
    assert torch.equal(again[5][0], slices[5][0])


def test_png_folder_gives_liver_slices_with_gaps(png_folder):
    slices = LiverSlices(png_folder, ["7"], LIVER)
    image, mask = slices[1]
    assert len(slices) == 3
    assert image[0, 16, 16].item() == pytest.approx(9 / 255)
    assert image[0, 0, 16] == 0  # 40 x 48: padded above and below
    assert mask.mean().item() == pytest.approx(15 * 12 / 48**2, rel=0.15)


def test_png_masks_of_ones_are_masks_too(png_folder):
    for path in (png_folder / "masks" / "7").iterdir():
        cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8))
    assert LiverSlices(png_folder, ["7"], LIVER)[0][1].any()


def test_nifti_pair_is_read_in_the_patients_orientation(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    write_case(tmp_path / "raw", 3, ramp(), blob(), orientation="RAS", spacing_mm=SPACING_MM)
    write_packed_case(tmp_path / "prepared", "3", ramp(), blob())
    case_ids = [case.id for case in find_cases(tmp_path / "raw")]
    lazily, packed = (TumorSlices(tmp_path / name, case_ids, TUMOR) for name in ("raw", "prepared"))
    for one, other in zip(lazily[5], packed[5], strict=True):
        assert torch.equal(one, other)
    assert not list((tmp_path / "raw").rglob("*.b2nd")), "raw folders are only read"


def test_labels_of_the_liver_alone_are_no_tumor_slices(tmp_path, monkeypatch, png_folder):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    hu, labels = body()
    for name, array in (("ct", hu), ("segmentations/liver", (labels > 0).astype(np.uint8))):
        write_nifti(array, tmp_path / "raw" / "s1" / f"{name}.nii.gz", spacing_mm=BODY_SPACING_MM)
    prepare(find_cases(tmp_path / "raw"), tmp_path / "packed", workers=0, png=False)
    for root, case in ((tmp_path / "raw", "s1"), (tmp_path / "packed", "s1"), (png_folder, "7")):
        assert len(LiverSlices(root, [case], LIVER))
        with pytest.raises(ValueError, match=f"labels of {case} show the liver alone"):
            TumorSlices(root, [case], TUMOR)


def test_labels_follow_a_dataset_json_that_changes_what_their_numbers_mean(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    raw = tmp_path / "raw"
    write_nifti(ramp(), raw / "imagesTr" / "a.nii.gz")
    write_nifti(blob(), raw / "labelsTr" / "a.nii.gz")
    found = []
    for liver, tumor in ((1, 2), (2, 1)):
        named = {"labels": {"background": 0, "liver": liver, "tumor": tumor}}
        (raw / "dataset.json").write_text(json.dumps(named))
        found.append(find_slices(raw, ["a"], LIVER)[0].labels(5))
    np.testing.assert_array_equal(found[0], blob()[5])
    np.testing.assert_array_equal(found[1], np.array([0, 2, 1], np.uint8)[blob()[5]])


@pytest.mark.parametrize("every", [(3, 1), (1, 3)])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_a_case_of_any_pixels_is_shown_in_its_true_shape(tmp_path, every, margin):
    spec = InputSpec(size=64, window=(-200, 300), liver_margin=margin)
    hu, labels = body((3, 180, 228))
    for case_id, (rows, columns) in (("1", (1, 1)), ("2", every)):
        thin = np.s_[:, ::rows, ::columns]
        spacing_mm = (10.0, 1.5 * rows, 1.5 * columns)
        write_packed_case(tmp_path, case_id, hu[thin], labels[thin], spacing_mm=spacing_mm)
    (image, mask), (thinned, thinned_mask) = (
        LiverSlices(tmp_path, [case_id], spec)[1] for case_id in "12"
    )
    overlap = (mask * thinned_mask).sum() * 2 / (mask + thinned_mask).sum()
    assert overlap > 0.95
    assert (image - thinned).abs().mean() < 0.04


def test_png_slices_left_alone_are_shown_as_the_packed_case_is(tmp_path):
    write_case(tmp_path / "raw", 3, *body())  # pixels of 4.5 x 5 mm
    prepare(find_cases(tmp_path / "raw"), tmp_path, workers=0)
    image, mask = LiverSlices(tmp_path, ["3"], LIVER)[5]
    shutil.rmtree(tmp_path / "cases")
    alone = LiverSlices(tmp_path, ["3"], LIVER)[5]
    assert torch.equal(alone[0], image)
    assert torch.equal(alone[1], mask)


def test_other_millimetres_are_another_cache(tmp_path):
    prints = []
    for spacing_mm in ((5.0, 0.7, 0.7), (5.0, 0.7, 2.1)):
        write_packed_case(tmp_path, "3", ramp(), blob(), spacing_mm=spacing_mm)
        cases = find_slices(tmp_path, ["3"], LIVER)
        for path in cases[0].files:
            os.utime(path, (0, 0))
        prints.append(fingerprint(cases, LIVER))
    assert prints[0] != prints[1]


def test_nifti_that_does_not_say_which_way_it_lies_is_not_trained_on(tmp_path, caplog):
    for name, array in (("volume-4.nii", ramp()), ("segmentation-4.nii", blob())):
        nib.save(nib.Nifti1Image(stored_as(array, "LAS"), np.eye(4)), tmp_path / name)
    with pytest.raises(ValueError, match="no readable case"):
        LiverSlices(tmp_path, ["4"], LIVER)
    assert logged(caplog, "volume-4.nii", "prepare")


def test_neighbor_in_a_gap_is_the_nearest_slice():
    near = nearest_neighbors(np.array([4, 9, 10]), context=1)
    assert near.tolist() == [[0, 0, 0], [1, 1, 2], [1, 2, 2]]


def test_neighbor_equally_far_is_the_inner_one():
    # slice 4 with context 2 wants 2 and 6; 6 lies two from 4 and two from 8
    assert nearest_neighbors(np.array([4, 8]), context=2)[0].tolist() == [0, 0, 0, 0, 0]


def test_a_truncated_case_is_left_out_by_name(prepared, caplog):
    path = prepared / "cases" / "12.b2nd"
    path.write_bytes(path.read_bytes()[:300])
    assert len(LiverSlices(prepared, ["12", "3"], LIVER)) == 12
    assert logged(caplog, "case 12", "left out")


def test_one_unreadable_slice_is_named_by_the_data_set(png_folder):
    slices = LiverSlices(png_folder, ["7"], LIVER)
    (png_folder / "images" / "7" / "4.png").unlink()
    with pytest.raises(OSError, match=r"slice 4 of case 7 cannot be read .*4\.png: missing"):
        slices[0]


def png_case(root, write_image=None, write_mask=None, name="{}"):
    """Three slices of one case; the second may be written otherwise."""
    image, mask = np.full((40, 48), 90, np.uint8), np.full((40, 48), 255, np.uint8)
    for k in range(3):
        for kind, plane, other in (("images", image, write_image), ("masks", mask, write_mask)):
            path = root / kind / "5" / f"{name.format(k)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            plane = other(plane) if other and k == 2 else plane
            assert cv2.imwrite(str(path), plane)
    return root


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda plane: plane.astype(np.uint16) * 257, "uint16"),
        (lambda plane: np.dstack([plane, plane * 0, plane * 0]), "grey"),
        (lambda plane: np.dstack([plane, plane, plane, plane // 2]), "grey"),
        (lambda plane: plane[:20], "(20, 48)"),
    ],
)
def test_mask_that_is_no_grey_picture_of_its_image_is_told(tmp_path, caplog, change, word):
    with pytest.raises(ValueError, match="no readable case"):
        find_slices(png_case(tmp_path, write_mask=change), ["5"], LIVER)
    assert logged(caplog, "2.png", word)


def test_grey_saved_as_colour_and_numbers_with_zeros_are_read(tmp_path):
    png_case(tmp_path, lambda p: np.dstack([p] * 3), lambda p: np.dstack([p] * 4), "{:03d}")
    (case,) = find_slices(tmp_path, ["5"], LIVER)
    assert case.slice_indices.tolist() == [0, 1, 2]
    assert all(case.labels(k).all() for k in range(3))
    assert prepared_cases(tmp_path)[0].liver_slices == (0, 1, 2)


def test_two_pictures_of_one_slice_are_refused(tmp_path, caplog):
    (png_case(tmp_path) / "masks" / "5" / "001.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no readable case"):
        find_slices(tmp_path, ["5"], LIVER)
    assert logged(caplog, "case 5", "two files")


def test_folder_of_pictures_that_is_no_case_is_left_out(tmp_path, caplog):
    (png_case(tmp_path) / "images" / "thumbs").mkdir()
    assert [case.id for case in prepared_cases(tmp_path)] == ["5"]
    assert logged(caplog, "thumbs", "left out")
