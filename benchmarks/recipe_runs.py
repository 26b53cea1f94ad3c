"""One run of the recipe bench: train a row on some patients, score it on others, at native size.

A run trains for a fixed number of seconds, a processor's of one thread or, on a GPU, of the wall.
Its schedule follows them, so that rows of different cost are compared at equal training time. The
weights at the end are scored: nothing is chosen on the patients that are scored.
"""

import os
import threading
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.recipe_rows import Row
from lits_helpers.cases import find_cases
from lits_helpers.checkpoints import LiverModel, TumorModel
from lits_helpers.datasets import SliceCache, augmentation_of, epoch_order
from lits_helpers.datasets.slices import find_slices, nearest_neighbors
from lits_helpers.environment import choose_device
from lits_helpers.inference import Postprocessing, segment_volume
from lits_helpers.inference.ensemble import probabilities
from lits_helpers.metrics import dice, evaluate_case
from lits_helpers.preprocess import CaseFiles
from lits_helpers.training.optimization import Precision, learning_rate
from lits_helpers.training.systems import System, TumorSystem
from lits_helpers.volumes import PackedVolume, read_segmentation, read_volume, restore

THRESHOLD = 0.5
BATCH_SIZE = 32  # slices a forward pass in scoring
TURNED = 8.0  # degrees, of the views in the second scoring


def trained(row: Row, root: Path, case_ids, seconds: float, seed: int) -> tuple[System, dict]:
    """Train a row's system.

    Args:
        row: the row.
        root: PNG folder or prepared/ folder.
        case_ids: training cases.
        seconds: processor seconds of one thread, on a GPU seconds; decoding does not count.
        seed: random seed of weights, order and augmentation.

    Returns:
        the system, and what there is to say of the training.
    """
    device = choose_device()
    now = time.process_time if device.type == "cpu" else time.perf_counter
    torch.manual_seed(seed)
    system, augment = row.make(row.recipe, device, Precision(device)), augmentation_of(row.recipe)
    cache = SliceCache(root, case_ids, row.recipe.spec, device=device)
    began, epoch, images = now(), 0, 0
    system.train()
    while (used := now() - began) < seconds:
        epoch += 1
        order = epoch_order(cache, row.recipe, seed=seed, epoch=epoch)
        for number, batch in enumerate(order.split(row.recipe.batch_size)):
            used = now() - began
            rate = learning_rate(row.recipe, min(used / seconds, 1.0) * row.recipe.epochs)
            for optimizer in system.optimizers:
                optimizer.param_groups[0]["lr"] = rate
            random = torch.Generator().manual_seed((seed * 10000 + epoch) * 10000 + number)
            system.step(*cache.batch(batch, augment=augment, generator=random))
            images += len(batch)
    count = sum(p.numel() for p in system.best_module().parameters())
    said = {"epochs": epoch, "images_per_second": round(images / used, 1), "parameters": count}
    return system, said


def as_model(row: Row, system) -> LiverModel | TumorModel:
    """Return the trained network as inference wants it."""
    network = system.best_module().eval()
    outputs_logits = isinstance(system, TumorSystem)
    return (TumorModel if outputs_logits else LiverModel)(network, row.recipe.spec, None)


def slice_scores(model: LiverModel, root: Path, case_ids, degrees: float = 0.0) -> list[dict]:
    """Score the liver on a PNG folder: a row a case, as `metrics.evaluate_dataset` counts.

    Args:
        model: the row's model.
        root: PNG folder.
        case_ids: cases to score.
        degrees: of turned views, see `Postprocessing`.
    """
    rows = []
    for case in find_slices(root, case_ids, model.spec):
        counts = np.zeros(3, np.int64)  # intersection, prediction, reference
        all_levels = np.stack([case.levels(k, model.spec) for k in case.slice_indices.tolist()])
        near = nearest_neighbors(case.slice_indices, model.spec.context)
        order = np.arange(len(near))
        for positions in np.array_split(order, -(-len(order) // BATCH_SIZE)):
            part = case.slice_indices[positions]
            planes = probabilities(model, all_levels[near[positions]], degrees)
            for k, plane in zip(part.tolist(), planes, strict=True):
                liver = case.labels(k) > 0
                predicted = restore(plane, liver.shape) >= THRESHOLD
                counts += [(predicted & liver).sum(), predicted.sum(), liver.sum()]
        shared, predicted, real = counts.tolist()
        rows.append(
            {
                "case_id": case.case_id,
                "dice": dice(shared, predicted, real),
                "counts": [shared, predicted, real],
            }
        )
    return rows


def volume_scores(
    row: Row,
    model: LiverModel | TumorModel,
    liver: LiverModel | None,
    root: Path,
    case_ids,
    degrees: float = 0.0,
) -> list[dict]:
    """Score whole prepared cases through `segment_volume`: a row a case.

    Args:
        row: what is sought.
        model: the row's model.
        liver: finds the liver before a tumor model, None gives it the known one; unused by a
            liver row.
        root: prepared/ folder.
        case_ids: cases to score.
        degrees: of turned views, see `Postprocessing`.
    """
    rows, post = [], Postprocessing(rotation_degrees=degrees)
    for case_id in case_ids:
        files = CaseFiles(root, case_id)
        volume = read_volume(files.volume)
        reference = PackedVolume(files.labels).read()
        models = (model,) if row.seeks == "liver" else (liver, model)
        known = reference if row.seeks == "tumor" and liver is None else None
        predicted = segment_volume(volume, *models, post=post, known_liver=known)
        result = evaluate_case(predicted, reference, None, workers=1)
        rows.append(_case_row(case_id, row.seeks, result))
    return rows


def known_liver_scores(model: TumorModel, root: Path) -> list[dict]:
    """Score a tumor model within the known livers of a folder of NIfTI pairs: a row a case."""
    rows = []
    for case in find_cases(root):
        volume = read_volume(case.volume)
        reference = read_segmentation(case.segmentation, like=volume)
        if not (reference == 2).any():
            continue
        predicted = segment_volume(volume, tumor_model=model, known_liver=reference)
        result = evaluate_case(predicted, reference, None, workers=1)
        rows.append(_case_row(case.id, "tumor", result))
    return rows


def _case_row(case_id: str, seeks: str, result: dict) -> dict:
    kinds = ("intersection", "size_prediction", "size_reference")
    return {
        "case_id": case_id,
        "dice": result[f"{seeks}_dice"],
        "counts": [result[f"{seeks}_{kind}"] for kind in kinds],
        "lesions": [result["lesion_tp_50"], result["lesion_fn_50"]],
    }


def one_thread() -> None:
    """Compute alone: a run's seconds are those of one core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def end_with_parent() -> None:
    """End this process when its parent has ended, instead of training on for nobody."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
