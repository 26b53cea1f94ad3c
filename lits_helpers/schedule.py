"""The learning rate in the course of a training."""

import math

from .recipes import Recipe

FINAL_LEARNING_RATE = 0.01  # of the initial one, at the end of a cosine schedule


def learning_rate(recipe: Recipe, epochs_done: float) -> float:
    """Return the learning rate after so many epochs (and parts of one)."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * min(epochs_done / recipe.epochs, 1.0)))
        rate *= FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine
    rising = min(recipe.warm_up, recipe.epochs / 10)
    if epochs_done < rising:
        rate *= max(epochs_done / rising, FINAL_LEARNING_RATE)
    return rate
