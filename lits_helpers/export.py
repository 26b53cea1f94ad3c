"""Write a trained model as ONNX, and beside it what a program without torch must know."""

import importlib.util
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from .checkpoints import (
    TrainedModel,
    load_checkpoint,
    load_liver_model,
    load_tumor_model,
    weights_hash,
)
from .datasets import IMAGENET_DEVIATION, IMAGENET_MEAN
from .machine import read_json, write_json, written_whole
from .recipes import InputSpec
from .settings import hint
from .volumes import SQUARE_WITHIN

OPSET = 20  # of ONNX, December 2023
NEEDED = ("onnx", "onnxscript")
MULTIPLE = 32  # of rows and columns, as both networks halve them
NOBODY = "generated patients, no real one"  # as the weights that come with the project
CARD = """# {name}: {system} segmentation in CT, exported from lits_helpers

Not a medical device: for research and teaching only.

| | |
|--|--|
| recipe | {recipe} |
| best epoch, its validation Dice per case | {epoch}, {dice} |
| trained on | {cases} |
| input `image` | float32 (N, {channels}, rows, columns); rows and columns are multiples of 32, trained at {size} |
| output `probability` | float32 (N, 1, rows, columns) in [0, 1] |

`{name}.json` says how HU become `image`, and which thresholds and rules make labels of `probability`.
`examples/onnx_only.py` of lits_helpers does both without torch.
"""  # noqa: E501


def export_onnx(
    checkpoint: Path | str,
    out: Path | str,
    postprocessing: Mapping[str, float | bool],
    system: str | None = None,
) -> Path:
    """Write a trained model as ONNX, and beside it a JSON of its preprocessing and a card.

    Args:
        checkpoint: of either system, as `checkpoints.load_checkpoint` reads it.
        out: the ONNX file; the others have its name with .json and .md.
        postprocessing: thresholds and rules for the JSON, the fields of `Postprocessing`.
        system: "liver" or "tumor" to insist on that system.

    Returns:
        `out`. Its input ``image`` is (N, channels, rows, columns) float32 as the JSON describes it,
        rows and columns multiples of 32; its output ``probability`` is (N, 1, rows, columns).

    Raises:
        ImportError: the packages of the extra ``export`` are missing.
        ValueError: `out` does not end in .onnx or holds another model; no checkpoint, or one of the
            other system.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"an exported model must be named .onnx, got {out}")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ImportError(f"export needs {' and '.join(missing)}: pip install {' '.join(NEEDED)}")
    content = load_checkpoint(checkpoint, system)
    load = load_liver_model if content["system"] == "liver" else load_tumor_model
    model = load(checkpoint, "cpu")
    about = _described(model, postprocessing)
    _require_same(out, about["weights"])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), about)
    with written_whole(out.with_suffix(".md")) as temporary:
        temporary.write_text(_card(out.stem, model.spec, content), encoding="utf-8")
    with written_whole(out) as temporary:  # last: what stopped before is no model
        _write_graph(model, temporary)
    return out


def _require_same(out: Path, weights: str) -> None:
    """Refuse to write over another model, or over what only has its name."""
    beside = out.with_suffix(".json")
    known = read_json(beside) if beside.is_file() else None
    same = isinstance(known, dict) and known.get("weights") == weights
    if (out.exists() or beside.exists()) and not same:
        raise ValueError(
            f"{out} is of another model: choose {hint('out')}, or delete it and {beside.name}"
        )


class _Probabilities(nn.Module):
    def __init__(self, model: TrainedModel):
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model.probabilities(image)


def _write_graph(model: TrainedModel, path: Path) -> None:
    # The size is free: unequal sides that leave several pixels at the deepest level keep the
    # tracer from taking anything for constant.
    example = torch.zeros(2, model.spec.channels, 3 * MULTIPLE, 4 * MULTIPLE)
    dimension = torch.export.Dim
    free = {0: dimension("N"), 2: MULTIPLE * dimension("rows"), 3: MULTIPLE * dimension("columns")}
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # it names operators of torchvision that no model here has
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own inside
            torch.onnx.export(
                _Probabilities(model).eval(),
                (example,),
                str(path),
                input_names=["image"],
                output_names=["probability"],
                dynamic_shapes={"image": free},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,  # one file
                verbose=False,
            )
    finally:
        exporter.setLevel(level)


def _described(model: TrainedModel, postprocessing: Mapping) -> dict:
    imagenet = model.spec.normalization == "imagenet"
    rules = dict(postprocessing)
    if model.system == "tumor" and rules.get("tumor_peak") is None:
        rules["tumor_peak"] = getattr(model, "peak", 0.0)
    return {
        "system": model.system,
        "weights": weights_hash(model.spec, model.network.state_dict()),
        "spec": asdict(model.spec),
        "levels": model.spec.levels,  # grey levels are divided by it
        "mean": list(IMAGENET_MEAN) if imagenet else [0.0] * model.spec.channels,
        "deviation": list(IMAGENET_DEVIATION) if imagenet else [1.0] * model.spec.channels,
        "multiple": MULTIPLE,
        "square_within": SQUARE_WITHIN,  # pixels less square than that are resized to square ones
        "postprocessing": rules,
    }


def _card(name: str, spec: InputSpec, content: Mapping) -> str:
    dice = content["validation_dice"]
    return CARD.format(
        name=name,
        system=content["system"],
        recipe=content["recipe"]["name"],
        epoch=content["epoch"],
        dice="unknown" if dice is None else f"{dice:.3f}",
        cases=f"{len(content['training_ids'])} cases" if content["training_ids"] else NOBODY,
        channels=spec.channels,
        size=spec.size,
    )
