"""Time whole volumes against the original way and against the floor, and take the peak memory.

    python benchmarks/inference.py [--recipe default] [--format nii.gz] [--rounds 2] [--float32]
        [--processor]
    python benchmarks/inference.py --peak 987

The volume is the first scan under LITS_REAL (a generated phantom without one) between two mirrored
copies of itself: 512x512x234 for that scan. A third of its slices holds liver, as in LiTS (19,100
of 58,638). The networks do all their work, then answer with drawn ellipses, so that the cascade
meets a liver where there is one; their weights are random and the answers the same on all sides.

* original: nibabel's get_fdata, slice by slice through both networks in float32, masks enlarged by
  nearest neighbour, saved as .nii.gz with nibabel;
* ours: `segment_file`, file to file; once more with a look at all slices for the liver;
* floor: reading and writing the same files and the same forward passes on inputs that lie ready,
  at the better of two ways to use the cores and the best of three batch sizes; nothing else.

What `predict` does beyond that is timed too: the second look that flags are made of, and keeping
probabilities. Best of the rounds, with --processor in seconds of the processor, for a machine that
does other work too; parts of ours are timed once more on their own. A faster gzip (isal) is timed
where it is installed: it reads a LiTS scan in under half the time, about a seventh of the whole,
which is less than reading the next scan ahead spares (`inference/folders.py`): no dependency.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lits_helpers.cases import find_cases  # noqa: E402
from lits_helpers.checkpoints import LiverModel, Origin, TumorModel  # noqa: E402
from lits_helpers.environment import amp_dtype  # noqa: E402
from lits_helpers.inference import (  # noqa: E402
    Postprocessing,
    ensemble,
    second_look,
    segment,
    segment_file,
    segment_volume,
)
from lits_helpers.inference.postprocess import liver_reach  # noqa: E402
from lits_helpers.models import build_generator, build_segmenter  # noqa: E402
from lits_helpers.phantom import write_phantom_dataset  # noqa: E402
from lits_helpers.recipes import liver_recipe, tumor_recipe  # noqa: E402
from lits_helpers.settings import real_data  # noqa: E402
from lits_helpers.volumes import read_volume, write_segmentation  # noqa: E402

CLOCK = time.perf_counter
MARK = (slice(0, 16), slice(0, 16))  # this corner is bright in the slices that hold liver
BATCHES = (4, 8, 16)


class Rehearsed(nn.Module):
    """A network that does its work and then answers with an ellipse.

    Args:
        network: what is timed.
        reach: half axes of the ellipse as a share of the plane's side.
        marked: answer only where the slice's corner is bright.
        logits: answer +-8 instead of 1 and 0.
    """

    def __init__(self, network: nn.Module, reach: float, marked: bool, logits: bool):
        super().__init__()
        self.network, self.reach, self.marked, self.logits = network, reach, marked, logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer = self.network(images) * 0
        side = torch.linspace(-1, 1, images.shape[-1])
        ellipse = ((side[:, None] ** 2 + side[None] ** 2) < self.reach**2).float()
        if self.marked:
            middle = images.shape[1] // 2
            ellipse = ellipse * (images[:, middle, None, 2:3, 2:3] > 0.5)
        return answer + (ellipse * 16 - 8 if self.logits else ellipse)


def models(name: str) -> tuple[LiverModel, TumorModel]:
    """Return both networks of a recipe with random weights, as `load_*_model` would."""
    torch.manual_seed(0)
    liver, tumor = liver_recipe(name), tumor_recipe(name, pretrained=False)
    networks = (
        (LiverModel, Rehearsed(build_generator(liver), 0.5, True, False), liver.spec),
        (TumorModel, Rehearsed(build_segmenter(tumor), 0.1, False, True), tumor.spec),
    )
    return tuple(
        kind(network, spec, Origin("", spec, ())).eval().to(memory_format=torch.channels_last)
        for kind, network, spec in networks
    )


def write_scan(folder: Path, suffix: str, depth: int | None = None) -> Path:
    """Write the tiled scan; `depth` slices of it, or three tiles."""
    if real_data():
        source = find_cases(real_data() / "lits")[0].volume
    else:
        write_phantom_dataset(folder / "phantom", cases=1, shape=(78, 512, 512))
        source = find_cases(folder / "phantom")[0].volume
    volume = read_volume(source)
    hu = volume.hu.copy()
    hu[:, *MARK] = 300
    plain = volume.hu[::-1].copy()
    plain[:, *MARK] = -1000
    tiles = [plain, hu, plain]
    while depth and sum(map(len, tiles)) < depth:
        tiles += [plain, hu, plain]
    stacked = np.concatenate(tiles)[:depth]
    dz, dy, dx = volume.spacing_mm
    path = folder / f"volume-0.{suffix}"
    nib.save(nib.Nifti1Image(stacked.transpose(2, 1, 0), np.diag([-dx, -dy, dz, 1])), path)
    return path


@torch.inference_mode()
def original(path: Path, out: Path, liver: LiverModel, tumor: TumorModel) -> None:
    """The straightforward way, for files stored as LPS."""
    image = nib.load(path)
    data = image.get_fdata()
    labels = np.zeros(data.shape, np.uint8)
    for k in range(data.shape[2]):
        masks = []
        for model in (liver, tumor):
            spec = model.spec
            low, high = spec.window or (data[..., k].min(), data[..., k].max())
            plane = np.clip((data[..., k].T - low) / (high - low), 0, 1).astype(np.float32)
            plane = torch.from_numpy(cv2.resize(plane, (spec.size, spec.size)))
            batch = plane.expand(1, spec.channels, -1, -1).contiguous()
            mask = (model.probabilities(batch)[0, 0] > 0.5).numpy().astype(np.uint8)
            masks.append(cv2.resize(mask, data.shape[:2], interpolation=cv2.INTER_NEAREST))
        labels[..., k] = np.where(masks[1] > 0, 2, masks[0]).T
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), out)


def forward_seconds(model: LiverModel, slices: int, spare: bool) -> float:
    """Return the least seconds for the forward passes of so many slices."""
    size, dtype = model.spec.size, amp_dtype(torch.device("cpu"))

    def passes(batch: torch.Tensor) -> None:
        enabled = dtype != torch.float32
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=enabled):
            model(batch)

    best = float("inf")
    inputs = torch.rand(slices, model.spec.channels, size, size)
    for batch_size in BATCHES:
        batches = inputs.contiguous(memory_format=torch.channels_last).split(batch_size)
        if spare:
            passes(batches[0])
            best = min(best, seconds(lambda b=batches: [passes(x) for x in b]))
        else:
            alone = {"initializer": lambda: torch.set_num_threads(1)}
            with ThreadPoolExecutor(len(os.sched_getaffinity(0)), **alone) as pool:
                list(pool.map(passes, batches[:2]))
                best = min(best, seconds(lambda b=batches, p=pool: list(p.map(passes, b))))
    return best


def seconds(work: Callable[[], object]) -> float:
    started = CLOCK()
    work()
    return CLOCK() - started


def look_at_all(work: Callable[[], object]) -> None:
    steps, segment.STEPS = segment.STEPS, segment.STEPS[-1:]
    work()
    segment.STEPS = steps


def measure(path: Path, recipe: str, rounds: int) -> None:
    """Print the table for one recipe."""
    liver, tumor = models(recipe)
    out = path.with_name("out." + path.name.partition(".")[2])
    volume = read_volume(path)
    labels = segment_volume(volume, liver, tumor)
    reach = len(liver_reach((labels > 0).view(np.uint8), volume.spacing_mm, Postprocessing()))
    ways = {
        "original": lambda: original(path, path.with_name("original.nii.gz"), liver, tumor),
        "ours": lambda: segment_file(path, out, liver, tumor),
        "ours, all slices": lambda: look_at_all(ways["ours"]),
        "  reading": lambda: read_volume(path),
        "  writing": lambda: write_segmentation(labels, volume, out),
        "second look": lambda: second_look(volume, labels, liver, tumor),
        "kept": lambda: segment_volume(volume, liver, tumor, probabilities={}),
        "not kept": lambda: segment_volume(volume, liver, tumor),
    }
    best = dict.fromkeys(ways, float("inf"))
    passes = [float("inf"), float("inf")]
    for turn in range(rounds):
        for name, work in ways.items():
            best[name] = min(best[name], seconds(work))
        for n, (model, count) in enumerate(((liver, len(labels)), (tumor, reach))):
            passes[n] = min(passes[n], forward_seconds(model, count, spare=turn % 2 == 1))
    best["  liver forward"], best["  tumor forward"] = passes
    best["floor"] = best["  reading"] + best["  writing"] + sum(passes)
    print(f"\n{recipe} recipes, {labels.shape} as {path.name}, {reach} slices in the liver's reach")
    for name, value in best.items():
        print(f"{name:18s} {value:8.2f} s {best['original'] / value:8.1f} x")
    print(f"ours is {best['original'] / best['ours']:.1f} times faster than the original way")
    print(f"ours takes {best['ours'] / best['floor']:.2f} of the floor (wanted: at most 1.2)")
    print(f"the second look of `predict` adds {best['second look'] / best['ours']:.1%} to ours")
    print(f"probabilities take {best['kept'] / best['not kept']:.2f} of the time without them")


def inflate(path: Path) -> None:
    """Print what a faster gzip would spare: ISA-L's, if `isal` is installed."""
    took = {}
    for name in ("gzip", "isal.igzip"):
        if importlib.util.find_spec(name.partition(".")[0]):
            module = importlib.import_module(name)

            def read(opened=module.open) -> None:
                with opened(path, "rb") as stream:
                    while stream.read(1 << 20):
                        pass

            took[name] = min(seconds(read) for _ in range(3))
    print("inflating alone:", ", ".join(f"{name} {value:.2f} s" for name, value in took.items()))


def peak(depth: int, suffix: str) -> None:
    """Print the peak resident memory of a process that segments one volume of `depth` slices."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_scan(Path(folder), suffix, depth)
        command = [sys.executable, __file__, "--segment", str(path)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def segment_and_report(path: Path) -> None:
    took = seconds(lambda: segment_file(path, path.with_name("out.nii.gz"), *models("default")))
    # not getrusage: its maximum outlives exec and would be that of the process that wrote the scan
    status = Path("/proc/self/status").read_text()
    mebibytes = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    print(f"{path.name}, {read_volume(path).hu.shape}: {took:.1f} s, peak {mebibytes:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=("default", "original"), action="append")
    parser.add_argument("--format", choices=("nii", "nii.gz"), default="nii.gz")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peak", type=int, metavar="SLICES", help="only the peak memory")
    parser.add_argument("--float32", action="store_true", help="as where bfloat16 is not native")
    parser.add_argument("--processor", action="store_true", help="seconds of the processor")
    parser.add_argument("--segment", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    global CLOCK, amp_dtype
    if options.processor:
        CLOCK = time.process_time
    if options.float32:
        amp_dtype = ensemble.amp_dtype = lambda _: torch.float32
    if options.segment:
        segment_and_report(options.segment)
    elif options.peak:
        peak(options.peak, options.format)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = write_scan(Path(folder), options.format)
            for recipe in options.recipe or ("default", "original"):
                measure(path, recipe, options.rounds)
            if options.format == "nii.gz":
                inflate(path)


if __name__ == "__main__":
    main()
