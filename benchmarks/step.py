"""Time one training step of the liver GAN: plain, as published, ours, and the default recipe.

    python benchmarks/step.py
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/step.py --precision fp32 \
        --forms published original --batch 1 --no-compile       # as on a CPU without AVX-512

Four forms of the step on the same random batches of 160x160 slices, in one run:

* plain: float32, contiguous, critic features layer by layer (each layer from the start again), the
  generator run once for each of the two updates;
* published: the original recipe with what it was published with: AMP, all layers in a single pass,
  critic frozen while the generator steps, torch.compile;
* original: the original recipe on our engine;
* default: the default recipe on our engine, which sees each slice between two neighbours.

Times on a CPU are those of the processor, shared among the threads: other programs disturb them
less than the clock. The arithmetic floor is the step's multiply-accumulates (counted by torch) over
the machine's measured rate of large matrix products in the precision used.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lits_helpers.environment import choose_device
from lits_helpers.losses import feature_loss, masked_image, pixel_loss
from lits_helpers.models import build_critic, build_generator
from lits_helpers.recipes import liver_recipe
from lits_helpers.training.optimization import Precision
from lits_helpers.training.systems import LiverSystem

FORMS = ("plain", "published", "original", "default")


class PlainStep:
    """The literal step: two separate updates, nothing shared."""

    def __init__(self, recipe, device, precision):
        torch.manual_seed(0)
        self.recipe, self.precision = recipe, precision
        self.generator = build_generator(recipe).to(device)
        self.critic = build_critic(recipe).to(device)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=recipe.betas)
            for network in (self.generator, self.critic)
        ]

    def features(self, image):
        """Every layer's features, each computed from the image on."""
        found = []
        for depth in range(1, len(self.critic.layers) + 1):
            x = image
            for layer in self.critic.layers[:depth]:
                x = layer(x)
            found.append(torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1))
        return found

    def compared(self, images, prediction, masks):
        """The feature loss between predicted and reference mask."""
        masked = (masked_image(images, mask) for mask in (prediction, masks))
        return feature_loss(*(self.features(image) for image in masked))

    def step(self, images, labels):
        masks = (labels >= 1).float()[:, None]
        with self.precision.autocast():
            prediction = self.generator(images)
            compared = self.compared(images, prediction.float(), masks)
        loss = pixel_loss(prediction, masks) + self.recipe.feature_weight * compared
        self.precision.backward(loss, self.optimizers[:1])
        self.precision.step(self.optimizers[:1])
        with self.precision.autocast():
            prediction = self.second_prediction(images, prediction)
            compared = self.compared(images, prediction.float(), masks)
        self.precision.backward(compared, self.optimizers[1:])
        self.precision.step(self.optimizers[1:])
        return loss.detach()

    def second_prediction(self, images, _first):
        """The generator runs again for the critic's update."""
        with torch.no_grad():
            return self.generator(images)


class PublishedStep(PlainStep):
    """AMP, single-pass features, the critic frozen while the generator steps, torch.compile."""

    def __init__(self, recipe, device, precision, compiled):
        super().__init__(recipe, device, precision)
        self._features = self.critic.forward_all_layers
        if compiled:
            self.generator = torch.compile(self.generator)
            self._features = torch.compile(self._features)

    def features(self, image):
        return self._features(image)

    def step(self, images, labels):
        masks = (labels >= 1).float()[:, None]
        self.critic.requires_grad_(False)
        with self.precision.autocast():
            prediction = self.generator(images)
            compared = self.compared(images, prediction.float(), masks)
        loss = pixel_loss(prediction, masks) + self.recipe.feature_weight * compared
        self.precision.backward(loss, self.optimizers[:1])
        self.precision.step(self.optimizers[:1])
        self.critic.requires_grad_(True)
        with self.precision.autocast():
            compared = self.compared(images, prediction.detach().float(), masks)
        self.precision.backward(compared, self.optimizers[1:])
        self.precision.step(self.optimizers[1:])
        return loss.detach()


def synchronize(device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(step, batch, device, seconds: float) -> float:
    """Median time of a step over `seconds`, at least two steps, after one of warming up."""
    clock = time.perf_counter
    if device.type == "cpu":  # of all cores, shared among the threads
        clock = lambda: time.process_time() / torch.get_num_threads()  # noqa: E731
    step(*batch)
    synchronize(device)
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 2:
        start = clock()
        step(*batch)
        synchronize(device)
        times.append(clock() - start)
    return 1000 * statistics.median(times)


def matmul_rate(device, dtype, side: int = 2048) -> float:
    """Multiply-accumulates per second of a large matrix product."""
    a = torch.rand(side, side, device=device, dtype=dtype)
    taken = milliseconds(lambda x: x @ x, (a,), device, 1.0)
    return side**3 / taken * 1000


def multiply_accumulates(step, images, labels) -> float:
    """Those of a step per image, forward and backward, counted by torch on two images."""
    with FlopCounterMode(display=False) as counter:
        step(images[:2], labels[:2])
    return counter.get_total_flops() / 4


def forms(device, compiled: bool, precision: str) -> dict:
    """Name -> (step, batch size, precision) of the four forms."""
    original, default = liver_recipe("original"), liver_recipe("default")
    fp32, best = Precision(device, "fp32"), Precision(device, precision)
    return {
        "plain": (PlainStep(original, device, fp32), original.batch_size, fp32),
        "published": (
            PublishedStep(original, device, best, compiled),
            original.batch_size,
            best,
        ),
        "original": (LiverSystem(original, device, best), original.batch_size, best),
        "default": (LiverSystem(default, device, best), default.batch_size, best),
    }


def main(options: argparse.Namespace) -> None:
    """Print the table."""
    device, compiled, seconds = choose_device(), not options.no_compile, options.seconds
    generator = torch.Generator().manual_seed(0)
    rows, rates = [], {}
    slices = torch.rand(16, 3, 160, 160, generator=generator).to(device)
    for name, (form, count, precision) in forms(device, compiled, options.precision).items():
        if name not in options.forms:
            continue
        count = options.batch or count
        images = slices[:count] if form.recipe.spec.channels == 3 else slices[:count, 1:2]
        labels = (slices[:count, 1] > 0.8).to(torch.uint8)
        rates.setdefault(precision.dtype, matmul_rate(device, precision.dtype))
        taken = milliseconds(form.step, (images, labels), device, seconds)
        macs = float("nan")
        if not (name == "published" and compiled):  # compiled code hides its operators
            macs = multiply_accumulates(form.step, images, labels)
        floor = 1000 * macs / rates[precision.dtype]
        rows.append((name, precision.name, count, taken, taken / count, floor))
        print(f"measured {name}: {taken:.0f} ms", flush=True)
    per_image = {row[0]: row[4] for row in rows}
    print(f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| form | precision | batch | ms/step | ms/image | floor ms/image | speed-up |")
    print("|--|--|--|--|--|--|--|")
    for name, precision, count, taken, image, floor in rows:
        gain = per_image.get("plain", float("nan")) / image
        print(
            f"| {name} | {precision} | {count} | {taken:.0f} | {image:.2f} | {floor:.2f} "
            f"| {gain:.1f} |"
        )
    for name in ("original", "default"):
        if {name, "published"} <= per_image.keys():
            ratio = per_image["published"] / per_image[name]
            print(f"{name} against published: {ratio:.2f} times as fast")
    if hasattr(os, "getloadavg"):
        print(f"load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time of each form")
    parser.add_argument("--no-compile", action="store_true", help="published form without compile")
    parser.add_argument("--precision", default="auto", help="of all but the plain form")
    parser.add_argument("--batch", type=int, help="images a step; by default the recipe's")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    main(parser.parse_args())
