"""Time how slices reach a training step: the cache, a plain PNG data set, MONAI's data sets.

   python benchmarks/feed.py --slices DIR

DIR is a PNG folder (images/<case>/<k>.png, masks/<case>/<k>.png). All serve shuffled batches of 16
slices at 160x160 as float32 with their masks, from the second epoch on. The plain data set decodes
and resizes in two persistent worker processes; MONAI keeps what a pipeline of its own transforms
gives, in memory (CacheDataset) or on disk (PersistentDataset), with and without worker processes.
Every process computes with one thread. Each way is timed in turn, several rounds of at least half
a second; the best epoch counts, since other work on the machine only slows.

Then, for the default recipe of each system, the share of a training step that feeding takes: an
augmented batch from a cache of phantoms against the step on it, both on one core.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.step import synchronize  # noqa: E402
from lits_helpers.cases import find_cases  # noqa: E402
from lits_helpers.datasets import (  # noqa: E402
    Augmentation,
    LiverSlices,
    SliceCache,
    augmentation_of,
    epoch_order,
)
from lits_helpers.phantom import write_phantom_dataset  # noqa: E402
from lits_helpers.preprocess import prepare  # noqa: E402
from lits_helpers.recipes import liver_recipe, tumor_recipe  # noqa: E402
from lits_helpers.training.optimization import Precision  # noqa: E402
from lits_helpers.training.systems import LiverSystem, TumorSystem  # noqa: E402

BATCH = 16
ROUND_SECONDS = 0.5
RECIPE = liver_recipe()


def cache_epochs(cache: SliceCache, augment: Augmentation | None) -> Callable[[int], Iterable]:
    """Return a function that serves one epoch from the cache."""
    generator = torch.Generator().manual_seed(0)

    def epoch(number: int) -> Iterable:
        order = epoch_order(cache, RECIPE, seed=0, epoch=number)
        for part in order.split(BATCH):
            images, labels = cache.batch(part, augment=augment, generator=generator)
            yield images, labels.clamp(max=1).unsqueeze(1).float()

    return epoch


def loader_epochs(dataset, workers: int) -> Callable[[int], Iterable]:
    """Return a function that serves one epoch from a data set; its workers stay alive."""
    loader = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda number: loader


def monai_datasets(root: Path, case_ids: list[str], size: int, folder: str) -> dict:
    """Return MONAI's data sets over the same slices, with its own transforms."""
    from monai import transforms as t
    from monai.data import CacheDataset, PersistentDataset

    files = [
        {"image": str(path), "mask": str(root / "masks" / case_id / path.name)}
        for case_id in case_ids
        for path in sorted((root / "images" / case_id).glob("*.png"))
    ]
    keys = ("image", "mask")
    steps = t.Compose(
        [
            t.LoadImaged(keys, reader="PILReader", ensure_channel_first=True),
            t.ScaleIntensityRanged("image", 0, 255, 0, 1),
            t.ThresholdIntensityd("mask", 127),
            t.ScaleIntensityRanged("mask", 0, 255, 0, 1),
            t.Resized(keys, (size, size), mode=("area", "nearest")),
            t.EnsureTyped(keys, track_meta=False),
        ]
    )
    return {
        "MONAI CacheDataset": CacheDataset(files, steps, progress=False),
        "MONAI PersistentDataset": PersistentDataset(files, steps, cache_dir=folder),
    }


def slices_per_second(epoch: Callable[[int], Iterable], number: int) -> float:
    """Serve one epoch, touching every batch."""
    began, served = time.perf_counter(), 0
    for batch in epoch(number):
        images = batch["image"] if isinstance(batch, dict) else batch[0]
        served += len(images)
    return served / (time.perf_counter() - began)


def measure(ways: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Return each way's best rate; the first epoch of each warms it and is not counted."""
    for epoch in ways.values():
        slices_per_second(epoch, 0)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, epoch in ways.items():
            until, number = time.perf_counter() + ROUND_SECONDS, 1
            while number == 1 or time.perf_counter() < until:
                best[name] = max(best[name], slices_per_second(epoch, number))
                number += 1
    return best


def report(rates: dict[str, float]) -> None:
    """Print the table and whether the claims hold."""
    plain = rates["plain PNG data set, 2 workers"]
    for name, rate in rates.items():
        print(f"{name:36s} {rate:10.0f} slices/s {rate / plain:8.1f} x")
    ours = rates["SliceCache"]
    monai = max(rate for name, rate in rates.items() if name.startswith("MONAI"))
    print(f"cache against the PNG data set: {ours / plain:.0f} x (wanted: 20)")
    print(f"cache against the best of MONAI: {ours / monai:.1f} x (wanted: over 1)")


def median_seconds(work: Callable[[], object], seconds: float = 3.0) -> float:
    """Return the median time of a call over so many seconds, after one to warm up."""
    work()
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def shares_of_step(folder: Path, device: torch.device) -> None:
    """Print what feeding takes of the default recipes' steps, on phantoms of 256x256."""
    prepare(find_cases(write_phantom_dataset(folder / "raw", 2, (40, 256, 256))), folder, png=False)
    for name, recipe, make in (
        ("liver", liver_recipe(), LiverSystem),
        ("tumor", tumor_recipe(pretrained=False), TumorSystem),
    ):
        cache = SliceCache(folder, ("0", "1"), recipe.spec, device=device)
        system = make(recipe, device, Precision(device))
        system.train()
        fed, stepped = feed_and_step(cache, system, recipe.batch_size)
        print(
            f"{name}, default: a step {1000 * stepped:.1f} ms, its augmented batch "
            f"{1000 * fed:.2f} ms ({fed / stepped:.1%}; wanted: under 3 %)"
        )


def feed_and_step(cache: SliceCache, system, count: int) -> tuple[float, float]:
    """Return the median seconds of an augmented batch and of a step on it."""
    random = torch.Generator().manual_seed(0)
    indices = torch.randperm(len(cache), generator=random)[:count]

    def feed():
        batch = cache.batch(indices, augment=augmentation_of(system.recipe), generator=random)
        synchronize(cache.device)
        return batch

    def step():
        system.step(*batch)
        synchronize(cache.device)

    batch = feed()
    return median_seconds(feed), median_seconds(step)


def main() -> None:
    """Build the ways, time them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="where the cache serves")
    choice = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    case_ids = sorted(path.name for path in (choice.slices / "images").iterdir())
    spec = replace(RECIPE.spec, channels=1, context=0)  # a slice alone, as MONAI serves it
    cache = SliceCache(choice.slices, case_ids, spec, device=choice.device)
    plain = LiverSlices(choice.slices, case_ids, spec)
    ways = {
        "plain PNG data set, 2 workers": loader_epochs(plain, 2),
        "SliceCache": cache_epochs(cache, augment=None),
        "SliceCache, augmented": cache_epochs(cache, augment=augmentation_of(RECIPE)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in monai_datasets(
            choice.slices, case_ids, RECIPE.spec.size, folder
        ).items():
            for workers in (0, 2):
                ways[f"{name}, {workers} workers"] = loader_epochs(dataset, workers)
        report(measure(ways, choice.rounds))
        shares_of_step(Path(folder) / "phantoms", torch.device(choice.device))


if __name__ == "__main__":
    main()
