"""Run one or several models over a volume and average them, each slice as it is or turned too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from ..checkpoints import TrainedModel
from ..datasets import model_input, rotated
from ..environment import amp_dtype
from ..machine import available_cores, processes_here, require
from ..recipes import InputSpec
from ..settings import hint
from ..volumes import Frame, restore, slice_levels

LEAST_KEPT = 0.5 / 255  # a lower probability is 0 of 255
JOINED_BY = (np.add, np.minimum, np.maximum)  # mean (its parts), least and most opinion


def as_models(system: str, given: TrainedModel | Sequence[TrainedModel] | None) -> tuple:
    """Return one model, several or none as a tuple.

    Raises:
        TypeError: something else than models of `system` is among them.
    """
    if given is None:
        return ()
    models = tuple(given) if isinstance(given, list | tuple) else (given,)
    wanted = f"a {system} model: load_{system}_model(path)"
    for model in models:
        require(model, "probabilities", f"{system}_model", wanted)
        if getattr(model, "system", system) != system:
            raise TypeError(f"{system}_model must be {wanted}, got a {model.system} model")
    return models


@dataclass(frozen=True)
class Sweep:
    """One pass of one system's models over a volume; their probabilities are averaged.

    Attributes:
        models: all of one system. Those of equal `spec` share the slices brought to its size.
        hu: (Z, Y, X).
        frames: by the models' specs, how a model looks at the case; outside the part of a slice
            that it sees, its probability is 0.
        rotation_degrees: see `Postprocessing`.
        batch_size: slices per forward pass.
    """

    models: Sequence[TrainedModel]
    hu: np.ndarray
    frames: Mapping[InputSpec, Frame]
    rotation_degrees: float
    batch_size: int

    def mark(
        self,
        mask: np.ndarray,
        slices: Iterable[int],
        threshold: float,
        probability: np.ndarray | None = None,
    ) -> float | None:
        """Write 1 into `mask` (Z, Y, X) uint8 where the mean probability reaches `threshold`.

        Args:
            mask: all 0.
            slices: which to look at.
            threshold: in (0, 1).
            probability: (Z, Y, X) uint8, all 0; gets the mean probability times 255, rounded.

        Returns:
            The disagreement of models and turned views: of the voxels where one of them reaches the
            threshold, the share where not all do, in [0, 1]; 0 without such voxels. None of a
            single model and view.
        """
        slices = [int(k) for k in slices]
        least = threshold if probability is None else min(threshold, LEAST_KEPT)
        with _thread_per_core() as pool:
            levels = {spec: self._levels(slices, spec, pool) for spec in self.frames}

            def mark_batch(indices: list[int]) -> np.ndarray:
                opinions = {spec: self._opinions(indices, levels[spec], spec) for spec in levels}
                counts = np.zeros(2, int)
                for place, k in enumerate(indices):
                    planes = {spec: given[:, place] for spec, given in opinions.items()}
                    # Interpolation exceeds no input: planes below the threshold need none.
                    if max(most.max() for _, _, most in planes.values()) >= least:
                        kept = None if probability is None else probability[k]
                        counts += self._mark_slice(mask[k], planes, threshold, kept)
                return counts

            certain, possible = sum(pool.map(mark_batch, self._batches(slices)), np.zeros(2, int))
        if not self.several:
            return None
        return float(1 - certain / possible) if possible else 0.0

    @property
    def several(self) -> bool:
        """Whether more than one opinion is asked of each slice."""
        return len(self.models) > 1 or bool(self.rotation_degrees)

    def _opinions(self, indices: list[int], levels: Mapping, spec: InputSpec) -> np.ndarray:
        """Return (3, N, S, S): this spec's share of the mean, its lowest and highest opinion."""
        stack = np.stack([[levels[n] for n in self._neighbors(k, spec)] for k in indices])
        sharing = [model for model in self.models if model.spec == spec]
        found = _summed(sharing, stack, self.rotation_degrees)
        found[0] /= len(self.models) * len(_angles(self.rotation_degrees))
        return _checked(found)

    def _mark_slice(self, mask, planes: Mapping, threshold: float, kept) -> tuple[int, int]:
        """Mark one slice (H, W); count the voxels that all opinions mark, and that any marks."""
        mean = self._native(mask.shape, planes, 0)
        np.greater_equal(mean, threshold, out=mask.view(bool))
        if kept is not None:
            kept[:] = mean * 255 + 0.5
        if not self.several:
            return 0, 0
        both = (self._native(mask.shape, planes, number) >= threshold for number in (1, 2))
        return tuple(map(np.count_nonzero, both))

    def _native(self, shape: tuple[int, int], planes: Mapping, number: int) -> np.ndarray:
        """Return the mean (0), lowest (1) or highest (2) opinion of all specs, (H, W) float32."""
        found = []
        for spec, given in planes.items():
            frame = self.frames[spec]
            native = np.zeros(shape, np.float32)
            inside = frame.shown(native)
            inside[:] = restore(given[number], inside.shape, frame.pixel_aspect)
            found.append(native)
        return reduce(JOINED_BY[number], found)

    def _batches(self, slices: list[int]) -> list[list[int]]:
        """Return even batches, at least one for each core."""
        count = max(-(-len(slices) // self.batch_size), min(_own_cores(), len(slices)))
        return [part.tolist() for part in np.array_split(slices, count)] if slices else []

    def _levels(self, slices: list[int], spec: InputSpec, pool: Executor) -> dict[int, np.ndarray]:
        """Bring every slice that is needed, neighbours included, to a spec's size once."""
        needed = sorted({n for k in slices for n in self._neighbors(k, spec)})
        made = pool.map(lambda k: slice_levels(self.hu[k], spec, self.frames[spec]), needed)
        return dict(zip(needed, made, strict=True))

    def _neighbors(self, k: int, spec: InputSpec) -> list[int]:
        last = len(self.hu) - 1
        return [min(max(k + step, 0), last) for step in range(-spec.context, spec.context + 1)]


def probabilities(
    model: TrainedModel, levels: np.ndarray, rotation_degrees: float = 0.0
) -> np.ndarray:
    """Return a model's probabilities for a batch of slices, computed on the model's device.

    Args:
        model: from `load_liver_model` or `load_tumor_model`.
        levels: (N, 1 + 2 * context, S, S) grey levels, each slice among its neighbours.
        rotation_degrees: see `Postprocessing`.

    Returns:
        (N, S, S) float32 in [0, 1].
    """
    total = _summed([model], levels, rotation_degrees)[0]
    return _checked(total / len(_angles(rotation_degrees)))


@torch.inference_mode()
def _summed(models: Sequence[TrainedModel], levels: np.ndarray, degrees: float) -> np.ndarray:
    """Return (3, N, S, S): sum, minimum and maximum over models of one spec and their views."""
    total = least = most = None
    for model in models:
        device = next(model.parameters()).device
        dtype = amp_dtype(device)
        images = model_input(torch.from_numpy(levels).to(device), model.spec)
        images = images.contiguous(memory_format=torch.channels_last)
        for angle in _angles(degrees):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                view = rotated(images, angle) if angle else images
                opinion = model.probabilities(view)
                opinion = rotated(opinion, -angle) if angle else opinion
            total = opinion if total is None else total + opinion
            least = opinion if least is None else torch.minimum(least, opinion)
            most = opinion if most is None else torch.maximum(most, opinion)
    return torch.stack([total, least, most])[:, :, 0].cpu().numpy()


def _angles(degrees: float) -> tuple[float, ...]:
    return (0.0, degrees, -degrees) if degrees else (0.0,)


def _checked(planes: np.ndarray) -> np.ndarray:
    if not np.isfinite(planes).all():
        raise ValueError(
            "the model's output is NaN: its weights are broken, or too large for this device's "
            f"half precision; try {hint('cpu')}, or train it again"
        )
    return planes


@contextmanager
def _thread_per_core() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of one-thread workers: one batch a core beats one batch on all cores."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            _own_cores(), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # torch gives new threads the number set last


def _own_cores() -> int:
    """Return this process's share of the cores; `torchrun` says how many share them."""
    return max(1, available_cores() // processes_here())
