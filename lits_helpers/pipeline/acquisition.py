"""From a source of cases to prepared data: phantoms, a folder, Kaggle, the MSD archive."""

import logging
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ..cases import Case, overruled, search_cases
from ..download import (
    CASES,
    DownloadError,
    KaggleClient,
    MsdArchive,
    Source,
    fetch_cases,
    find_mounted,
    named_files,
    plan_download,
    present_cases,
)
from ..environment import in_colab
from ..machine import locked_folder, read_json, write_json
from ..phantom import write_phantom_dataset
from ..preprocess import (
    CaseFiles,
    PreparationReport,
    Prepared,
    export_pngs,
    open_prepared,
    prepare,
    recorded_report,
)
from ..settings import DOWNLOADED, Settings, hint
from .kept_cases import REFUSED, KeptCases, drive_folder

logger = logging.getLogger(__name__)

PHANTOM_SEED = 0
# By tiny: number of cases and nominal shape.
PHANTOMS = {True: (40, (30, 160, 160)), False: (60, (48, 256, 256))}
TINY_LITS = "0-5"  # the cases that a tiny run downloads, unless others are named


def ensure_prepared(
    settings: Settings,
    *,
    case_numbers: str | None = None,
    png: bool = False,
    workers: int | None = None,
) -> Prepared:
    """Return the prepared data, making what is missing from the source that the settings name.

    Phantoms are generated, a folder is read in place, LiTS comes from Google Drive (with
    `settings.drive`) or else from Kaggle or the MSD archive.

    Args:
        settings: from `load_settings`.
        case_numbers: which LiTS cases, see `parse_numbers`; None takes the cases that are prepared
            here or on Drive and downloads nothing.
        png: also export 8-bit slices and liver masks (system A's published input).
        workers: processes; None takes one for each core.

    Raises:
        FileNotFoundError: no case where the source should have some.
    """
    share = settings.validation_share
    if settings.source in DOWNLOADED:
        whole = None
        if case_numbers is None:
            whole = _bring_back(settings, png, workers)
        else:
            download(settings, case_numbers, png=png, workers=workers)
        return open_prepared(settings.prepared, validation=share, case_ids=whole)
    if settings.source == "phantom":
        make_phantoms(settings)
    else:
        drive_folder(settings, "prepared")  # mounts Drive: the raw folder may lie there
    began = time.monotonic()
    report = prepare_raw(settings, png=png, workers=workers)
    logger.info("%s\nprepared in %.1f s", report.table(), time.monotonic() - began)
    if not report.prepared:
        raise FileNotFoundError(
            f"none of the cases under {settings.raw} could be prepared, see the reasons above"
        )
    # Only these cases: another raw folder may have left others there.
    return open_prepared(settings.prepared, validation=share, case_ids=report.prepared)


def prepare_raw(
    settings: Settings, *, png: bool = False, workers: int | None = None
) -> PreparationReport:
    """Prepare the cases below `settings.raw`; the report says which files were left aside.

    Raises:
        FileNotFoundError: no case is there.
    """
    search = search_cases(settings.raw, settings.layout)
    cases = overruled(search.cases, settings.orientation, settings.accept)
    report = prepare(cases, settings.prepared, workers=workers, png=png)
    report.notes = search.notes
    return report


def make_phantoms(settings: Settings) -> Path:
    """Write the phantom dataset of the settings' size below `settings.raw`, unless it is there."""
    cases, shape = PHANTOMS[settings.tiny]
    began = time.monotonic()
    root = write_phantom_dataset(settings.raw, cases=cases, shape=shape, seed=PHANTOM_SEED)
    logger.info("%d phantoms generated in %.1f s", cases, time.monotonic() - began)
    return root


def download(
    settings: Settings,
    case_numbers: str = "",
    *,
    keep_raw: bool = False,
    png: bool = False,
    workers: int | None = None,
) -> PreparationReport:
    """Fetch LiTS cases, prepare each and delete its raw files; go on after a stop.

    Cases that are prepared already cost no request. Cases on a mounted disk (Kaggle's machines,
    Google Drive) are read in place. With `settings.drive` prepared cases first come back from
    Google Drive; new ones go there one by one.

    Args:
        settings: raw files pass through `settings.raw` into `settings.prepared`.
        case_numbers: see `parse_numbers`; empty means all, in a tiny run `TINY_LITS`.
        keep_raw: leave the raw files in `settings.raw`.
        png, workers: as for `ensure_prepared`.

    Returns:
        The result of every case asked for, in this call or before.

    Raises:
        DownloadError: nothing (more) can be fetched; one sentence with what to do.
        OSError: another download works in one of the folders.
    """
    refusal = f"wait for it, or choose {hint('folders')} for this one"
    with ExitStack() as stack:
        for folder in sorted({settings.raw.resolve(), settings.prepared.resolve()}):
            stack.enter_context(locked_folder(folder, refusal, purpose="download"))
        return _download(settings, case_numbers, keep_raw, png, workers)


def _download(settings: Settings, case_numbers: str, keep_raw, png, workers) -> PreparationReport:
    source = open_source(settings)
    numbers = parse_numbers(case_numbers or (TINY_LITS if settings.tiny else ""))
    ids = {number: source.case_id(number) for number in numbers}
    asked = list(ids.values())
    out = settings.prepared
    out.mkdir(parents=True, exist_ok=True)
    kept = KeptCases(drive_folder(settings, "prepared"))
    kept.remove_leftovers()
    kept.restore(asked, out)
    refused = _known_refusals(out)
    ready = [name for name in asked if CaseFiles(out, name).known()]
    kept.keep(ready, out)  # what an earlier call had no time or room to copy
    if png:
        export_pngs(out, ready, workers=workers)
    failed: dict[str, str] = {}

    def prepare_some(cases: list[Case]) -> None:
        report = prepare(cases, out, workers=workers, png=png)
        for name, reason in report.skipped.items():
            logger.warning("case %s is left out: %s", name, reason)
        failed.update({name: report.skipped[name] for name in report.failed})
        useless = {n: why for n, why in report.skipped.items() if n not in report.failed}
        refused.update(useless)
        if useless:
            write_json(out / REFUSED, refused)
        kept.keep(report.prepared, out)

    missing = [number for number, name in ids.items() if name not in {*ready, *refused}]
    if missing and in_colab() and not settings.drive:
        logger.warning(
            "what is downloaded now is lost with this machine, and notebooks 02 to 04 each get a "
            "machine of their own: tick USE_DRIVE to keep the prepared cases"
        )
    failed.update(_fetch(source, missing, settings.raw, prepare_some, keep_raw, out, png))
    report = recorded_report(out, asked, {**refused, **failed})
    report.failed = [name for name in failed if name in report.skipped]
    logger.info("%s", report.table())
    return report


def open_source(settings: Settings) -> Source:
    """Return where the settings' LiTS cases come from; asks nothing yet."""
    return MsdArchive(settings.prepared) if settings.source == "msd" else KaggleClient()


def _known_refusals(prepared: Path) -> dict[str, str]:
    """Return {case id: why its files cannot be used}: they are not fetched again.

    Delete the file, on Drive too, to fetch them again.
    """
    path = prepared / REFUSED
    try:
        known = read_json(path) if path.exists() else {}
    except ValueError as error:  # cut short, on Drive perhaps
        logger.warning("%s", error)
        known = {}
    return known if isinstance(known, dict) else {}


def _fetch(
    source: Source,
    numbers: list[int],
    raw: Path,
    prepare_some: Callable[[list[Case]], None],
    keep_raw: bool,
    out: Path,
    png: bool,
) -> dict[str, str]:
    """Prepare mounted cases in place and the others as they arrive.

    Returns:
        {case id: reason} of the cases that cannot be fetched.
    """
    mounted = find_mounted(source) if numbers else None
    cut: set[int] = set()
    if mounted:
        logger.info("reading LiTS in place from %s", mounted)
        found = present_cases(source, mounted, numbers=numbers)  # the whole files
        here = {number: case for number, case in found.items() if len(case) == 2}
        prepare_some([_case_of(source, n, **case) for n, case in here.items()])
        numbers = [number for number in numbers if number not in here]
        cut = {number for (_, number), _ in named_files(source, mounted)} & set(numbers)
        for number in sorted(cut):
            logger.warning(
                "case %d is not whole in %s: asking %s for it", number, mounted, source.name
            )
    where = {"keep_raw": keep_raw, "mounted": mounted}
    try:
        plan = plan_download(source, numbers, raw, **where, prepared=out, png=png)
    except DownloadError as error:
        if set(numbers) - cut:
            raise
        reason = f"not whole in {mounted}, and not fetched: {error}"
        return {source.case_id(number): reason for number in numbers}
    if numbers:
        logger.info("%s", plan)
    plan.check()

    def on_case(number: int, volume: Path, segmentation: Path) -> None:
        prepare_some([_case_of(source, number, volume, segmentation)])

    failed = fetch_cases(source, numbers, raw, on_case, **where)
    return {source.case_id(n): f"not fetched: {reason}" for n, reason in failed.items()}


def _bring_back(settings: Settings, png: bool, workers: int | None) -> list[str]:
    """Bring the LiTS cases that Drive keeps to this machine.

    Returns:
        The cases that are here and whole; the log names the others.

    Raises:
        FileNotFoundError: no case is here or on Drive.
    """
    kept = KeptCases(drive_folder(settings, "prepared"))
    on_drive = kept.ids()
    with locked_folder(settings.prepared):
        kept.restore(on_drive, settings.prepared)
    records = (settings.prepared / "cases").glob("*.json")
    known = {path.stem for path in records if not path.name.startswith(".")}
    ready = sorted(name for name in known if CaseFiles(settings.prepared, name).known())
    if not ready:
        raise FileNotFoundError(
            f"no LiTS case is prepared in {settings.prepared}: {hint('download')}"
        )
    if lost := sorted({*on_drive, *known} - set(ready)):
        names = ", ".join(lost)
        logger.warning("left out: cases %s; try again, or %s", names, hint("prepare"))
    if png:
        export_pngs(settings.prepared, ready, workers=workers)
    return ready


def _case_of(source: Source, number: int, volume: Path, segmentation: Path) -> Case:
    name = source.case_id(number)
    return Case(id=name, patient=name, volume=volume, segmentation=segmentation)


def parse_numbers(text: str) -> list[int]:
    """Return the LiTS case numbers that a text names: "0-9, 27"; an empty one names all 131.

    Raises:
        ValueError: not of that form.
    """
    numbers: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:  # "9-5" must not come to mean all
            raise ValueError(f'case numbers look like "0-9, 27", got {text!r}')
        numbers.update(range(first, last + 1))
    return sorted(numbers) or list(range(CASES))
