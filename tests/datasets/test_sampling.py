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
