"""Cross-validation: every patient is scored once, by models that never saw that patient."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np

from ..checkpoints import load_liver_model, load_tumor_model
from ..inference import Postprocessing, drop_small_lesions, own_device, segment_volume
from ..machine import locked, read_json, write_json, written_whole
from ..metrics import (
    dice,
    evaluate_dataset,
    format_summary,
    mean_and_interval,
    read_metrics_csv,
    write_metrics_csv,
)
from ..preprocess import Prepared, data_hashes, open_prepared
from ..recipes import liver_recipe, tumor_recipe
from ..settings import Settings
from ..volumes import open_volume, read_segmentation, read_volume
from .results import _without_infinity, evaluate, segment_cases
from .trainings import checkpoint_path, train_liver, train_tumor

logger = logging.getLogger(__name__)

FOLDS = 5  # as nnU-Net's published figures
THRESHOLDS = (0.5, 0.3, 0.7)  # of equal scores the first is taken
SMALLEST_MM3 = (30.0, 0.0, 100.0)
BUSY = "left to it"
EXTRA = {  # key of a row or a summary -> its line in the table
    "liver_without_tumor_dice": "liver without its tumors, Dice",
    "tumor_dice_nnunet": "tumor Dice as nnU-Net averages it",
}


def cross_validate(
    settings: Settings,
    *,
    folds: int = FOLDS,
    recipe: str = "default",
    epochs: int | None = None,
    seed: int = 0,
) -> dict | None:
    """Train both systems on all folds, segment each held-out patient, and pool the scores.

    What is finished is not done again, so any stop costs little. Several processes or machines that
    share the folders work on different folds. Thresholds and the smallest lesion of a fold are
    chosen on the held-out patients of the other folds. All lies in ``RUNS/crossval``: a run for
    each fold, metrics.csv, summary.json and table.txt.

    Args:
        settings: the prepared cases, and the runs' folder.
        folds: parts of the patients, each of which is held out once; 2 or more.
        recipe: name of both systems' recipes.
        epochs: of both trainings; None for the recipes'.
        seed: random seed of the trainings.

    Returns:
        As `metrics.evaluate_dataset`, with ``liver_without_tumor_dice`` and ``tumor_dice_nnunet``;
        None while another process works on a fold.

    Raises:
        ValueError: fewer than two folds, a fold without patients, or finished folds of other cases,
            other files or recipes in the same folder.
    """
    if folds < 2:
        raise ValueError(f"cross-validation needs 2 folds or more, got {folds}")
    changes = {"epochs": epochs} if epochs else {}
    recipes = {
        "liver": liver_recipe(recipe, tiny=settings.tiny, **changes),
        "tumor": tumor_recipe(recipe, tiny=settings.tiny, **changes),
    }
    parts = [_Fold(settings, number, folds, recipes, seed) for number in range(folds)]
    if not _all_done(parts, _Fold.find_candidates):
        return None
    found = [part.find_candidates() for part in parts]
    rules = [choose_postprocessing(found[:k] + found[k + 1 :]) for k in range(folds)]
    if not _all_done(parts, lambda part: part.score(rules[part.number])):
        return None
    return _pool(settings, parts)


def _all_done(parts: Sequence["_Fold"], step: Callable) -> bool:
    """Do a step for each fold that no other process works on; return whether that was all."""
    busy = []
    for part in parts:
        try:
            with locked(part.settings.runs / ".lock", BUSY):
                step(part)
        except OSError as error:
            if BUSY not in str(error):
                raise
            busy.append(part.name)
    if busy:
        logger.info("another process works in %s: the last makes the table", ", ".join(busy))
    return not busy


class _Fold:
    """One part of the patients, and the models that never saw it."""

    def __init__(self, settings: Settings, number: int, folds: int, recipes: Mapping, seed: int):
        self.number = number
        self.name = f"{settings.runs.name}-fold-{number}-of-{folds}"  # Drive keeps it by this name
        self.settings = replace(settings, runs=settings.runs / "crossval" / self.name)
        self.data = open_prepared(settings.prepared, validation=1 / folds, fold=number)
        self.recipes = recipes
        self.seed = seed
        self.candidates = self.settings.runs / "candidates.json"
        self.results = self.settings.runs / "results"

    def find_candidates(self) -> dict:
        """Return the held-out patients' scores by thresholds; train and measure if need be.

        Raises:
            ValueError: they were found with other cases, other files of them, or other recipes.
        """
        held_out = list(self.data.split.validation)
        made_by = {"cases": held_out, "recipes": str(self.recipes), "seed": self.seed}
        made_by["data"] = data_hashes(self.data.root, [*self.data.split.training, *held_out])
        if self.candidates.is_file():
            found = read_json(self.candidates)
            if {key: found.get(key) for key in made_by} != made_by:
                raise ValueError(
                    f"{self.settings.runs} was finished with other cases, other files of them, "
                    "other recipes or another seed: choose another folder for the runs, or delete "
                    "that one"
                )
            return found
        train = {"liver": train_liver, "tumor": train_tumor}
        for system, recipe in self.recipes.items():
            train[system](self.settings, self.data, recipe, seed=self.seed)
        device = own_device(self.settings.device)
        models = (
            load_liver_model(checkpoint_path(self.settings, "liver"), device),
            load_tumor_model(checkpoint_path(self.settings, "tumor"), device),
        )
        scores = {name: scores_by_rules(self.data, name, *models) for name in held_out}
        told = {"liver": held_out, "tumor": self._with_known_tumors(held_out)}
        found = made_by | {
            system: [score[system] for name, score in scores.items() if name in told[system]]
            for system in told
        }
        write_json(self.candidates, found)
        return found

    def _with_known_tumors(self, case_ids: Sequence[str]) -> list[str]:
        return [name for name in case_ids if not self.data.case(name).liver_only]

    def score(self, post: Postprocessing) -> None:
        """Segment and evaluate the held-out patients, unless that was done with the same rules."""
        rules = self.settings.runs / "postprocessing.json"
        if (self.results / "metrics.csv").is_file() and rules.is_file():
            if read_json(rules) == asdict(post):
                return
        models = {name: checkpoint_path(self.settings, name) for name in self.recipes}
        held_out = self.data.split.validation
        files = segment_cases(
            self.data,
            held_out,
            self.results / "predictions",
            post=post,
            device=self.settings.device,
            **models,
        )
        if missing := sorted(set(held_out) - set(files)):
            raise ValueError(f"{self.name}: not segmented, see above: {', '.join(missing)}")
        rows, _ = evaluate(self.data, files, self.results)
        told = self._with_known_tumors(held_out)
        for row in rows:
            known = row["case_id"] in told
            alone = _liver_alone(self.data, row["case_id"], files) if known else None
            row |= {"fold": self.name, "liver_without_tumor_dice": alone}
        write_metrics_csv(rows, self.results / "metrics.csv")
        write_json(rules, asdict(post))


def scores_by_rules(
    data: Prepared, case_id: str, liver_model, tumor_model
) -> dict[str, list[float]]:
    """Return a case's Dice of the liver by threshold, and of the tumor by threshold and size."""
    volume = read_volume(data.volume_path(case_id))
    reference = open_volume(data.labels_path(case_id)).read()
    spacing_mm = volume.geometry.trusted_spacing_mm or (1.0, 1.0, 1.0)
    livers = [
        segment_volume(volume, liver_model, post=Postprocessing(liver_threshold=threshold))
        for threshold in THRESHOLDS
    ]
    scores = {"liver": [_dice(liver > 0, reference > 0) for liver in livers], "tumor": []}
    for threshold in THRESHOLDS:
        post = Postprocessing(tumor_threshold=threshold, min_lesion_mm3=0)
        labels = segment_volume(volume, None, tumor_model, post, known_liver=livers[0])
        for smallest in SMALLEST_MM3:
            tumor = (labels == 2).astype(np.uint8)
            drop_small_lesions(tumor, spacing_mm, Postprocessing(min_lesion_mm3=smallest))
            scores["tumor"].append(_dice(tumor > 0, reference == 2))
    return scores


def _dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    return dice(*map(int, map(np.count_nonzero, (prediction & reference, prediction, reference))))


def choose_postprocessing(folds: Sequence[Mapping]) -> Postprocessing:
    """Return the rules with the highest mean Dice over the cases of these folds.

    Args:
        folds: ``liver`` (cases, thresholds) and ``tumor`` (cases, thresholds x sizes) of each. A
            case without tumor counts 1 if none is predicted and 0 otherwise.
    """
    scores = {name: [case for fold in folds for case in fold[name]] for name in ("liver", "tumor")}
    best = {
        name: int(np.mean(cases, axis=0).argmax()) if cases else 0 for name, cases in scores.items()
    }
    tumor_threshold, smallest = list(product(THRESHOLDS, SMALLEST_MM3))[best["tumor"]]
    return Postprocessing(
        liver_threshold=THRESHOLDS[best["liver"]],
        tumor_threshold=tumor_threshold,
        min_lesion_mm3=smallest,
    )


def _liver_alone(data: Prepared, case_id: str, files: Mapping[str, Path]) -> float:
    """Return the Dice of label 1 alone, as in data sets where tumor does not count as liver."""
    prediction = read_segmentation(files[case_id], like=open_volume(data.volume_path(case_id)))
    reference = open_volume(data.labels_path(case_id)).read()
    return _dice(prediction == 1, reference == 1)


def _pool(settings: Settings, parts: Sequence[_Fold]) -> dict:
    """Write the rows of all folds, their summary and the table."""
    folder = settings.runs / "crossval"
    rows = [row for part in parts for row in read_metrics_csv(part.results / "metrics.csv")]
    summary = evaluate_dataset(rows)
    summary["liver_without_tumor_dice"] = mean_and_interval(rows, "liver_without_tumor_dice")
    counted = [row for row in rows if row["tumor_size_reference"] or row["tumor_size_prediction"]]
    summary["tumor_dice_nnunet"] = mean_and_interval(counted, "tumor_dice")
    write_metrics_csv(rows, folder / "metrics.csv")
    write_json(folder / "summary.json", _without_infinity(summary))
    with written_whole(folder / "table.txt") as temporary:
        temporary.write_text(format_pooled(summary) + "\n", encoding="utf-8")
    return summary


def format_pooled(summary: Mapping) -> str:
    """Return the table of `cross_validate`."""
    return format_summary(summary, more=EXTRA)
