"""Do flags tell which segmentations to distrust? Generated patients and real scans, damaged.

    python -m benchmarks.flags make WORK --liver best_model.pth     # resumable; one core, hours
    python -m benchmarks.flags table WORK --out docs/results        # flags.md, flags.png
    python -m benchmarks.flags tumors WORK --tumor best_model.pth   # the two rules about tumors

Half of the generated patients (even numbers) is what the limits of `report/quality.py` were chosen
on; the table is of the other half and of the real scans under LITS_REAL.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from lits_helpers.cases import find_cases, load_case
from lits_helpers.checkpoints import load_liver_model, load_tumor_model
from lits_helpers.inference import second_look, segment_volume
from lits_helpers.machine import written_whole
from lits_helpers.metrics import dice
from lits_helpers.phantom.dataset import make_phantom
from lits_helpers.phantom.wide import wide_case
from lits_helpers.report import judge, look
from lits_helpers.report.quality import FLAGS
from lits_helpers.settings import real_data
from lits_helpers.volumes import volume_from_array

SHAPE = (32, 160, 160)
PATIENTS = 96  # half of them frozen, half wide
SEED = 4711  # of no training
BAD_DICE = 0.8  # of the liver, below
BAD_TUMOR_DICE = 0.5
RULES = ("tumor_unsure", "tumor_rim", "burden")


def noise(hu, labels, grade, rng):
    """Add white noise of 40, 90 or 180 HU."""
    return hu + rng.normal(0, (40, 90, 180)[grade], hu.shape), labels, 1


def thick(hu, labels, grade, rng):
    """Join 2, 3 or 5 slices to one."""
    count = (2, 3, 5)[grade]
    whole = len(hu) // count * count
    joined = hu[:whole].reshape(-1, count, *hu.shape[1:]).mean(axis=1)
    return joined, labels[count // 2 : whole : count], count


def cut(hu, labels, grade, rng):
    """Blank what lies beyond 60, 45 or 30 % of the liver's width."""
    columns = np.flatnonzero(labels.any(axis=(0, 1)))
    edge = int(np.quantile(columns, (0.6, 0.45, 0.3)[grade]))
    hu, labels = hu.copy(), labels.copy()
    hu[..., edge:], labels[..., edge:] = -1024, 0
    return hu, labels, 1


def shifted(hu, labels, grade, rng):
    """Shift all HU by 60, 120 or 220 up or down."""
    return hu + rng.choice((-1, 1)) * (60, 120, 220)[grade], labels, 1


def unenhanced(hu, labels, grade, rng):
    """Draw soft tissue towards 45 HU: half, most or all of the contrast is gone."""
    soft = (hu > 0) & (hu < 300)
    return np.where(soft, 45 + (hu - 45.0) * (0.5, 0.2, 0.05)[grade], hu), labels, 1


def metal(hu, labels, grade, rng):
    """Put metal beside the liver, with bright and dark rays of 150, 400 or 900 HU."""
    z, y, x = np.argwhere(labels > 0)[rng.integers(np.count_nonzero(labels))]
    rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
    angle, away = np.arctan2(rows - y, columns - x), np.hypot(rows - y, columns - x)
    rays = sum(np.cos(n * angle + rng.uniform(0, 6.3)) for n in (5, 7, 11, 16)) / 2
    field = (150, 400, 900)[grade] * rays * np.exp(-away / (hu.shape[1] / 4))
    hu = hu.astype(np.float32)
    near = slice(max(z - len(hu) // 3, 0), z + len(hu) // 3 + 1)
    hu[near] += field
    hu[near, away < 3] = 3000
    return hu, labels, 1


DAMAGES = (noise, thick, cut, shifted, unenhanced, metal)


def make(work: Path, liver: Path) -> None:
    """Segment every patient as it is and damaged twice; keep what the flags are made of."""
    model = load_liver_model(liver, "cpu")
    for name, patient in _patients():
        rng = np.random.default_rng([SEED, *name.encode()])
        kinds = [None, *rng.choice(len(DAMAGES), 2, replace=False)]
        hu = None
        for kind in kinds:
            grade = int(rng.integers(3))
            damage = "none" if kind is None else f"{DAMAGES[kind].__name__}{grade + 1}"
            path = work / f"{name}-{damage}.npz"
            if path.exists():
                continue
            if hu is None:
                hu, labels, spacing_mm = patient()
            damaged, reference, thicker = (
                (hu, labels, 1) if kind is None else DAMAGES[kind](hu, labels, grade, rng)
            )
            damaged = np.clip(np.rint(damaged), -1024, 3071).astype(np.int16)
            volume = volume_from_array(damaged, (spacing_mm[0] * thicker, *spacing_mm[1:]))
            _keep(path, volume, reference, model)


def _patients() -> Iterator:
    """Yield (name, what makes HU, labels and spacing)."""
    for number in range(PATIENTS // 2):
        for kind, maker in (("frozen", make_phantom), ("wide", wide_case)):
            yield f"{kind}-{number}", lambda m=maker, n=number: m((SEED, n), SHAPE)[:3]
    for folder in ("lits", "lits14") if real_data() else ():
        for case in find_cases(real_data() / folder):
            yield f"real-{folder}-{case.id}", lambda case=case: _real(case)


def _real(case):
    volume, labels, _ = load_case(case)
    step = 2 if max(volume.hu.shape) >= 512 else 1  # the model sees 160 pixels
    dz, dy, dx = volume.spacing_mm
    return volume.hu[:, ::step, ::step], labels[:, ::step, ::step], (dz, dy * step, dx * step)


def _keep(path: Path, volume, reference, model) -> None:
    labels = segment_volume(volume, model)
    sizes = [np.count_nonzero(mask) for mask in ((labels > 0) & (reference > 0), labels, reference)]
    content = {"hu": volume.hu, "labels": labels, "spacing_mm": volume.spacing_mm}
    content |= second_look(volume, labels, model) | {"dice": dice(*map(int, sizes))}
    with written_whole(path, lasting=False) as temporary:
        np.savez(temporary, **content)


def table(work: Path, out: Path) -> None:
    """Judge what `make` kept; write flags.md and flags.png."""
    rows = [_judged(path) for path in sorted(work.glob("*.npz"))]
    generated = [row for row in rows if row["kind"] != "real"]
    later = [row for row in generated if row["number"] % 2]
    sets = {
        "generated, limits chosen on these": [row for row in generated if not row["number"] % 2],
        "generated, others": later,
        "of these frozen": [row for row in later if row["kind"] == "frozen"],
        "of these wide": [row for row in later if row["kind"] == "wide"],
        "real": [row for row in rows if row["kind"] == "real"],
    }
    lines = [
        "# How often a flag was right",
        "",
        "Made by `benchmarks/flags.py`; what it means is said in [predicting]"
        "(../predicting.md#flags-how-far-to-trust-a-prediction).",
        "A case is flagged if its word is *look at it* or *do not use*, refused if the latter.",
        "*Rank correlation* is of the score with the liver's Dice.",
        "*AUC* is the area under the curve for a Dice below 0.8.",
        "",
        _line("cases", "scans", "Dice < 0.8", "rank correlation", "AUC", *SHARES),
        "|--" * 8 + "|",
    ]
    for evidence in ("all", "labels"):
        of = {"all": "", "labels": " (labels and CT alone)"}[evidence]
        lines += [_line(f"{name}{of}", *_measures(part, evidence)) for name, part in sets.items()]
    lines += ["", "The same cases by what was done to the scan, 1 slight to 3 severe:", ""]
    lines += [_line("damage", "scans", "mean Dice", "median score"), "|--" * 4 + "|"]
    for damage in sorted({row["damage"] for row in rows}):
        part = [row for row in rows if row["damage"] == damage]
        mean = np.mean([row["dice"] for row in part])
        middle = np.median([row["all"]["score"] for row in part])
        lines.append(_line(damage, len(part), f"{mean:.2f}", f"{middle:.2f}"))
    (out / "flags.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _draw(later, sets["real"], out / "flags.png")


SHARES = ("sound cases flagged", "bad cases flagged", "bad cases refused")


def _judged(path: Path) -> dict:
    kind, number, damage = re.fullmatch(r"(frozen|wide|real)-(.+)-(\w+)", path.stem).groups()
    stored = np.load(path)
    spacing_mm = tuple(stored["spacing_mm"].tolist())
    seen = look(stored["hu"], stored["labels"], spacing_mm)
    sure = {name: float(stored[name]) for name in stored if name.startswith("liver_")}
    row = {"kind": kind, "number": int(number.split("-")[-1]), "damage": damage}
    return row | {"dice": float(stored["dice"]), "labels": judge(seen), "all": judge(seen | sure)}


def _measures(rows: list[dict], evidence: str) -> list:
    dices = np.array([row["dice"] for row in rows])
    scores = np.array([row[evidence]["score"] for row in rows])
    words = np.array([row[evidence]["word"] for row in rows])
    bad = dices < BAD_DICE
    above = scores[bad][:, None] - scores[~bad][None]
    area = np.mean(above > 0) + np.mean(above == 0) / 2
    shares = (words[~bad] != "sound"), (words[bad] != "sound"), (words[bad] == "do not use")
    correlation = -spearmanr(scores, dices).statistic
    numbers = (f"{correlation:.2f}", f"{area:.3f}", *(f"{share.mean():.0%}" for share in shares))
    return [len(rows), int(bad.sum()), *numbers]


def tumors(work: Path, tumor: Path) -> None:
    """Print how the evidence about tumors goes with the tumors' Dice, in the livers of `make`.

    Taken are the generated patients, as they are or under a damage that moves no voxel. The limit
    of `tumor_unsure` was chosen with all of them in view.
    """
    model = load_tumor_model(tumor, "cpu")
    rows = []
    for name, patient in _patients():
        if name.startswith("real"):
            continue
        reference = patient()[1] == 2
        for path in sorted(work.glob(f"{name}-*.npz")):
            damage = path.stem.split("-")[-1]
            if damage.startswith(("thick", "cut")) or not reference.any():
                continue
            row = _tumor_row(path, reference, model)
            if row is None:
                print(name, damage, "no tumor was found", flush=True)
                continue
            rows.append([int(name.split("-")[1]) % 2, *row])
            print(name, damage, *(f"{value:.3f}" for value in row), flush=True)
    for odd, which in ((0, "even"), (1, "odd")):
        dices, *evidence = np.array([row[1:] for row in rows if row[0] == odd]).T
        bad = dices < BAD_TUMOR_DICE
        print(f"{which}: {len(bad)} scans, tumor Dice below {BAD_TUMOR_DICE}: {bad.sum()}")
        for rule, values in zip(RULES, evidence, strict=True):
            flagged = values >= FLAGS[rule].limit
            above = values[bad][:, None] - values[~bad][None]
            area = np.mean(above > 0) + np.mean(above == 0) / 2
            print(
                f"{rule}: rank correlation {-spearmanr(values, dices).statistic:.2f}, area "
                f"{area:.3f}, flagged {flagged[bad].mean():.0%}, of the others "
                f"{flagged[~bad].mean():.0%}"
            )


def _tumor_row(path: Path, reference: np.ndarray, model) -> tuple[float, ...] | None:
    """Return the tumor's Dice and what the rules see, in the predicted liver of `make`.

    None where no tumor was found: that cannot be told from a patient without one.
    """
    stored = np.load(path)
    volume = volume_from_array(stored["hu"], tuple(stored["spacing_mm"].tolist()))
    labels = segment_volume(volume, None, model, known_liver=stored["labels"])
    found = labels == 2
    if not found.any():
        return None
    sizes = [int(np.count_nonzero(mask)) for mask in (found & reference, found, reference)]
    seen = look(volume.hu, labels, volume.spacing_mm) | second_look(volume, labels, None, model)
    return (dice(*sizes), *(seen.get(rule, 0.0) for rule in RULES))


def _line(*cells) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _draw(generated: list[dict], real: list[dict], path: Path) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.axvspan(1, 2.5, color="0.93")
    axis.axvspan(2.5, 30, color="0.86")
    axis.axhline(BAD_DICE, color="0.5", linewidth=0.8)
    for rows, marker, name in ((generated, "o", "generated"), (real, "s", "real")):
        scores = [min(max(row["all"]["score"], 0.1), 30) for row in rows]
        axis.scatter(scores, [row["dice"] for row in rows], 18, marker=marker, label=name)
    for place, word in ((0.2, "sound"), (1.1, "look at it"), (4, "do not use")):
        axis.text(place, 0.02, word)
    axis.set(xscale="log", xlim=(0.1, 30), ylim=(0, 1), xlabel="score", ylabel="Dice of the liver")
    axis.legend(loc="center left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("step", choices=("make", "table", "tumors"))
    reader.add_argument("work", type=Path)
    reader.add_argument("--liver", type=Path)
    reader.add_argument("--tumor", type=Path)
    reader.add_argument("--out", type=Path, default=Path("docs/results"))
    options = reader.parse_args()
    if options.step == "make":
        make(options.work, options.liver)
    elif options.step == "tumors":
        tumors(options.work, options.tumor)
    else:
        table(options.work, options.out)
