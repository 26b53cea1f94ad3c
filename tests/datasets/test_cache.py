"""Slices from packed cases, PNG folders and NIfTI; the cache; augmentation; sampling."""

import errno
import gc
import logging
from dataclasses import replace
from types import SimpleNamespace

import cv2
import nibabel as nib
import numpy as np
import pytest
import torch
from helpers.drawn import SPACING_MM, blob, ramp, stored_as, write_case

from lits_helpers.cases import find_cases
from lits_helpers.datasets import (
    Augmentation,
    LiverSlices,
    SliceCache,
    TumorSlices,
    augment_batch,
    augmentation_of,
    epoch_order,
    model_input,
    rotated,
)
from lits_helpers.datasets import cache as cache_module
from lits_helpers.datasets.augmentation import affine_grid, affine_matrices, grey_curves
from lits_helpers.datasets.inputs import IMAGENET_DEVIATION, IMAGENET_MEAN
from lits_helpers.datasets.sampling import balanced_indices
from lits_helpers.datasets.slices import find_slices, nearest_neighbors
from lits_helpers.machine import memory, write_json
from lits_helpers.preprocess import prepared_cases
from lits_helpers.recipes import InputSpec, liver_recipe, tumor_recipe
from lits_helpers.settings import real_data
from lits_helpers.volumes import resize_mask, slice_levels, write_packed
from lits_helpers.volumes.geometry import plain_geometry

LIVER = InputSpec(size=32, window=(-200, 300))
TUMOR = InputSpec(size=64, window=None, channels=3, normalization="imagenet")
CONTEXT = InputSpec(size=64, window=(-100, 250), channels=3, context=1, normalization="imagenet")


def write_packed_case(root, case_id, hu, labels, patient=None):
    """Write one case of a prepared/ folder; labels None for a case without segmentation."""
    write_packed(hu, root / "cases" / f"{case_id}.b2nd")
    if labels is not None:
        write_packed(labels, root / "cases" / f"{case_id}-labels.b2nd")
    present = np.zeros_like(hu, np.uint8) if labels is None else labels
    record = {
        "case_id": case_id,
        "patient": patient or case_id,
        "shape": list(hu.shape),
        "spacing_mm": list(SPACING_MM),
        "geometry": plain_geometry(hu.shape, SPACING_MM).to_dict(),
        "has_segmentation": labels is not None,
        "liver_slices": np.flatnonzero((present > 0).any((1, 2))).tolist(),
        "tumor_slices": np.flatnonzero((present == 2).any((1, 2))).tolist(),
    }
    write_json(root / "cases" / f"{case_id}.json", record)


@pytest.fixture
def prepared(tmp_path):
    """Two labelled cases of different shapes and one without segmentation."""
    write_packed_case(tmp_path, "3", ramp(), blob())
    write_packed_case(tmp_path, "12", ramp((9, 48, 40))[:, ::-1].copy(), blob((9, 48, 40)))
    write_packed_case(tmp_path, "20", ramp((4, 40, 48)), None)
    return tmp_path


@pytest.fixture
def little_memory(monkeypatch):
    """So little that every cache lies on disk."""
    monkeypatch.setattr(cache_module, "free_memory_bytes", lambda: 1000)


@pytest.fixture
def png_folder(tmp_path):
    """One case with slices 4, 9 and 10 only."""
    for name in ("images", "masks"):
        (tmp_path / name / "7").mkdir(parents=True)
    for k in (4, 9, 10):
        image = np.full((40, 48), k, np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        mask[5:20, k : k + 12] = 255
        cv2.imwrite(str(tmp_path / "images" / "7" / f"{k}.png"), image)
        cv2.imwrite(str(tmp_path / "masks" / "7" / f"{k}.png"), mask)
    return tmp_path


def test_liver_item_is_the_windowed_slice_and_the_liver_with_its_tumor(prepared):
    image, mask = LiverSlices(prepared, ["3"], LIVER)[5]
    levels = slice_levels(ramp()[5], LIVER)
    torch.testing.assert_close(image, torch.from_numpy(levels / np.float32(255))[None])
    assert torch.equal(mask[0], torch.from_numpy(resize_mask(blob()[5], 32) >= 1).float())
    assert (image.dtype, mask.dtype) == (torch.float32, torch.float32)


def test_tumor_item_repeats_the_slice_and_normalizes_each_channel(prepared):
    image, mask = TumorSlices(prepared, ["3"], TUMOR)[5]
    unit = torch.from_numpy(slice_levels(ramp()[5], TUMOR).astype(np.float32) / 65535)
    torch.testing.assert_close(image[0], (unit - 0.485) / 0.229)
    torch.testing.assert_close(image[2], (unit - 0.406) / 0.225)
    assert torch.equal(mask[0], torch.from_numpy(resize_mask(blob()[5], 64) == 2).float())


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
    write_case(tmp_path / "raw", 3, ramp(), blob(), orientation="RAS")
    write_packed_case(tmp_path / "prepared", "3", ramp(), blob())
    case_ids = [case.id for case in find_cases(tmp_path / "raw")]
    lazily, packed = (TumorSlices(tmp_path / name, case_ids, TUMOR) for name in ("raw", "prepared"))
    for one, other in zip(lazily[5], packed[5], strict=True):
        assert torch.equal(one, other)
    assert not list((tmp_path / "raw").rglob("*.b2nd")), "raw folders are only read"


def test_nifti_that_does_not_say_which_way_it_lies_is_not_trained_on(tmp_path, caplog):
    for name, array in (("volume-4.nii", ramp()), ("segmentation-4.nii", blob())):
        nib.save(nib.Nifti1Image(stored_as(array, "LAS"), np.eye(4)), tmp_path / name)
    with pytest.raises(ValueError, match="no readable case"):
        LiverSlices(tmp_path, ["4"], LIVER)
    assert "volume-4.nii does not say which way its slices lie; prepare" in caplog.text


@pytest.mark.parametrize("spec", [LIVER, TUMOR, CONTEXT])
def test_cache_and_data_set_give_the_same_pixels(prepared, spec):
    cache, slices = (
        SliceCache(prepared, ["12", "3"], spec),
        LiverSlices(prepared, ["12", "3"], spec),
    )
    images, labels = cache.batch(torch.arange(len(cache)))
    for index in range(len(slices)):
        assert torch.equal(images[index], slices[index][0])
        assert torch.equal((labels[index] >= 1).float(), slices[index][1][0])


def test_cache_tells_where_each_slice_comes_from(prepared):
    write_packed_case(prepared, "4", ramp(), np.zeros((12, 40, 48), np.uint8), patient="3")
    cache = SliceCache(prepared, ["12", "3", "4"], LIVER)
    assert cache.case_ids == ("12", "3", "4")
    assert cache.patients == ("12", "3")
    assert cache.case_of.tolist() == [0] * 9 + [1] * 12 + [2] * 12
    assert cache.patient_of.tolist() == [0] * 9 + [1] * 24
    assert cache.slice_index.tolist() == [*range(9), *range(12), *range(12)]
    assert cache.has_liver[9:21].nonzero().flatten().tolist() == list(range(2, 9))
    assert cache.has_tumor[9:21].nonzero().flatten().tolist() == [4, 5]
    assert not cache.has_liver[21:].any()
    assert cache.levels.dtype == torch.uint8


def test_neighbors_stop_at_the_cases_ends(prepared):
    for case_id, shape in (("12", (9, 48, 40)), ("3", (12, 40, 48))):  # within the window
        write_packed_case(prepared, case_id, ramp(shape) // 8, blob(shape))
    cache = SliceCache(prepared, ["12", "3"], CONTEXT)
    images, _ = cache.batch([8, 9])
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_DEVIATION)
    last, first = images * deviation.view(3, 1, 1) + mean.view(3, 1, 1)  # k = 8 and k = 0
    torch.testing.assert_close(last[2], last[1])
    torch.testing.assert_close(first[0], first[1])
    assert (last[0] - last[1]).abs().max() > 0.02
    assert (first[2] - first[1]).abs().max() > 0.02


def test_neighbor_in_a_gap_is_the_nearest_slice():
    near = nearest_neighbors(np.array([4, 9, 10]), context=1)
    assert near.tolist() == [[0, 0, 0], [1, 1, 2], [1, 2, 2]]


def test_neighbor_equally_far_is_the_inner_one():
    # slice 4 with context 2 wants 2 and 6; 6 lies two from 4 and two from 8
    assert nearest_neighbors(np.array([4, 8]), context=2)[0].tolist() == [0, 0, 0, 0, 0]


def test_cases_without_segmentation_are_left_out_by_name(prepared, caplog):
    cache = SliceCache(prepared, ["3", "20"], LIVER)
    assert cache.case_ids == ("3",)
    assert "case 20 has no segmentation" in caplog.text


def test_a_truncated_case_is_left_out_by_name(prepared, caplog):
    path = prepared / "cases" / "12.b2nd"
    path.write_bytes(path.read_bytes()[:300])
    assert len(LiverSlices(prepared, ["12", "3"], LIVER)) == 12
    assert "case 12 cannot be read and is left out" in caplog.text


def test_one_unreadable_slice_is_left_out_of_the_cache_by_name(png_folder, caplog):
    (png_folder / "images" / "7" / "4.png").write_bytes(b"no image")
    cache = SliceCache(png_folder, ["7"], LIVER)
    assert cache.slice_index.tolist() == [9, 10]
    assert cache.batch([0])[0][0, 0, 16, 16].item() == pytest.approx(9 / 255)
    assert "slice 4 of case 7 cannot be read" in caplog.text


def test_a_cache_on_disk_says_each_time_what_it_lacks(png_folder, tmp_path, little_memory, caplog):
    (png_folder / "images" / "7" / "4.png").write_bytes(b"no PNG")
    for _ in range(2):
        caplog.clear()
        SliceCache(png_folder, ["7"], LIVER, folder=tmp_path / "cache")
        assert "1 slices could not be read" in caplog.text
        assert "(of case 7); delete that folder to try them again" in caplog.text


def test_one_unreadable_slice_is_named_by_the_data_set(png_folder):
    slices = LiverSlices(png_folder, ["7"], LIVER)
    (png_folder / "images" / "7" / "4.png").unlink()
    with pytest.raises(OSError, match=r"slice 4 of case 7 cannot be read .*4\.png: missing"):
        slices[0]


def test_a_case_that_does_not_exist_is_named(prepared):
    with pytest.raises(ValueError, match=r"no case 99 in .*which holds 3 cases"):
        SliceCache(prepared, ["3", "99"], LIVER)


def test_nothing_to_read_is_an_error(prepared):
    with pytest.raises(ValueError, match="no readable case with a segmentation among 1"):
        SliceCache(prepared, ["20"], LIVER)


def test_model_input_refuses_a_missing_axis():
    with pytest.raises(ValueError, match=r"levels must be \(N, 1 or 3, S, S\), got shape \(64, 64"):
        model_input(torch.zeros(64, 64, dtype=torch.uint8), TUMOR)


def test_cache_too_large_for_memory_is_mapped_from_disk_and_found_again(
    prepared, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "cache"
    in_memory = SliceCache(prepared, ["12", "3"], CONTEXT, folder=folder)
    monkeypatch.setattr(cache_module, "free_memory_bytes", lambda: 1000)
    on_disk = SliceCache(prepared, ["12", "3"], CONTEXT, folder=folder)
    monkeypatch.setattr(cache_module, "_fill", None)  # a second decoding would fail
    again = SliceCache(prepared, ["12", "3"], CONTEXT, folder=folder)
    for cache in (on_disk, again):
        assert cache.home == "disk"
        for one, other in zip(cache.batch([0, 15]), in_memory.batch([0, 15]), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(cache.has_tumor, in_memory.has_tumor)
    assert "21 slices of 2 cases cached in memory" in caplog.text
    assert "21 slices of 2 cases cached in a memory-mapped file" in caplog.text


def test_without_a_folder_the_files_go_with_the_cache(
    prepared, tmp_path, little_memory, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache = SliceCache(prepared, ["3"], LIVER)
    (folder,) = tmp_path.glob("lits-*")
    assert any(folder.iterdir())
    del cache
    gc.collect()
    assert not folder.exists()


def test_slices_that_the_disk_cannot_hold_are_an_error_and_not_a_dead_process(
    prepared, tmp_path, little_memory, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"do not fit into memory, and the disk has no .* GB"):
        SliceCache(prepared, ["3"], LIVER, folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_processes_of_one_machine_share_its_memory(prepared, monkeypatch):
    cases = find_slices(prepared, ["3"], LIVER)
    size_bytes = SliceCache(prepared, ["3"], LIVER).levels.numel() * 2
    monkeypatch.setattr(cache_module, "free_memory_bytes", lambda: 3 * size_bytes)
    homes = []
    for processes in ("1", "2"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        homes.append(cache_module.choose_home(cases, LIVER, torch.device("cpu")))
    assert homes == ["memory", "disk"]
    monkeypatch.setattr(cache_module, "free_device_bytes", lambda device: 100 * size_bytes)
    assert cache_module.choose_home(cases, LIVER, torch.device("cuda")) == "disk", (
        "decoded here first"
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert cache_module.choose_home(cases, LIVER, torch.device("cuda")) == "device"


@pytest.mark.parametrize("left", ["half decoded", "of other cases", "cut short", "empty", "lost"])
def test_what_a_folder_held_before_makes_room(prepared, tmp_path, little_memory, left):
    folder, whole = tmp_path / "cache", SliceCache(prepared, ["3"], LIVER).batch([5])[0]
    if left == "half decoded":  # by a killed training
        (folder / ".part-1-a").mkdir(parents=True)
        (folder / ".part-1-a" / "levels.npy").write_bytes(b"half")
    else:
        SliceCache(prepared, ["12" if left == "of other cases" else "3"], LIVER, folder=folder)
        (levels,) = folder.glob("*/levels.npy")
        if left == "lost":
            levels.unlink()
        elif left != "of other cases":
            levels.write_bytes(levels.read_bytes()[:-99] if left == "cut short" else b"")
    assert torch.equal(SliceCache(prepared, ["3"], LIVER, folder=folder).batch([5])[0], whole)
    assert len(list(folder.iterdir())) == 1


def test_the_first_of_several_processes_decodes_for_all(prepared, tmp_path, monkeypatch):
    """The second has memory enough, the first has not."""
    monkeypatch.setattr(cache_module, "free_memory_bytes", lambda: 1000)
    folder = tmp_path / "cache"
    first, second = (
        SimpleNamespace(writes=n == 0, highest=lambda *_: 1, from_first=lambda value: value)
        for n in range(2)
    )
    with pytest.raises(OSError, match="choose a shared run folder"):
        SliceCache(prepared, ["3"], LIVER, folder=folder, ranks=second)
    made = SliceCache(prepared, ["3"], LIVER, folder=folder, ranks=first)
    monkeypatch.undo()
    monkeypatch.setattr(cache_module, "_fill", None)  # a second decoding would fail
    found = SliceCache(prepared, ["3"], LIVER, folder=folder, ranks=second)
    assert found.home == "disk"
    assert torch.equal(found.batch([5])[0], made.batch([5])[0])


def test_mapped_cache_is_made_anew_when_a_case_changes(prepared, tmp_path, little_memory):
    before = SliceCache(prepared, ["3"], LIVER, folder=tmp_path / "cache").batch([5])[0]
    write_packed_case(prepared, "3", ramp() + np.int16(50), blob())
    after = SliceCache(prepared, ["3"], LIVER, folder=tmp_path / "cache").batch([5])[0]
    assert not torch.equal(after, before)


def test_augmentation_repeats_to_the_bit_from_the_same_generator_state(prepared):
    cache = SliceCache(prepared, ["3"], CONTEXT)
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    first = cache.batch([4, 5], augment=Augmentation(), generator=generator)
    second = cache.batch([4, 5], augment=Augmentation(), generator=generator)
    generator.set_state(state)
    again = cache.batch([4, 5], augment=Augmentation(), generator=generator)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])


def test_augmenting_needs_a_generator(prepared):
    with pytest.raises(ValueError, match=r"needs a torch\.Generator to augment"):
        SliceCache(prepared, ["3"], LIVER).batch([0], augment=Augmentation())


def drawn_batch(size=64):
    """(levels, labels): a bright off-centre rectangle whose labels are the same rectangle."""
    levels = torch.full((4, 1, size, size), 60, dtype=torch.uint8)
    levels[:, :, 20:34, 12:40] = 200
    labels = torch.zeros(4, 1, size, size, dtype=torch.uint8)
    labels[:, :, 20:34, 12:40] = 2
    return levels, labels


def test_labels_move_with_the_image():
    levels, labels = drawn_batch()
    limits = Augmentation(gamma=1, gain=0, bias=0, noise=0)
    images, moved = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(0), limits)
    bright = images[:, 0] > 130 / 255
    overlap = (bright & (moved == 2)).sum((1, 2))
    dice = 2 * overlap / (bright.sum((1, 2)) + (moved == 2).sum((1, 2)))
    assert (dice > 0.97).all()
    assert not torch.equal(moved, labels[:, 0])
    assert moved.unique().tolist() == [0, 2]


def test_no_limits_change_nothing():
    levels, labels = drawn_batch()
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0)
    images, moved = augment_batch(levels, labels, LIVER, torch.Generator(), limits)
    torch.testing.assert_close(images, levels.float() / 255, atol=1e-4, rtol=0)
    assert torch.equal(moved, labels[:, 0])


def test_shift_moves_by_the_stated_share_of_the_side():
    levels, _ = drawn_batch()
    matrices = affine_matrices(torch.tensor([[0.0, 0, 1, 0]]), Augmentation(shift=8 / 64))
    grid = affine_grid(matrices, 64)
    moved = torch.nn.functional.grid_sample(
        levels[:1].float(), grid, mode="nearest", align_corners=False
    )
    assert torch.equal(moved[..., :56], levels[:1, :, :, 8:].float())


def test_grid_agrees_with_torchs():
    matrices = affine_matrices(torch.rand(3, 4) * 2 - 1, Augmentation())
    expected = torch.nn.functional.affine_grid(matrices, [3, 1, 48, 48], align_corners=False)
    torch.testing.assert_close(affine_grid(matrices, 48), expected, atol=1e-5, rtol=0)


def test_grey_curves_rise_and_keep_black_black():
    curves = grey_curves(torch.rand(20, 3) * 2 - 1, Augmentation(), 255)
    assert (curves[:, 0] == 0).all()
    assert (curves[:, 1:].diff(dim=1) >= 0).all()
    assert (curves >= 0).all()
    assert (curves <= 1).all()


def test_noise_leaves_black_alone():
    levels, labels = drawn_batch()
    levels[:, :, :10] = 0
    limits = Augmentation(0, 1, 0, 1, 0, 0, noise=0.1)
    images, _ = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)
    assert (images[:, :, :9] == 0).all()
    assert images[:, :, 40:].std() > 0.01


def test_fatty_livers_are_darker_and_nothing_else_is():
    levels, labels = drawn_batch()
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0, fatty_liver=0.5, fatty_share=1.0)
    images, _ = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)
    inside = images[:, 0, 22:32, 14:38] / (200 / 255)
    assert torch.allclose(inside.amin((1, 2)), inside.amax((1, 2)), atol=1e-4)
    assert (inside > 0.49).all()
    assert inside.min() < 0.9
    assert len(inside[:, 0, 0].unique()) == 4  # each its own
    torch.testing.assert_close(images[:, :, 36:], levels[:, :, 36:] / 255, atol=1e-4, rtol=0)


def test_a_fatty_liver_is_darker_where_it_lies_in_each_neighbour():
    levels = torch.full((2, 3, 64, 64), 200, dtype=torch.uint8)
    labels = torch.zeros_like(levels)
    labels[:, 1, 20:34, 12:40] = 1
    labels[:, 2, 40:50, 12:40] = 1
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0, fatty_liver=0.5, fatty_share=1.0)
    spec = replace(LIVER, channels=3, context=1)
    images, moved = augment_batch(levels, labels, spec, torch.Generator().manual_seed(1), limits)
    darker = images < 199 / 255
    assert not darker[:, 0].any()
    assert darker[:, 1, 22:32, 14:38].all()
    assert not darker[:, 1, 36:].any()
    assert darker[:, 2, 42:48, 14:38].all()
    assert not darker[:, 2, :38].any()
    assert torch.equal(moved, labels[:, 1])


def test_turning_moves_a_picture_about_its_centre_and_back():
    image = torch.zeros(1, 1, 65, 65)
    image[..., 30:35, 50:55] = 1  # right of the centre
    turned = rotated(image, 90)
    assert turned[..., 10:15, 30:35].min() > 0.99 or turned[..., 50:55, 30:35].min() > 0.99
    torch.testing.assert_close(rotated(turned, -90), image, atol=1e-4, rtol=0)
    assert not torch.allclose(rotated(turned, 90), image, atol=0.5)
    torch.testing.assert_close(rotated(image - 2, 30).amin(), torch.tensor(-2.0))  # edges repeated
    assert rotated(image - 2, 30).amax() <= -1


def test_only_the_stated_share_of_livers_is_fatty():
    levels, labels = (part[:1].repeat_interleave(400, 0) for part in drawn_batch(32))
    limits = Augmentation(0, 1, 0, 1, 0, 0, 0, fatty_liver=0.5, fatty_share=0.3)
    images, _ = augment_batch(levels, labels, LIVER, torch.Generator().manual_seed(1), limits)
    darker = images[:, 0, 26, 20] < 199.5 / 255
    assert 0.2 < darker.float().mean() < 0.4


def lesion_batch(count: int = 2):
    """A liver of level 150 in level 100, with a lesion of level 120 in the middle of it."""
    labels = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    labels[:, :, 8:56, 8:56] = 1
    labels[:, :, 26:38, 26:38] = 2
    levels = torch.tensor([100, 150, 120], dtype=torch.uint8)[labels.long()]
    return levels, labels


ONLY_BRIGHT = Augmentation(0, 1, 0, 1, 0, 0, 0, bright_lesions=1.0)
THREE_SLICES = replace(LIVER, channels=3, context=1)


def test_a_bright_lesion_is_as_much_brighter_as_it_was_darker():
    levels, labels = lesion_batch()
    generator = torch.Generator().manual_seed(1)
    images, moved = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    expected = levels.float() / 255
    expected[labels == 2] = 180 / 255
    torch.testing.assert_close(images, expected, atol=1e-3, rtol=0)
    assert torch.equal(moved, labels[:, 1])


def test_no_dark_rim_remains_around_a_bright_lesion():
    levels, labels = lesion_batch()
    levels[:, :, 24:40, 24:40] = 120  # two pixels wider than its mask: a soft edge
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    assert images[:, :, 10:54, 10:54].amin() > 145 / 255


def test_a_lesion_turns_about_the_liver_and_leaves_what_lies_outside():
    levels, labels = lesion_batch()
    labels[:, :, :, 38:] = 0  # the lesion reaches the liver's edge, fat lies behind
    levels[:, :, :, 37:] = 30  # and in a part of the last pixels of the liver
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    torch.testing.assert_close(images[..., 37:], levels[..., 37:] / 255, atol=1e-3, rtol=0)
    assert (images[:, :, 28:36, 28:36] > 170 / 255).all()


def test_around_a_bright_lesion_the_liver_is_as_noisy_as_elsewhere():
    levels, labels = lesion_batch()
    grain = torch.randint(-20, 21, levels.shape, generator=torch.Generator().manual_seed(2))
    levels = (levels + grain).to(torch.uint8)
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    for ring in range(1, 6):  # pixels from the lesion
        before, after = (each[:, :, 26 - ring, 26:38].std() for each in (levels / 255, images))
        assert abs(after - before) < 0.02 * before


def test_a_lesion_without_liver_beside_it_is_left():
    levels, labels = lesion_batch()
    labels[labels == 1] = 0
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, ONLY_BRIGHT)
    torch.testing.assert_close(images, levels / 255, atol=1e-4, rtol=0)


def test_only_the_stated_share_of_lesions_is_bright():
    levels, labels = lesion_batch(400)
    limits = replace(ONLY_BRIGHT, bright_lesions=0.25)
    generator = torch.Generator().manual_seed(1)
    images, _ = augment_batch(levels, labels, THREE_SLICES, generator, limits)
    assert 0.18 < (images[:, 1, 32, 32] > 0.6).float().mean() < 0.32


def test_recipes_say_how_far_they_augment():
    assert augmentation_of(liver_recipe()).fatty_liver > 0
    assert augmentation_of(tumor_recipe()).bright_lesions > 0
    assert augmentation_of(liver_recipe("original")) is None


def test_each_channel_of_each_image_gets_noise_of_its_own():
    levels = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    limits = Augmentation(0, 1, 0, 1, 0, 0, noise=0.05)
    spec = replace(LIVER, channels=3, context=1)
    labels = torch.zeros_like(levels)
    images, _ = augment_batch(levels, labels, spec, torch.Generator().manual_seed(0), limits)
    planes = images.flatten(0, 1).flatten(1)  # (6, 64 * 64)
    assert (planes.std(1) > 0).all()
    assert (planes.std(1) < 0.06).all()
    assert (torch.corrcoef(planes) - torch.eye(6)).abs().max() < 0.2


def counted(patient_of, tumor, liver=None):
    """What `epoch_order` asks of a cache."""
    liver = np.ones(len(tumor), bool) if liver is None else liver
    return SimpleNamespace(
        patient_of=torch.as_tensor(patient_of),
        has_tumor=torch.as_tensor(tumor),
        has_liver=torch.as_tensor(liver),
    )


def test_liver_epoch_sees_every_slice_once_in_a_new_order_each_epoch():
    cache = counted(np.zeros(50, int), np.zeros(50, bool))
    one, other = (epoch_order(cache, liver_recipe(), seed=1, epoch=e) for e in (1, 2))
    assert sorted(one.tolist()) == list(range(50))
    assert one.tolist() != other.tolist()
    assert torch.equal(one, epoch_order(cache, liver_recipe(), seed=1, epoch=1))
    assert not torch.equal(one, epoch_order(cache, liver_recipe(), seed=2, epoch=1))


def test_balanced_epoch_fills_up_the_patients_with_few_tumor_slices():
    patient_of = np.repeat([0, 1, 2], [30, 30, 30])
    tumor = np.zeros(90, bool)
    tumor[:8] = True  # patient 0: 8 slices with tumor, patient 1: 1, patient 2: none
    tumor[30] = True
    order = epoch_order(counted(patient_of, tumor), tumor_recipe(), seed=0, epoch=1).numpy()
    assert len(order) == len(set(order)) == 18
    assert tumor[order].sum() == 9
    # nine more, poured on heights 8, 1, 0: both others reach 5
    assert np.bincount(patient_of[order]).tolist() == [8, 5, 5]


def test_a_patient_whose_slices_are_used_up_gets_no_more():
    patient_of = np.repeat([0, 1, 2], [10, 2, 20])
    tumor = np.arange(32) < 6
    chosen = balanced_indices(patient_of, tumor, ~tumor, np.random.default_rng(0))
    assert np.bincount(patient_of[chosen]).tolist() == [6, 2, 4]


def test_balanced_epoch_within_the_liver_takes_liver_slices_only():
    patient_of = np.repeat([0, 1], 20)
    tumor, liver = np.arange(40) < 5, np.arange(40) % 2 == 0
    recipe = tumor_recipe(within_liver=True)
    order = epoch_order(counted(patient_of, tumor, liver | tumor), recipe, seed=0, epoch=1).numpy()
    assert (liver | tumor)[order].all()
    assert len(order) == 10


def test_other_slices_change_from_epoch_to_epoch():
    tumor = np.arange(200) < 10
    cache = counted(np.zeros(200, int), tumor)
    seen = [set(epoch_order(cache, tumor_recipe(), seed=0, epoch=e).tolist()) for e in range(3)]
    assert len(seen[0] | seen[1] | seen[2]) > 30


def test_files_that_are_only_cached_leave_a_container_its_memory(tmp_path, monkeypatch):
    for name, text in {
        "memory.max": "1000",
        "memory.current": "900",
        "memory.stat": "anon 300\ninactive_file 500\nactive_file 100\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.free_memory_bytes() == 600
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_memory_bytes() > 600


@pytest.mark.parametrize(
    ("line", "group", "names"),
    [
        ("0::/slurm/job_7/step_0", "slurm/job_7", ("max", "current", "inactive_file")),
        (
            "9:memory:/slurm/job_7",
            "memory/slurm",
            ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_memory_of_a_job_counts_wherever_it_is_stated(
    tmp_path, monkeypatch, line, group, names
):
    limit, used, cached = names
    (tmp_path / "own").write_text(f"3:cpuset:/\n{line}\n")
    (tmp_path / group).mkdir(parents=True)
    (tmp_path / group / f"memory.{limit}").write_text("1000\n")
    (tmp_path / group / f"memory.{used}").write_text("900\n")
    (tmp_path / group / "memory.stat").write_text(f"cache 1\n{cached} 500\n")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    assert memory.free_memory_bytes() == 600


def test_unknown_sampling_is_refused():
    cache = counted([0], [True])
    with pytest.raises(ValueError, match='must be "all" or "balanced", got \'some\''):
        epoch_order(cache, tumor_recipe(sampling="some"), seed=0, epoch=1)


@pytest.mark.real
def test_real_slices_are_cached_as_the_data_set_reads_them():
    root = real_data()
    if root is None:
        pytest.skip("LITS_REAL names no folder with real CT")
    case_ids = sorted(path.name for path in (root / "lits_png" / "images").iterdir())[:10]
    spec = liver_recipe().spec
    cache = SliceCache(root / "lits_png", case_ids, spec)
    slices = LiverSlices(root / "lits_png", case_ids, spec)
    assert len(cache) == len(slices) > 20
    images, labels = cache.batch(torch.arange(len(cache)))
    for index in range(0, len(slices), 7):
        assert torch.equal(images[index], slices[index][0])
        assert torch.equal((labels[index] >= 1).float(), slices[index][1][0])


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
    ("change", "words"),
    [
        (lambda plane: plane.astype(np.uint16) * 257, "holds uint16"),
        (lambda plane: np.dstack([plane, plane * 0, plane * 0]), "no 8-bit grey picture"),
        (lambda plane: np.dstack([plane, plane, plane, plane // 2]), "no 8-bit grey picture"),
        (lambda plane: plane[:20], "is (20, 48), its image (40, 48)"),
    ],
)
def test_mask_that_is_no_grey_picture_of_its_image_is_told(tmp_path, caplog, change, words):
    with pytest.raises(ValueError, match="no readable case"):
        find_slices(png_case(tmp_path, write_mask=change), ["5"], LIVER)
    assert words in caplog.text
    assert "2.png" in caplog.text


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
    assert "two files for one slice" in caplog.text


def test_folder_of_pictures_that_is_no_case_is_left_out(tmp_path, caplog):
    (png_case(tmp_path) / "images" / "thumbs").mkdir()
    assert [case.id for case in prepared_cases(tmp_path)] == ["5"]
    assert "thumbs is left out: it holds no slice" in caplog.text
