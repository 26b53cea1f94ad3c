"""The steps themselves, called by the notebooks and by ``python -m lits_helpers`` alike.

Every step looks first at what is already there, does only what is missing, and can be interrupted
anywhere.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from . import kaggle_data
from .cases import Case, Split, find_cases, split_cases
from .ceiling import resize_ceiling
from .drive import drive_folder, keep_run, restore_model, restore_run
from .files import read_json, write_json
from .folders import PREDICTION_NAME
from .frames import liver_frame
from .inference import Origin, load_liver_model, load_tumor_model, read_origin, segment_file
from .metrics import evaluate_case, evaluate_dataset, write_metrics_csv
from .phantom import write_phantom_dataset
from .postprocess import Postprocessing
from .preprocess import PreparedCase, prepare, prepared_cases
from .settings import Settings, liver_recipe, tumor_recipe
from .training import train_liver_gan, train_tumor_regnet
from .volumes import Volume, open_volume, read_segmentation, read_volume

logger = logging.getLogger(__name__)

PHANTOM_SEED = 0
PHANTOMS = {
    True: (28, (30, 160, 160)),
    False: (60, (48, 256, 256)),
}  # by tiny: cases, nominal shape
VALIDATION_SHARE = {True: 0.4, False: 0.15}  # tiny: nine of the 28 phantoms


@dataclass(frozen=True)
class Prepared:
    """The prepared data of a run.

    Attributes:
        root: prepared/ folder, or a folder of PNG slices.
        cases: every case in it.
        split: which of those with a segmentation are for training, validation and test, by patient.
    """

    root: Path
    cases: list[PreparedCase]
    split: Split

    def case(self, case_id: str) -> PreparedCase:
        """Return the case of that id.

        Raises:
            KeyError: there is none; names those that are.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise KeyError(
            f"no case {case_id!r} in {self.root}; there are {', '.join(c.id for c in self.cases)}"
        )

    def volume_path(self, case_id: str) -> Path:
        """Return the packed CT of a case; `volumes.open_volume` and `read_volume` take it."""
        return self.root / "cases" / f"{self.case(case_id).id}.b2nd"

    def labels_path(self, case_id: str) -> Path:
        """Return the packed reference segmentation of a case."""
        return self.root / "cases" / f"{self.case(case_id).id}-labels.b2nd"


def open_prepared(
    root: Path | str, *, validation: float = 0.15, test: float = 0.0, fold: int | None = None
) -> Prepared:
    """Open a prepared/ folder (or a folder of PNG slices) and split its cases by patient.

    Raises:
        FileNotFoundError: nothing prepared is there; names the notebook that prepares.
    """
    cases = prepared_cases(root)
    split = split_cases([case for case in cases if case.has_segmentation], validation, test, fold)
    return Prepared(Path(root), cases, split)


def ensure_prepared(
    settings: Settings,
    *,
    case_numbers: str = "",
    png: bool = False,
    workers: int | None = None,
) -> Prepared:
    """Return the prepared data, making what is missing from the source that the settings name.

    Phantoms are generated, a folder is read in place.

    Args:
        settings: from `load_settings`.
        case_numbers: which LiTS cases to fetch from Kaggle, see `parse_numbers`.
        png: also export 8-bit slices and liver masks (system A's published input).
        workers: processes; None takes one for each core.

    Raises:
        FileNotFoundError: no case where the source should have some.
    """
    if settings.source == "kaggle":
        download(settings, case_numbers, png=png, workers=workers)
    else:
        if settings.source == "phantom":
            make_phantoms(settings)
        report = prepare(find_cases(settings.raw), settings.prepared, workers=workers, png=png)
        logger.info("%s", report.table())
    return open_prepared(settings.prepared, validation=VALIDATION_SHARE[settings.tiny])


def make_phantoms(settings: Settings) -> Path:
    """Write the phantom dataset of the settings' size below `settings.raw`, unless it is there."""
    cases, shape = PHANTOMS[settings.tiny]
    return write_phantom_dataset(settings.raw, cases=cases, shape=shape, seed=PHANTOM_SEED)


def download(
    settings: Settings,
    case_numbers: str = "",
    *,
    keep_raw: bool = False,
    png: bool = False,
    workers: int | None = None,
) -> None:
    """Fetch LiTS cases from Kaggle, prepare each and delete its raw files; go on where it ended.

    Cases that are prepared already cost no request. Cases on a mounted disk (Kaggle's own machines,
    Google Drive) are read in place.

    Args:
        settings: raw files pass through `settings.raw` into `settings.prepared`.
        case_numbers: see `parse_numbers`.
        keep_raw: leave the raw files in `settings.raw`.
        png, workers: as for `ensure_prepared`.

    Raises:
        KaggleError: nothing (more) can be fetched; one sentence with what to do.
    """
    settings.prepared.mkdir(parents=True, exist_ok=True)
    refused = _Refused(settings.prepared)
    done = {path.stem for path in (settings.prepared / "cases").glob("*.json")} | set(refused)
    numbers = [n for n in parse_numbers(case_numbers) if str(n) not in done]

    def prepare_some(cases: list[Case]) -> None:
        report = prepare(cases, settings.prepared, workers=workers, png=png)
        refused.add(report.skipped)
        logger.info("%s", report.table())

    mounted = kaggle_data.find_mounted()
    if mounted:
        logger.info("reading LiTS in place from %s", mounted)
        here = [case for case in find_cases(mounted) if case.segmentation]
        prepare_some([case for case in here if int(case.id) in numbers])
        numbers = [n for n in numbers if str(n) not in {case.id for case in here}]
    client = kaggle_data.KaggleClient()
    where = {"keep_raw": keep_raw, "mounted": mounted, "client": client}
    plan = kaggle_data.plan_download(numbers, settings.raw, **where)
    logger.info("%s", plan)
    plan.check()
    failed = kaggle_data.fetch_cases(
        numbers, settings.raw, lambda *pair: prepare_some([_case_of(*pair)]), **where
    )
    for number, reason in failed.items():
        logger.warning("case %s was not fetched: %s", number, reason)


def _case_of(volume: Path, segmentation: Path) -> Case:
    number = str(kaggle_data.parse_name(volume.name)[1])
    return Case(id=number, patient=number, volume=volume, segmentation=segmentation)


class _Refused(dict):
    """Case id -> why its files cannot be used; kept, so that they are not fetched again."""

    def __init__(self, prepared: Path):
        self.path = prepared / "refused.json"
        super().__init__(read_json(self.path) if self.path.exists() else {})

    def add(self, reasons: Mapping[str, str]) -> None:
        """Remember more of them. Delete the file to have them fetched again."""
        if reasons:
            self.update(reasons)
            write_json(self.path, dict(self))


def parse_numbers(text: str) -> list[int]:
    """Return the LiTS case numbers that a text names: "0-9, 27"; an empty one names all 131.

    Raises:
        ValueError: not of that form.
    """
    numbers: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise ValueError(f'case numbers look like "0-9, 27", got {text!r}')
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(numbers) or list(range(kaggle_data.CASES))


def ensure_liver_model(settings: Settings, data: Prepared) -> Path:
    """Return the best liver checkpoint, here or on Drive; on phantoms one is trained if need be.

    Raises:
        FileNotFoundError: there is none and the data are no phantoms; names the notebook.
    """
    return _ensure_model(settings, data, "liver", "02_train_liver_gan", train_liver)


def ensure_tumor_model(settings: Settings, data: Prepared) -> Path:
    """Return the best tumor checkpoint, here or on Drive; on phantoms one is trained if need be.

    Raises:
        FileNotFoundError: there is none and the data are no phantoms; names the notebook.
    """
    return _ensure_model(settings, data, "tumor", "03_train_tumor_regnet", train_tumor)


def _ensure_model(settings, data, system, notebook, train) -> Path:
    path = settings.runs / system / "checkpoints" / "best_model.pth"
    if path.exists() or restore_model(settings, system):
        return path
    if settings.source != "phantom":
        raise FileNotFoundError(f"no {system} model at {path}: run notebook {notebook} first")
    logger.info("no %s model at %s: training a small one on the phantoms", system, path)
    train(settings, data)
    return path


def train_liver(settings: Settings, data: Prepared, recipe=None, **options) -> list[dict]:
    """Train system A on the prepared data; see `training.train_liver_gan` for the options."""
    recipe = recipe or liver_recipe(tiny=settings.tiny)
    return _train(train_liver_gan, "liver", settings, data, recipe, options)


def train_tumor(settings: Settings, data: Prepared, recipe=None, **options) -> list[dict]:
    """Train system B on the prepared data; see `training.train_tumor_regnet` for the options."""
    recipe = recipe or tumor_recipe(tiny=settings.tiny)
    return _train(train_tumor_regnet, "tumor", settings, data, recipe, options)


def _train(train, system: str, settings: Settings, data: Prepared, recipe, options) -> list[dict]:
    run, kept = settings.runs / system, drive_folder(settings, system)
    restore_run(kept, run)
    options = {"device": settings.device, "mirror": kept, **options}
    history = train(data.root, run, data.split, recipe, **options)
    keep_run(run, kept)
    return history


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
