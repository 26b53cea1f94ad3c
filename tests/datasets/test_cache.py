"""The cache: the pixels of the data set, in memory or on disk, decoded once."""

import errno
import gc
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.drawn import blob, ramp
from helpers.logs import logged
from helpers.packed_cases import CONTEXT, LIVER, TUMOR, write_packed_case
from helpers.small_runs import forbid_decoding

from lits_helpers.datasets import Augmentation, LiverSlices, SliceCache
from lits_helpers.datasets import cache as cache_module
from lits_helpers.datasets.inputs import IMAGENET_DEVIATION, IMAGENET_MEAN
from lits_helpers.datasets.slices import find_slices
from lits_helpers.recipes import liver_recipe
from lits_helpers.settings import real_data


@pytest.fixture
def little_memory(monkeypatch):
    """So little that every cache lies on disk."""
    monkeypatch.setattr(cache_module, "free_memory_bytes", lambda: 1000)


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


def test_cases_without_segmentation_are_left_out_by_name(prepared, caplog):
    cache = SliceCache(prepared, ["3", "20"], LIVER)
    assert cache.case_ids == ("3",)
    assert logged(caplog, "case 20", "segmentation")


def test_one_unreadable_slice_is_left_out_of_the_cache_by_name(png_folder, caplog):
    (png_folder / "images" / "7" / "4.png").write_bytes(b"no image")
    cache = SliceCache(png_folder, ["7"], LIVER)
    assert cache.slice_index.tolist() == [9, 10]
    assert cache.batch([0])[0][0, 0, 16, 16].item() == pytest.approx(9 / 255)
    assert logged(caplog, "slice 4", "case 7")


def test_a_cache_on_disk_says_each_time_what_it_lacks(png_folder, tmp_path, little_memory, caplog):
    (png_folder / "images" / "7" / "4.png").write_bytes(b"no PNG")
    for _ in range(2):
        caplog.clear()
        SliceCache(png_folder, ["7"], LIVER, folder=tmp_path / "cache")
        assert logged(caplog, "1 slices", "case 7", "delete")


def test_a_case_that_does_not_exist_is_named(prepared):
    with pytest.raises(ValueError, match=r"no case 99 in .*which holds 3 cases"):
        SliceCache(prepared, ["3", "99"], LIVER)


def test_nothing_to_read_is_an_error(prepared):
    with pytest.raises(ValueError, match="no readable case with a segmentation among 1"):
        SliceCache(prepared, ["20"], LIVER)


def test_cache_too_large_for_memory_is_mapped_from_disk_and_found_again(
    prepared, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "cache"
    in_memory = SliceCache(prepared, ["12", "3"], CONTEXT, folder=folder)
    monkeypatch.setattr(cache_module, "free_memory_bytes", lambda: 1000)
    on_disk = SliceCache(prepared, ["12", "3"], CONTEXT, folder=folder)
    forbid_decoding(monkeypatch)
    again = SliceCache(prepared, ["12", "3"], CONTEXT, folder=folder)
    for cache in (on_disk, again):
        assert cache.home == "disk"
        for one, other in zip(cache.batch([0, 15]), in_memory.batch([0, 15]), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(cache.has_tumor, in_memory.has_tumor)
    assert logged(caplog, "21 slices", "2 cases", "in memory")
    assert logged(caplog, "21 slices", "2 cases", "memory-mapped")


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
    forbid_decoding(monkeypatch)
    found = SliceCache(prepared, ["3"], LIVER, folder=folder, ranks=second)
    assert found.home == "disk"
    assert torch.equal(found.batch([5])[0], made.batch([5])[0])


def test_mapped_cache_is_made_anew_when_a_case_changes(prepared, tmp_path, little_memory):
    before = SliceCache(prepared, ["3"], LIVER, folder=tmp_path / "cache").batch([5])[0]
    write_packed_case(prepared, "3", ramp() + np.int16(50), blob())
    after = SliceCache(prepared, ["3"], LIVER, folder=tmp_path / "cache").batch([5])[0]
    assert not torch.equal(after, before)


def test_augmenting_needs_a_generator(prepared):
    with pytest.raises(ValueError, match=r"needs a torch\.Generator to augment"):
        SliceCache(prepared, ["3"], LIVER).batch([0], augment=Augmentation())


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
