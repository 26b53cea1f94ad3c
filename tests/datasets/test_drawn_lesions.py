"""Lesions drawn into the livers of a batch."""

import numpy as np
import pytest
import torch

from lits_helpers.datasets.drawn_lesions import draw_lesions
from lits_helpers.recipes import recipe_from_dict, tumor_recipe

SPEC = tumor_recipe(size=64, pretrained=False).spec  # -100 to 100 HU: a level is 0.78 HU
BLACK, FAT, LIVER = 0, 30, 160  # levels
ROWS, COLUMNS = slice(10, 50), slice(6, 44)  # of the liver


def flat_liver() -> tuple[torch.Tensor, torch.Tensor]:
    """Return eight slices with two neighbours each: a liver in fat, air above."""
    levels = torch.full((8, 3, 64, 64), FAT, dtype=torch.uint8)
    levels[:, :, :4] = BLACK
    labels = torch.zeros_like(levels)
    levels[:, :, ROWS, COLUMNS] = LIVER
    labels[:, :, ROWS, COLUMNS] = 1
    return levels, labels


def drawn(levels, labels, share=1.0, seed=0):
    return draw_lesions(levels, labels, SPEC, share, torch.Generator().manual_seed(seed))


def test_lesions_lie_in_the_liver_and_are_darker_than_it():
    levels, labels = flat_liver()
    changed, marked = drawn(levels, labels)
    assert changed.dtype == marked.dtype == torch.uint8
    assert torch.equal(marked > 0, labels > 0)
    assert (marked == 2).flatten(1).any(1).all()
    for image, mask in zip(changed.float(), marked, strict=True):
        assert image[mask == 2].mean() < image[mask == 1].mean() - 5


def test_neighbours_show_the_same_lesion_in_other_sizes():
    _, marked = drawn(*flat_liver())
    below, middle, above = (marked == 2).unbind(1)
    assert (middle & (below | above)).any()
    assert not torch.equal(below, middle)
    assert not torch.equal(above, middle)


def test_a_slice_shows_its_lesions_whatever_its_neighbours_show():
    shown = torch.cat([drawn(*flat_liver(), seed=seed)[1] for seed in range(4, 7)]) == 2
    below, middle, above = shown.flatten(2).any(2).unbind(1)
    assert middle.all()
    assert not (below & above).all()  # the smallest end between two slices


def test_without_a_share_there_are_vessels_and_noise_and_no_lesion():
    levels, labels = flat_liver()
    changed, marked = drawn(levels, labels, share=0.0)
    assert torch.equal(marked, labels)
    inside = changed[labels == 1].float()
    assert inside.max() > LIVER + 20
    assert inside.std() > 3


def test_what_is_brighter_than_its_liver_becomes_liver_and_what_is_darker_stays():
    levels, labels = flat_liver()
    labels[:, :, 15:25, 10:20] = labels[:, :, 35:45, 10:20] = 2
    levels[:, :, 15:25, 10:20] = LIVER + 60
    levels[:, :, 35:45, 10:20] = LIVER - 60
    _, marked = drawn(levels, labels, share=0.0)
    assert (marked[:, :, 15:25, 10:20] == 1).all()
    assert (marked[:, :, 35:45, 10:20] == 2).all()


def test_a_generator_in_the_same_state_draws_the_same():
    first, again, other = (drawn(*flat_liver(), seed=seed) for seed in (3, 3, 4))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


def test_the_batch_itself_is_left_alone():
    levels, labels = flat_liver()
    drawn(levels, labels)
    assert all(map(torch.equal, (levels, labels), flat_liver()))


def test_black_stays_black_and_a_slice_of_liver_alone_is_drawn_into():
    levels, labels = flat_liver()
    for seed in range(6):
        assert not drawn(levels, labels, seed=seed)[0][:, :, :4].any()
        drawn(levels, torch.ones_like(labels), seed=seed)


def test_a_sliver_of_liver_gets_no_lesion():
    levels, labels = flat_liver()
    labels[:, :, :, 11:] = 0  # 200 pixels are needed, 40 x 5 - 1 remain
    labels[:, :, 10, 10] = 0
    _, marked = drawn(levels, labels)
    assert torch.equal(marked, labels)


def test_nothing_fainter_than_its_noise_is_asked_for():
    """Small lesions in strong noise would be guesses; what is drawn can be seen."""
    levels, labels = (planes.repeat(8, 1, 1, 1) for planes in flat_liver())
    changed, marked = drawn(levels, labels)
    seen = []
    for image, mask in zip(changed.float(), marked, strict=True):
        liver, lesion = image[mask == 1], image[mask == 2]
        error = liver.std() / np.sqrt(max(len(lesion), 1))
        seen.append((liver.mean() - lesion.mean()) / error)
    assert np.median(seen) > 5


def test_a_recipe_of_a_file_made_before_draws_nothing_and_one_without_a_window_cannot():
    from dataclasses import asdict

    recipe = tumor_recipe(pretrained=False)
    content = asdict(recipe)
    del content["drawn_lesions"]
    assert recipe_from_dict(content) == recipe
    with pytest.raises(ValueError, match=r"drawn_lesions needs an InputSpec with a window, in HU"):
        tumor_recipe("original", pretrained=False, drawn_lesions=0.5)
