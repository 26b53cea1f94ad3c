"""Split cases into training, validation and test, by patient, never by slice."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..machine import require_each


@dataclass(frozen=True)
class Split:
    """Case ids for training, validation and test; no patient is in two of them."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


def split_cases(
    cases: Iterable, validation: float = 0.15, test: float = 0.0, fold: int | None = None
) -> Split:
    """Split cases by a stable hash of their patient, so that adding a case moves no other.

    Fractions hold on average only. If no patient falls into a wanted part, the patient whose hash
    lies nearest moves there, as long as one remains for training; if none is left for training,
    the largest part gives one up. A fold without patients is refused instead, so that over all
    folds each patient validates once.

    Args:
        cases: anything with `.id` and `.patient`.
        validation: fraction of patients for validation, in [0, 1).
        test: fraction for test; never depends on `fold`.
        fold: which of the ``round((1 - test) / validation)`` equal parts validates
            (cross-validation).

    Raises:
        ValueError: the fractions leave no training, or the fold does not exist or has no patient.
    """
    if not (0 <= validation and 0 <= test and validation + test < 1):
        raise ValueError(f"validation + test must be in [0, 1), got {validation} + {test}")
    cases = require_each(
        cases, "patient", "each case", "a Case, as find_cases(folder) returns them"
    )
    place = {case.patient: _place(case.patient) for case in cases}
    parts = {"test": (0.0, test), "validation": _validation_range(validation, test, fold)}
    part_of = _assign(place, parts, fold)
    ids = {
        part: tuple(case.id for case in cases if part_of[case.patient] == part)
        for part in ("training", "validation", "test")
    }
    return Split(**ids)


def _validation_range(validation: float, test: float, fold: int | None) -> tuple[float, float]:
    if fold is None:
        return test, test + validation
    folds = round((1 - test) / validation) if validation else 0
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be 0 to {folds - 1} for validation={validation}, got {fold}")
    width = (1 - test) / folds
    return test + fold * width, test + (fold + 1) * width


def _assign(
    place: dict[str, float], parts: dict[str, tuple[float, float]], fold: int | None
) -> dict[str, str]:
    part_of = dict.fromkeys(place, "training")
    for part, (start, end) in parts.items():
        for patient, u in place.items():
            if start <= u < end:
                part_of[patient] = part
    for part, (start, end) in parts.items():
        if end <= start or part in part_of.values():
            continue
        if part == "validation" and fold is not None:
            raise ValueError(
                f"fold {fold} holds none of the {len(place)} patients: leave it out, or make fewer "
                "folds"
            )
        # a patient moved to test comes from any part, so that all folds have the same test patients
        free = [p for p in place if part == "test" or part_of[p] == "training"]
        if len(free) > 1:
            middle = (start + end) / 2
            part_of[min(free, key=lambda patient: abs(place[patient] - middle))] = part
    if "training" not in part_of.values() and len(place) > 1:
        members = {part: [p for p in place if part_of[p] == part] for part in parts}
        part_of[max(max(members.values(), key=len), key=place.__getitem__)] = "training"
    return part_of


def _place(patient: str) -> float:
    """Return the stable place of a patient in [0, 1)."""
    digest = hashlib.blake2b(patient.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
