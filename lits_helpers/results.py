"""From models to label volumes, and from those to scores."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm.auto import tqdm

from .acquisition import Prepared
from .ceiling import resize_ceiling
from .files import write_json
from .folders import PREDICTION_NAME
from .frames import liver_frame
from .inference import Origin, load_liver_model, load_tumor_model, read_origin, segment_file
from .metrics import evaluate_case, evaluate_dataset, write_metrics_csv
from .postprocess import Postprocessing
from .volumes import Volume, open_volume, read_segmentation, read_volume


def segment_cases(
    data: Prepared,
    case_ids: Iterable[str],
    out: Path | str,
    *,
    liver: Path | str | None = None,
    tumor: Path | str | None = None,
    post: Postprocessing | None = None,
    device: str | None = None,
) -> dict[str, Path]:
    """Segment prepared cases and write each as NIfTI in its source file's geometry.

    Args:
        data, case_ids: which cases.
        out: folder of the predictions, ``prediction-volume-N.nii.gz``.
        liver, tumor: checkpoints; at least one.
        post, device: as for `inference.segment_volume`.

    Returns:
        {case id: file}.
    """
    models = {
        "liver_model": liver and load_liver_model(liver, device),
        "tumor_model": tumor and load_tumor_model(tumor, device),
    }
    files = {}
    for case_id in tqdm(list(case_ids), desc="segment", unit="case"):
        target = Path(out) / PREDICTION_NAME.format(case_id)
        files[case_id] = segment_file(data.volume_path(case_id), target, post=post, **models)
    return files


def find_predictions(folder: Path | str) -> dict[str, Path]:
    """Return {case id: file} of the predictions that `segment_cases` left in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    before, after = PREDICTION_NAME.split("{}")
    paths = sorted(Path(folder).glob(PREDICTION_NAME.format("*")))
    if not paths:
        raise FileNotFoundError(
            f"no {PREDICTION_NAME.format('N')} in {folder}: run predict or notebook 04 first"
        )
    return {path.name.removeprefix(before).removesuffix(after): path for path in paths}


def open_result(data: Prepared, case_id: str, prediction: Path) -> tuple[Volume, dict]:
    """Read a case with its labels, as figures and the viewer take them.

    Returns:
        The CT, and {"reference": labels, "prediction": labels}, (Z, Y, X) uint8 each; no reference
        where there is none.
    """
    volume, layers = read_volume(data.volume_path(case_id)), {}
    if data.case(case_id).has_segmentation:
        layers["reference"] = open_volume(data.labels_path(case_id)).read()
    return volume, layers | {"prediction": read_segmentation(prediction, like=volume)}


def evaluate(
    data: Prepared,
    predictions: Mapping[str, Path],
    results: Path | str,
    *,
    models: Iterable[Path] = (),
) -> tuple[list[dict], dict]:
    """Compare predicted NIfTI with the references; write metrics.csv and summary.json.

    Args:
        data: prepared cases with segmentations.
        predictions: {case id: predicted NIfTI}.
        results: folder for both files.
        models: checkpoints that made the predictions. Cases they were trained on are marked and
            left out of the means; their working size gives each case's resize ceiling.

    Returns:
        The rows (a dict a case, see `metrics.evaluate_case`) and the summary.

    Raises:
        ValueError: no prediction has a reference.
    """
    origins = [read_origin(path) for path in models]
    trained_on = set().union(*(origin.training_ids for origin in origins))
    rows = []
    for case_id, path in tqdm(predictions.items(), desc="evaluate", unit="case"):
        case = data.case(case_id)
        if case.has_segmentation:
            row = {"case_id": case_id, "patient": case.patient}
            row["training_case"] = case_id in trained_on
            rows.append(row | _evaluate_file(data, case_id, path, origins))
    if not rows:
        raise ValueError(f"none of {len(predictions)} predictions has a reference in {data.root}")
    summary = evaluate_dataset(rows)
    write_metrics_csv(rows, Path(results) / "metrics.csv")
    write_json(Path(results) / "summary.json", summary)
    return rows, summary


def _evaluate_file(data: Prepared, case_id: str, path: Path, origins: Iterable[Origin]) -> dict:
    volume = open_volume(data.volume_path(case_id))
    prediction = read_segmentation(path, like=volume)
    reference = open_volume(data.labels_path(case_id)).read()
    trusted = volume.geometry.spacing_trusted
    row = {
        "note": "" if trusted else "no figures in mm: the file's voxel size cannot be trusted",
        "voxel_mm3": math.prod(volume.spacing_mm) if trusted else None,
    }
    row |= evaluate_case(prediction, reference, volume.spacing_mm if trusted else None)
    for origin in origins:
        row[f"{origin.system}_dice_ceiling"] = _ceiling(volume, reference, origin)
    return row


def _ceiling(volume, reference, origin: Origin) -> float:
    """Return what a perfect model could score at the working size of this one."""
    frame = liver_frame(volume.slice, reference.__getitem__, range(len(reference)), origin.spec)
    mask = reference >= 1 if origin.system == "liver" else reference == 2
    return resize_ceiling(mask if frame.box is None else mask[:, *frame.box.area], origin.spec)
