"""From models to label volumes, and from label volumes to scores."""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..cases import Case, Finding, id_order, label_id
from ..checkpoints import Origin, load_liver_model, load_tumor_model, read_origin
from ..export import export_onnx
from ..figures import plot_dice_per_case, plot_recall_by_size, plot_volume_agreement, save_figure
from ..inference import (
    FORMATS,
    PREDICTION_NAME,
    Postprocessing,
    check_makers,
    own_device,
    read_probabilities,
    read_record,
    recorded_origins,
    segment_files,
)
from ..machine import few, writable_folder, write_json
from ..metrics import dice, evaluate_case, evaluate_dataset, label_mask, write_metrics_csv
from ..preprocess import Prepared, data_hashes, findings_of_packed, hash_of_ct, read_prepared
from ..recipes import InputSpec
from ..report import judge, look, sentences
from ..settings import Settings, hint
from ..viewer import uncertainty_of
from ..volumes import (
    SUFFIX,
    Volume,
    lies_on,
    liver_frame,
    open_volume,
    read_segmentation,
    resize_image,
    restore,
)

logger = logging.getLogger(__name__)

NO_MM = "no figures in mm: the file's voxel size cannot be trusted"
FIGURES = {  # name of the file -> what draws it from the rows
    "dice_per_case": plot_dice_per_case,
    "volume_agreement": plot_volume_agreement,
    "recall_by_size": plot_recall_by_size,
}


def resize_ceiling(mask: np.ndarray, spec: InputSpec, pixel_aspect: float = 1.0) -> float:
    """Return the Dice of a perfect model at the working size.

    Its output is the share of each pixel that the mask covers. As any probability, the output is
    resized bilinearly and cut at 0.5. No training can win back what that loses.

    Args:
        mask: (Z, Y, X) bool at native size: the liver mask with the liver model's spec, the tumor
            mask with the tumor model's.
        spec: how the model sees a slice; only its size matters here.
        pixel_aspect: height of a pixel by its width, as `Geometry.pixel_aspect`.

    Returns:
        Dice in [0, 1]; 1 for an empty mask.

    Raises:
        ValueError: `mask` is not a bool volume.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3 or mask.dtype != bool:
        raise ValueError(f"mask must be (Z, Y, X) bool, got shape {mask.shape}, {mask.dtype}")
    sizes = np.zeros(3, np.int64)  # overlap, prediction, mask
    for plane in mask[mask.any(axis=(1, 2))]:
        output = resize_image(plane.astype(np.float32), spec.size, pixel_aspect)
        back = restore(output, plane.shape, pixel_aspect) >= 0.5
        sizes += [np.count_nonzero(part) for part in (back & plane, back, plane)]
    return dice(*sizes.tolist())


def segment_cases(
    data: Prepared,
    case_ids: Iterable[str],
    out: Path | str,
    *,
    liver: Path | str | Sequence[Path] | None = None,
    tumor: Path | str | Sequence[Path] | None = None,
    post: Postprocessing | None = None,
    device: str | None = None,
    probabilities: bool = False,
) -> dict[str, Path]:
    """Segment prepared cases and write each as NIfTI in its source file's geometry.

    Results of the same models and settings in `out` are not made again. A record beside each names
    the models; `evaluate` reads it. Under `torchrun` each process takes its share of the cases.

    Args:
        out: folder of the predictions, ``prediction-volume-N.nii.gz``.
        liver, tumor: checkpoints; at least one. Several in a list are averaged.
        post, device: as for `inference.segment_volume`.
        probabilities: as for `inference.segment_files`.

    Returns:
        {case id: file} of this process's share; the log names the cases that failed.

    Raises:
        ValueError: every case failed; the first reason.
        OSError: `out` cannot be written.
    """
    device = own_device(device)
    cases = [Case(case_id, case_id, data.volume_path(case_id)) for case_id in case_ids]
    models = load_models(liver, tumor, device)
    report = segment_files(cases, out, *models, post, take_over=True, probabilities=probabilities)
    done = {**report.present, **report.written}
    if report.failed and not done:
        raise ValueError(f"no case was segmented: {next(iter(report.failed.values()))}")
    return {case.id: done[case.volume] for case in cases if case.volume in done}


def load_models(liver, tumor, device) -> tuple[list, list]:
    """Load the checkpoints of both systems: None, one path or several each."""
    return tuple(
        [load(path, device) for path in ([given] if isinstance(given, str | Path) else given or [])]
        for given, load in ((liver, load_liver_model), (tumor, load_tumor_model))
    )


def export_models(models: Mapping[str, Sequence[Path]], folder: Path) -> Iterator[Path]:
    """Write the checkpoints of each system as ONNX into a folder; yield each file when whole."""
    for system, paths in models.items():
        for number, path in enumerate(paths):
            name = f"{system}-{number}" if len(paths) > 1 else system
            yield export_onnx(path, folder / f"{name}.onnx", asdict(Postprocessing()), system)


def results_of(settings: Settings, predictions: Path | None = None) -> Path:
    """Return where the scores of predictions go: the run's own beside them, others into them.

    Args:
        settings: of the run.
        predictions: their folder; None for the run's own.
    """
    return settings.runs / "results" if are_own(settings, predictions) else predictions


def are_own(settings: Settings, predictions: Path | None) -> bool:
    """Tell whether predictions are a run's own, by their folder; None means so."""
    own = settings.runs / "results" / "predictions"
    return predictions is None or predictions.resolve() == own.resolve()


def find_predictions(folder: Path | str) -> dict[str, Path]:
    """Return {case id: file} of the predictions that `segment_cases` left in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    found = {}
    for suffix in reversed(FORMATS.values()):  # of several formats NIfTI comes first
        before, after = PREDICTION_NAME.replace(FORMATS["nifti"], suffix).split("{}")
        for path in Path(folder).glob(f"{before}*{after}"):
            if label_id(path):
                found[path.name.removeprefix(before).removesuffix(after)] = path
    if not found:
        raise FileNotFoundError(f"no {PREDICTION_NAME.format('N')} in {folder}: {hint('predict')}")
    return {case_id: found[case_id] for case_id in sorted(found, key=id_order)}


def open_result(data: Prepared, case_id: str, prediction: Path) -> tuple[Volume, dict]:
    """Read a case with its labels, as figures and the viewer take them.

    Returns:
        The CT, and {"reference": labels, "prediction": labels}, (Z, Y, X) uint8 each; no reference
        where there is none.
    """
    volume, _ = read_prepared(data.volume_path(case_id))
    layers = {}
    if data.case(case_id).has_segmentation:
        layers["reference"] = open_volume(data.labels_path(case_id)).read()
    return volume, layers | {"prediction": read_segmentation(prediction, like=volume)}


def open_viewed(data: Prepared, case_id: str, prediction: Path) -> tuple:
    """Read a case as `SliceViewer` takes it: as `open_result`, the uncertainty or None, the flags.

    There is an uncertainty where probabilities lie beside the prediction.
    """
    volume, layers = open_result(data, case_id, prediction)
    notes = sentences(flags_of(volume, layers["prediction"], prediction))
    return volume, layers, uncertainty_of(read_probabilities(prediction, volume)), notes


def flags_of(volume: Volume, labels: np.ndarray, prediction: Path | str) -> dict:
    """Return how far to trust a prediction, as its report says it; see `report.judge`.

    Args:
        volume, labels: as `open_result` returns them.
        prediction: the file that the labels came from; the record beside it knows more.
    """
    record = read_record(Path(prediction)) or {}
    findings = [Finding(**content) for content in record.get("findings", ())]
    if not findings and volume.path and volume.path.suffix == SUFFIX:
        findings = findings_of_packed(volume.path)
    seen = look(volume.hu, labels, volume.geometry.trusted_spacing_mm, record)
    return judge(seen | record.get("evidence", {}), findings)


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
        results: folder for both files, see `results_of`.
        models: checkpoints that made the predictions; none takes the models that the records beside
            the predictions name. Cases a model was trained on (of the same number, or with the same
            CT) are marked and left out of the means. A model's working size gives each case's
            resize ceiling.

    Returns:
        The rows (a dict a case, see `metrics.evaluate_case`) and the summary of
        `metrics.evaluate_dataset` with two more lists of case ids: ``without_reference``, and
        ``failed`` (unreadable, or of another shape than the reference; the log says why).
        summary.json has null for an infinite number (a volume difference over nothing).

    Raises:
        ValueError: no prediction has a reference, or none can be compared with it; the records name
            other models; or `results` is for the predictions of a run, and these are others.
        OSError: `results` cannot be written.
    """
    _check_results(predictions, writable_folder(results))  # before minutes of work
    known = {case.id: case for case in data.cases if case.has_segmentation}
    pairs = {case_id: path for case_id, path in predictions.items() if case_id in known}
    if not pairs:
        raise ValueError(
            f"no prediction has a reference: predictions of {few(predictions)}, references of "
            f"{few(known) or 'no case'} in {data.root}; prepare these cases with segmentations"
        )
    origins = _origins(pairs.values(), list(models))
    seen = _training_cases(data, list(pairs), origins)

    def compare(case_id: str) -> dict:
        about = {"patient": known[case_id].patient, "training_case": case_id in seen}
        return about | _evaluate_file(data, case_id, pairs[case_id], origins)

    bar = tqdm(pairs, desc="evaluate", unit="case")
    liver_only = {case_id for case_id in pairs if known[case_id].liver_only}
    return score_cases(bar, compare, liver_only, set(predictions) - set(known), results)


def _check_results(predictions: Mapping[str, Path], results: Path) -> None:
    """Refuse to write the scores of other predictions over those of the predictions there."""
    own = results / "predictions"
    others = {Path(path).parent for path in predictions.values()} - {own}
    if own.is_dir() and (others := [place for place in others if place.resolve() != own.resolve()]):
        raise ValueError(
            f"{results} holds the scores of {own}, the predictions are of {few(map(str, others))}: "
            "choose another folder for their scores"
        )


def score_cases(
    case_ids: Iterable[str],
    compare: Callable[[str], dict],
    liver_only: Collection[str],
    without_reference: Iterable[str],
    results: Path | str,
) -> tuple[list[dict], dict]:
    """Compare cases one by one, write metrics.csv and summary.json; return as `evaluate` does.

    Args:
        compare: returns the row of a case, without its id.
        liver_only: the cases whose reference shows no tumors.

    Raises:
        ValueError: none could be compared.
    """
    rows, failed = [], {}
    for case_id in case_ids:
        try:
            row = {"case_id": case_id} | compare(case_id)
            rows.append(_without_tumors(row) if case_id in liver_only else row)
        except (OSError, ValueError) as error:  # one bad file must not end the others
            failed[case_id] = str(error)
            logger.warning("case %s was not compared: %s", case_id, error)
    if not rows:
        raise ValueError(f"no prediction could be compared: {next(iter(failed.values()))}")
    others = {"failed": list(failed), "without_reference": sorted(without_reference, key=id_order)}
    summary = evaluate_dataset(rows) | others
    results = Path(results)
    write_metrics_csv(rows, results / "metrics.csv")
    write_json(results / "summary.json", _without_infinity(summary))
    return rows, summary


def _without_tumors(row: Mapping) -> dict:
    """Return a row of scores without the keys about tumors, for a reference of the liver alone."""
    about = ("tumor_", "lesion_", "burden_")
    known = {key: None if key.startswith(about) else value for key, value in row.items()}
    return known | {"liver_only": True}


def scored(prediction: np.ndarray, reference: np.ndarray, spacing_mm, notes: list[str]) -> dict:
    """Return a row of scores with its notes; where `spacing_mm` is None one says why."""
    notes = notes if spacing_mm else [*notes, NO_MM]
    voxel_mm3 = math.prod(spacing_mm) if spacing_mm else None
    row = {"note": "; ".join(notes) or None, "voxel_mm3": voxel_mm3}
    return row | evaluate_case(prediction, reference, spacing_mm)


def _without_infinity(value):
    """Return a summary with None for what is infinite: JSON has no such number."""
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinity(item) for item in value]
    return None if value in (math.inf, -math.inf) else value


def save_score_figures(rows: Sequence[Mapping], folder: Path | str) -> list[Path]:
    """Draw the rows of `evaluate` as PNG and PDF: Dice per case, volumes, recall by lesion size."""
    figures = {name: draw(rows) for name, draw in FIGURES.items()}
    return [
        save_figure(figure, Path(folder) / f"{name}.{kind}")
        for name, figure in figures.items()
        for kind in ("png", "pdf")
    ]


def _origins(predictions: Iterable[Path], models: Sequence[Path]) -> list[Origin]:
    """Return the origins of the models behind the predictions, by the records if there are any."""
    predictions = [Path(path) for path in predictions]
    origins: list[Origin] = []
    for folder in sorted({path.parent for path in predictions}):
        check_makers(folder, models)
        recorded = recorded_origins(folder)
        origins += recorded
        if len(systems := {origin.system for origin in recorded}) == 1:
            logger.warning(
                "the predictions in %s are of a %s model alone: the figures of the other "
                "structure, and of the tumor burden, say nothing",
                folder,
                *systems,
            )
        files = [path for path in predictions if path.parent == folder and recorded]
        foreign = [path.name for path in files if read_record(path) is None]
        if foreign:
            logger.warning(
                "not recorded in %s, made by unknown models: %s; their training cases may go "
                "unmarked",
                folder,
                few(foreign),
            )
    return origins or [read_origin(path) for path in models]


def _training_cases(data: Prepared, case_ids: Sequence[str], origins: Sequence[Origin]) -> set[str]:
    """Return which cases a model was trained on: by number, by the CT's content, or by patient.

    Another file of the same number may be another patient, or the same patient packed differently.
    It counts as seen, and the log says so.
    """
    hashes = data_hashes(data.root, case_ids)
    cts = {case: hash_of_ct(source) if source else None for case, source in hashes.items()}
    seen: set[str] = set()
    others: set[str] = set()
    for origin in origins:
        same_ct = {case_id for case_id, ct in cts.items() if ct in origin.training_cts}
        same_number = {case_id for case_id in cts if case_id in origin.training_ids}
        patients = {case.patient for case in data.cases if case.id in origin.training_ids}
        same_patient = {case_id for case_id in cts if data.case(case_id).patient in patients}
        seen |= same_ct | same_patient  # by number too: the same patient
        if origin.training_cts:
            others |= {case_id for case_id in same_number - same_ct if cts[case_id]}
    if others:
        logger.warning(
            "counted as training cases by their number, though their CTs are other files: %s; if "
            "they are other patients, rename their files to numbers that were not trained on, "
            "prepare them again, and they count",
            few(sorted(others)),
        )
    return seen


def _evaluate_file(data: Prepared, case_id: str, path: Path, origins: Iterable[Origin]) -> dict:
    volume = open_volume(data.volume_path(case_id))
    notes: list[str] = []
    prediction = read_segmentation(path, like=volume, remarks=notes)
    placed = volume.geometry.states_a_form  # without a form the two are paired voxel by voxel
    if placed and not lies_on(path, volume.geometry):
        raise ValueError(
            f"{path}: its header puts the voxels elsewhere than the CT's does; write it with the "
            "affine and axis order of the CT's file"
        )
    reference = open_volume(data.labels_path(case_id)).read()
    row = scored(prediction, reference, volume.geometry.trusted_spacing_mm, notes)
    judged = flags_of(read_prepared(volume.path)[0], prediction, path)
    row |= {"flag": judged["word"], "flag_score": judged["score"]}
    row["flag_reasons"] = "; ".join(judged["reasons"]) or None
    for origin in origins:
        row[f"{origin.system}_dice_ceiling"] = _ceiling(volume, reference, origin)
    return row


def _ceiling(volume, reference, origin: Origin) -> float:
    """Return the resize ceiling at the working size of a model."""
    slices = volume.slice, reference.__getitem__, range(len(reference))
    frame = liver_frame(*slices, origin.spec, volume.geometry.pixel_aspect)
    mask = frame.shown(label_mask(reference, origin.system))
    return resize_ceiling(mask, origin.spec, frame.pixel_aspect)
