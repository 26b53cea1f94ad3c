"""Time of one slider move: the viewer against a persistent matplotlib figure, in the same run.

    python benchmarks/viewer.py [--slices 60] [--seed 0]

Both show the same 512x512 slices with the outlines of two layers and produce the encoded picture
that a notebook would send. matplotlib keeps its figure: new pixels with set_data, contours drawn
anew, a PNG as its notebook backends send it. With LITS_REAL real CT is used, else a phantom.
"""

import argparse
import io
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.figures import WINDOWS, color_of
from lits_helpers.phantom import make_phantom
from lits_helpers.settings import real_data
from lits_helpers.viewer import SliceViewer
from lits_helpers.volumes import read_segmentation, read_volume, volume_from_array

SHAPE = (78, 512, 512)


class MatplotlibViewer:
    """The usual way at its best: one figure, set_data, contours replaced."""

    def __init__(self, hu, layers):
        self.hu, self.layers = hu, layers
        figure = Figure(figsize=(5.12, 5.12), dpi=100)
        self.canvas = FigureCanvasAgg(figure)
        self.axis = figure.add_axes((0, 0, 1, 1))
        self.axis.axis("off")
        low, high = WINDOWS["abdomen"]
        self.image = self.axis.imshow(hu[0], cmap="gray", vmin=low, vmax=high)
        self.contours = []

    def show(self, index: int) -> bytes:
        """Draw a slice and return it as PNG."""
        for contour in self.contours:
            contour.remove()
        self.image.set_data(self.hu[index])
        self.contours = [
            self.axis.contour(labels[index] >= 1, [0.5], colors=[np.array(color_of(name)) / 255])
            for name, labels in self.layers.items()
            if labels[index].any() and not labels[index].all()
        ]
        stream = io.BytesIO()
        self.canvas.print_png(stream)
        return stream.getvalue()


def scan(seed: int):
    """Return a 512x512 volume and two liver layers, one a shifted copy of the other."""
    root = real_data()
    if root is not None:
        folder = Path(root) / "lits"
        volume = read_volume(folder / "volume_pt1" / "volume-0.nii.gz")
        reference = read_segmentation(folder / "segmentations" / "segmentation-0.nii.gz", volume)
    else:
        hu, reference, spacing_mm = make_phantom(seed, SHAPE)
        volume = volume_from_array(hu, spacing_mm)
    liver = (reference >= 1).astype(np.uint8)
    return volume, {"reference": liver, "prediction": np.roll(liver, (4, -5), (1, 2))}


def timed(action, indices) -> tuple[np.ndarray, list[int]]:
    """Return milliseconds and bytes of every call."""
    times, sizes = [], []
    for index in indices:
        start = time.perf_counter()
        data = action(int(index))
        times.append(1000 * (time.perf_counter() - start))
        sizes.append(len(data))
    return np.array(times), sizes


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=60, help="at most")
    parser.add_argument("--seed", type=int, default=0, help="random seed of order and phantom")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    volume, layers = scan(options.seed)
    viewer = SliceViewer(volume, layers)
    usual = MatplotlibViewer(volume.hu, layers)

    def move(index: int) -> bytes:
        viewer.controls.slider.value = index
        return viewer.controls.image.value

    labeled = np.flatnonzero(layers["reference"].any(axis=(1, 2)))
    indices = np.random.default_rng(options.seed).permutation(labeled)[: options.slices]
    timed(usual.show, indices[:3]), timed(move, indices[:3])
    ours, sizes = timed(move, indices)
    theirs, their_sizes = timed(usual.show, indices)
    print(
        f"{'real CT' if real_data() else 'phantom'}, {viewer.picture.shape}, {len(indices)} moves"
    )
    print(row("viewer", ours, sizes), row("matplotlib", theirs, their_sizes), sep="\n")
    print(f"ratio of the medians: {np.median(theirs) / np.median(ours):.1f}")


def row(name: str, times: np.ndarray, sizes: list[int]) -> str:
    """Return a line of the table."""
    middle, high = np.median(times), np.percentile(times, 95)
    kilobytes = np.median(sizes) / 1000, max(sizes) / 1000
    return (
        f"{name:11s} {middle:7.2f} ms median {high:7.2f} ms 95th percentile"
        f" {kilobytes[0]:6.1f} KB median {kilobytes[1]:6.1f} KB largest"
    )


if __name__ == "__main__":
    main()
