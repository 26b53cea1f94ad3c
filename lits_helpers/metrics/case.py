"""LiTS-style metrics: how well a predicted segmentation matches its reference.

Every rule, every empty case and every difference from the official script stands in
docs/metrics.md. One case is measured here; `summary` joins many cases and shows them.
"""

import numpy as np

from .lesions import lesion_counts, list_lesions
from .overlap import dice, filled_box
from .surface import SURFACE_KEYS, surface_metrics


def evaluate_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
    *,
    workers: int = -1,
) -> dict:
    """Measure one predicted segmentation against its reference.

    Args:
        prediction, reference: (Z, Y, X) labels 0 background, 1 liver, 2 tumor; integers or bool.
            The liver mask is labels >= 1, the tumor mask labels == 2.
        spacing_mm: (dz, dy, dx), or None if it cannot be trusted; then every value in mm and every
            count by lesion size is None.
        workers: threads of the nearest-neighbour search; -1 takes all cores.

    Returns:
        A flat dict of plain numbers; docs/metrics.md has the value of each for empty masks. For
        ``liver_`` and ``tumor_``, of I common, P predicted and R reference voxels:

        * ``dice`` 2I / (P + R) and ``voe`` 1 - I / (P + R - I), both in [0, 1].
        * ``rvd_reference`` (P - R) / R, positive if too much is predicted; ``rvd_prediction``
          (R - P) / P, as in the official script; may be inf.
        * ``assd_mm``, ``rmsd_mm``, ``max_surface_mm``, ``hd95_mm``: see `surface.surface_metrics`.
        * ``intersection`` I, ``size_prediction`` P, ``size_reference`` R.

        Also the counts of `lesions.lesion_counts`, and ``burden_reference`` and
        ``burden_prediction``: tumor voxels / liver voxels in [0, 1].

    Raises:
        ValueError: shapes differ or are not (Z, Y, X), other labels, or a spacing that is none.
    """
    spacing_mm = _checked_spacing(spacing_mm)
    cropped = _checked_and_cropped(prediction, reference)
    tumors = _cropped(*(labels == 2 for labels in cropped))
    livers = tuple(labels > 0 for labels in cropped)
    result = {}
    for name, masks in (("liver", livers), ("tumor", tumors)):
        values = _overlap_metrics(*masks)
        if spacing_mm is None:
            values |= dict.fromkeys(SURFACE_KEYS)
        else:
            diagonal = float(np.linalg.norm((np.array(np.shape(reference)) - 1) * spacing_mm))
            values |= surface_metrics(*masks, spacing_mm, empty_mm=diagonal, workers=workers)
        result |= {f"{name}_{key}": value for key, value in values.items()}
    result |= lesion_counts(list_lesions(*tumors, spacing_mm))
    for side in ("reference", "prediction"):
        liver = result[f"liver_size_{side}"]
        result[f"burden_{side}"] = result[f"tumor_size_{side}"] / liver if liver else 0.0
    return result


def evaluate_lesions(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
) -> list[dict]:
    """List the lesions of one case and whether they were found, as `lesions.list_lesions` does.

    Args and Raises: as for `evaluate_case`.
    """
    spacing_mm = _checked_spacing(spacing_mm)
    tumors = (labels == 2 for labels in _checked_and_cropped(prediction, reference))
    return list_lesions(*_cropped(*tumors), spacing_mm)


def _overlap_metrics(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float | int]:
    predicted = int(np.count_nonzero(prediction))
    real = int(np.count_nonzero(reference))
    shared = int(np.count_nonzero(prediction & reference))
    union = predicted + real - shared
    return {
        "dice": dice(shared, predicted, real),
        "voe": 1 - shared / union if union else 0.0,
        "rvd_reference": _relative(predicted - real, real),
        "rvd_prediction": _relative(real - predicted, predicted),
        "intersection": shared,
        "size_reference": real,
        "size_prediction": predicted,
    }


def _relative(difference: int, divisor: int) -> float:
    if divisor:
        return difference / divisor
    return float("inf") if difference else 0.0


def _checked_and_cropped(
    prediction: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return both segmentations, cut to the smallest box that holds all their labels above 0."""
    if np.shape(prediction) != np.shape(reference):
        raise ValueError(
            f"prediction and reference must have one shape, got {np.shape(prediction)} and "
            f"{np.shape(reference)}; compare a case with its own reference, in the same orientation"
        )
    return _cropped(
        _checked_labels("prediction", prediction), _checked_labels("reference", reference)
    )


def _checked_labels(name: str, labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 3 or not labels.size:
        raise ValueError(f"{name} must be a filled (Z, Y, X) volume, got shape {labels.shape}")
    if labels.dtype.kind not in "bui":
        raise ValueError(
            f"{name} must hold integer labels 0, 1, 2, got {labels.dtype}; threshold first"
        )
    low = labels.min()
    high = labels.max()
    if low < 0 or high > 2:
        raise ValueError(f"{name} must hold labels 0, 1, 2 only, got values from {low} to {high}")
    return labels.view(np.uint8) if labels.dtype == bool else labels


def _cropped(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    box = filled_box(first, second) or (slice(0, 0),) * 3
    return first[box], second[box]


def _checked_spacing(spacing_mm) -> tuple[float, float, float] | None:
    if spacing_mm is None:
        return None
    spacing = tuple(float(step) for step in spacing_mm)
    if len(spacing) != 3 or not all(0 < step < np.inf for step in spacing):
        raise ValueError(
            f"spacing_mm must be (dz, dy, dx), each above 0, or None, got {spacing_mm}"
        )
    return spacing
