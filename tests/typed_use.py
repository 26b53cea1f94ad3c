"""A user's program, for the type checker (`mypy`) only: public names are typed, none is `Any`."""

from pathlib import Path
from typing import assert_type

import numpy as np

import lits_helpers as lits


def segment_one(ct: Path, liver: Path, tumor: Path) -> dict[str, float]:
    volume = lits.read_volume(ct, orientation="LPS")
    assert_type(volume, lits.Volume)
    assert_type(volume.spacing_mm, tuple[float, float, float])
    models = lits.load_liver_model(liver), lits.load_tumor_model(tumor, device="cpu")
    labels = lits.segment_volume(volume, *models, lits.Postprocessing(margin_mm=5.0))
    assert_type(lits.write_segmentation(labels, volume, "labels.nii.gz"), Path)
    assert_type(lits.segment_file(ct, "labels.nii.gz", *models), Path)
    reference: np.ndarray = lits.read_segmentation("reference.nii.gz", like=volume)
    row = lits.evaluate_case(labels, reference, volume.spacing_mm)
    summary: dict = lits.evaluate_dataset([row])
    return {"cases": float(summary["cases"]), **row}


def train(raw: Path, prepared: Path, run: Path) -> list[dict]:
    cases = lits.find_cases(raw)
    assert_type(cases, list[lits.Case])
    assert_type(lits.check_case(cases[0]), list[lits.Finding])
    lits.prepare(cases, prepared, workers=2, png=False)
    split = lits.split_cases(cases, validation=0.2)
    assert_type(split, lits.Split)
    tumors = lits.train_tumor_regnet(prepared, run, split, lits.tumor_recipe(), seed=1)
    return tumors + lits.train_liver_gan(prepared, run, split, lits.liver_recipe(width=16))


def look(ct: Path, prepared: Path) -> None:
    spec = lits.InputSpec(size=160, window=(-200.0, 300.0))
    images = lits.LiverSlices(prepared, ["0"], spec), lits.TumorSlices(prepared, ["0"], spec)
    cached = lits.SliceCache(prepared, ["0"], spec)
    print(len(images[0]), len(cached), len(lits.open_volume(ct)))
    networks = lits.Generator(width=16), lits.Discriminator(), lits.RegNetSegmenter(None)
    print(*networks)
    volume = lits.volume_from_array(np.zeros((3, 8, 9), np.int16), (5.0, 0.7, 0.8))
    picture: np.ndarray = lits.render_slice(volume.hu[0], window=(-160.0, 240.0))
    lits.SliceViewer(volume, layers={"reference": np.zeros((3, 8, 9), np.uint8)})
    lits.write_phantom_dataset(prepared, cases=2, shape=(12, 40, 48), seed=0)
    print(picture.shape, lits.SurfaceView, lits.__version__)
