"""Which slices an epoch sees, and in which order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lits_helpers.datasets import epoch_order
from lits_helpers.datasets.sampling import balanced_indices
from lits_helpers.recipes import liver_recipe, tumor_recipe


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


def test_unknown_sampling_is_refused():
    cache = counted([0], [True])
    with pytest.raises(ValueError, match='must be "all" or "balanced", got \'some\''):
        epoch_order(cache, tumor_recipe(sampling="some"), seed=0, epoch=1)


def poured_one_by_one(heights, available, amount):
    """Give each next slice to a patient with the fewest who has one left; return the heights."""
    heights, left = list(heights), list(available)
    for _ in range(min(amount, sum(left))):
        lowest = min((p for p in range(len(heights)) if left[p]), key=heights.__getitem__)
        heights[lowest] += 1
        left[lowest] -= 1
    return heights


@pytest.mark.parametrize("seed", range(40))
def test_balanced_slices_are_those_poured_one_by_one(seed):
    random = np.random.default_rng(seed)
    patients = int(random.integers(1, 6))
    patient_of = np.sort(random.integers(0, patients, int(random.integers(2, 40))))
    patient_of[-1] = patients - 1
    tumor = random.random(len(patient_of)) < random.choice([0.1, 0.3, 0.6])
    tumor[0] = True
    eligible = ~tumor & (random.random(len(patient_of)) < 0.8)
    chosen = balanced_indices(patient_of, tumor, eligible, random)
    assert sorted(set(chosen)) == chosen.tolist()
    assert set(np.flatnonzero(tumor)) <= set(chosen) <= set(np.flatnonzero(tumor | eligible))
    ground, available = (
        np.bincount(patient_of[mask], minlength=patients) for mask in (tumor, eligible)
    )
    expected = poured_one_by_one(ground, available, int(tumor.sum()))
    found = np.bincount(patient_of[chosen], minlength=patients)
    assert sorted(found) == sorted(expected)


def test_the_last_slices_are_drawn_among_the_patients_with_equally_few():
    patient_of, tumor = np.repeat([0, 1, 2], 10), np.arange(30) < 1
    seen = set()
    for seed in range(30):
        chosen = balanced_indices(patient_of, tumor, ~tumor, np.random.default_rng(seed))
        seen.add(tuple(np.bincount(patient_of[chosen], minlength=3)))
    assert seen == {(1, 1, 0), (1, 0, 1)}


def test_which_of_a_patients_slices_are_taken_is_drawn():
    patient_of, tumor = np.zeros(20, int), np.arange(20) < 2
    drawn = [
        balanced_indices(patient_of, tumor, ~tumor, np.random.default_rng(s)) for s in range(30)
    ]
    assert {index for chosen in drawn for index in chosen} == set(range(20))


def test_seed_and_epoch_do_not_stand_for_each_other():
    slices = counted(np.zeros(50, int), np.zeros(50, bool))
    pairs = [(0, 1), (1, 0), (1, 1), (2, 1), (1, 2)]
    orders = [
        tuple(epoch_order(slices, liver_recipe(), seed=s, epoch=e).tolist()) for s, e in pairs
    ]
    assert len(set(orders)) == 5


def test_without_any_tumor_a_balanced_epoch_sees_every_slice():
    slices = counted(np.zeros(9, int), np.zeros(9, bool))
    assert sorted(epoch_order(slices, tumor_recipe(), seed=0, epoch=1).tolist()) == list(range(9))


def test_sampling_all_sees_every_slice_whatever_it_holds():
    slices, recipe = counted(np.zeros(9, int), np.arange(9) < 2), tumor_recipe(sampling="all")
    order = epoch_order(slices, recipe, seed=0, epoch=1)
    assert sorted(order.tolist()) == list(range(9))
    assert order.dtype == torch.int64


def test_outside_the_liver_slices_are_taken_only_if_the_loss_sees_them():
    tumor, liver = np.arange(40) < 5, np.arange(40) < 12
    slices = counted(np.zeros(40, int), tumor, liver)
    inside, everywhere = (
        {
            index
            for epoch in range(20)
            for index in epoch_order(
                slices, tumor_recipe(within_liver=within), seed=0, epoch=epoch
            ).tolist()
        }
        for within in (True, False)
    )
    assert inside == set(range(12))
    order = epoch_order(slices, tumor_recipe(within_liver=True), seed=0, epoch=1).tolist()
    assert len(order) == len(set(order)) == 10  # no tumor stands for a slice without
    assert max(everywhere) > 30
