"""What many cases' metrics say together: means with intervals, and pooled counts."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .lesions import OVERLAPS, SIZE_CLASSES

QUANTITIES = (
    "dice",
    "voe",
    "rvd_reference",
    "rvd_prediction",
    "assd_mm",
    "rmsd_mm",
    "max_surface_mm",
    "hd95_mm",
)


def dice(intersection: int, size_prediction: int, size_reference: int) -> float:
    """Return the Dice of two masks from their voxel counts; of two empty masks it is 1."""
    total = size_prediction + size_reference
    return 2 * intersection / total if total else 1.0


def evaluate_dataset(results: Iterable[Mapping], *, seed: int = 0, resamples: int = 2000) -> dict:
    """Join the rows of many cases.

    Args:
        results: `metrics.evaluate_case` dicts; a row may also hold ``case_id``, ``patient``,
            ``training_case`` (true for a case that a model was trained on: it is left out of
            everything here), ``liver_dice_ceiling`` and ``tumor_dice_ceiling``
            (`ceiling.resize_ceiling`).
        seed: random seed of the bootstrap; the same rows and seed give the same intervals.
        resamples: bootstrap samples of the patients, each with all its cases; a row without
            ``patient`` is a patient of its own.

    Returns:
        JSON-able. ``cases``, ``training_cases`` left out, ``cases_with_tumor`` in the reference,
        ``cases_without_tumor``, ``cases_without_tumor_clean`` where none was predicted either,
        ``cases_with_mm``.

        For each of ``liver_dice`` ... ``liver_hd95_mm`` and ``liver_dice_ceiling`` over all cases,
        the same of ``tumor_`` over the cases with tumor, and ``tumor_dice_all_cases`` over all (as
        LiTS ranks): ``{"cases", "mean", "sd", "median", "low", "high"}``, where ``cases`` counts
        the values behind it, ``sd`` is the sample's, and ``low`` to ``high`` is the bootstrap 95 %
        interval of the mean. Without values all but ``cases`` are None, of one value ``sd`` is; an
        infinite value makes mean and sd infinite.

        ``liver_dice_global``, ``tumor_dice_global``: 2 sum(I) / (sum(P) + sum(R)); 1 if all are
        empty, None without cases.
        ``lesion_precision_0``, ``lesion_recall_0``, ``lesion_f1_0``, the same with ``_50``, and by
        size class ``lesion_small_precision_0`` and so on, from counts summed over the cases (size
        classes: over those with trusted spacing); 0 / 0 is None.
        ``burden_rmse``, ``burden_max``: of the difference of the tumor burdens, over all cases.
        ``worst_liver`` over all cases, ``worst_tumor`` over those with tumor: ``[case_id, dice]``
        pairs, worst first.
    """
    rows = list(results)
    kept = [row for row in rows if not row.get("training_case")]
    with_tumor = [row for row in kept if row["tumor_size_reference"]]
    free = [row for row in kept if not row["tumor_size_reference"]]
    summary = {
        "cases": len(kept),
        "training_cases": len(rows) - len(kept),
        "cases_with_tumor": len(with_tumor),
        "cases_without_tumor": len(free),
        "cases_without_tumor_clean": sum(not row["tumor_size_prediction"] for row in free),
        "cases_with_mm": sum(row["liver_assd_mm"] is not None for row in kept),
    }
    for name, group in (("liver", kept), ("tumor", with_tumor)):
        for quantity in QUANTITIES:
            key = f"{name}_{quantity}"
            summary[key] = _statistics(group, key, seed, resamples)
        key = f"{name}_dice_ceiling"
        summary[key] = _statistics(group, key, seed, resamples)
        summary[f"{name}_dice_global"] = _global_dice(kept, name)
        summary[f"worst_{name}"] = _worst_first(group, f"{name}_dice")
    summary["tumor_dice_all_cases"] = _statistics(kept, "tumor_dice", seed, resamples)
    return summary | _detection(kept) | _burden(kept)


def _statistics(rows: Sequence[Mapping], key: str, seed: int, resamples: int) -> dict:
    rows = [row for row in rows if row.get(key) is not None]
    known = np.array([row[key] for row in rows], dtype=np.float64)
    names = ("mean", "sd", "median", "low", "high")
    if not len(known):
        return {"cases": 0, **dict.fromkeys(names)}
    sd = None
    if len(known) > 1:
        sd = float(known.std(ddof=1)) if np.isfinite(known).all() else np.inf
    low, high = _bootstrap_interval(known, _patient_numbers(rows), seed, resamples)
    found = (float(known.mean()), sd, float(np.median(known)), low, high)
    return {"cases": len(known), **dict(zip(names, found, strict=True))}


def _patient_numbers(rows: Sequence[Mapping]) -> np.ndarray:
    """Return (n,) int: rows of one patient share a number; in order of appearance from 0."""
    numbers = {}
    patients = [(row.get("patient") or number) for number, row in enumerate(rows)]
    return np.array([numbers.setdefault(patient, len(numbers)) for patient in patients], int)


def _bootstrap_interval(
    values: np.ndarray, patients: np.ndarray, seed: int, resamples: int
) -> tuple[float, float]:
    """Return the percentile 95 % interval of the mean, patients drawn with all their values.

    Source: Efron & Tibshirani 1993; Davison & Hinkley 1997, 3.8, for drawing whole clusters.
    """
    sums, counts = np.bincount(patients, values), np.bincount(patients)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    # A measured mean at each end: interpolating towards an infinite one would give NaN.
    low, high = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _global_dice(rows: Sequence[Mapping], name: str) -> float | None:
    if not rows:
        return None
    shared, real, predicted = (
        sum(row[f"{name}_{part}"] for row in rows)
        for part in ("intersection", "size_reference", "size_prediction")
    )
    return dice(shared, predicted, real)


def _worst_first(rows: Sequence[Mapping], key: str) -> list[list]:
    named = [[row.get("case_id", number), row[key]] for number, row in enumerate(rows)]
    return sorted(named, key=lambda pair: pair[1])


def _detection(rows: Sequence[Mapping]) -> dict[str, float | None]:
    pooled = {}
    for name in ("lesion", *(f"lesion_{size}" for size in SIZE_CLASSES)):
        for suffix in OVERLAPS:
            tp, fp, fn = (
                sum(row[f"{name}_{count}_{suffix}"] or 0 for row in rows)
                for count in ("tp", "fp", "fn")
            )
            pooled[f"{name}_precision_{suffix}"] = _share(tp, tp + fp)
            pooled[f"{name}_recall_{suffix}"] = _share(tp, tp + fn)
            pooled[f"{name}_f1_{suffix}"] = _share(2 * tp, 2 * tp + fp + fn)
    return pooled


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _burden(rows: Sequence[Mapping]) -> dict[str, float | None]:
    errors = np.array([row["burden_prediction"] - row["burden_reference"] for row in rows])
    if not len(errors):
        return {"burden_rmse": None, "burden_max": None}
    rmse, largest = np.sqrt(np.square(errors).mean()), np.abs(errors).max()
    return {"burden_rmse": float(rmse), "burden_max": float(largest)}
