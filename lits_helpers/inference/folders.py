"""Files of CTs, one or folders of them: each is segmented once, and one failure ends no other."""

import logging
import os
import shutil
import zipfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..cases import MOST_ID_BYTES, UNREAD, Case, Finding, about_ct, find_cts, load_case, overruled
from ..checkpoints import LiverModel, TumorModel
from ..environment import choose_device
from ..machine import local_rank, own_rank, own_share, wait_for_others, written_whole
from ..preprocess import read_prepared
from ..recipes import SYSTEMS
from ..volumes import (
    LABELS_SUFFIX,
    SUFFIX,
    Volume,
    hash_of_files,
    probability_path,
    read_probability,
    segmentation_path,
    write_probability,
    write_segmentation,
)
from .evidence import second_look
from .postprocess import Postprocessing
from .provenance import MakerRecord
from .segment import segment_volume

logger = logging.getLogger(__name__)

FORMATS = {"nifti": ".nii.gz", "dicom-seg": ".dcm"}  # name -> suffix
PREDICTION_NAME = "prediction-volume-{}.nii.gz"
SUBMISSION_NAME = "test-segmentation-{}.nii"  # as the LiTS server wants them, zipped
SUBMISSION_ARCHIVE = "submission.zip"


@dataclass
class FolderReport:
    """What became of this process's share of the CTs.

    Attributes:
        written: {CT: labels} segmented now.
        present: {CT: labels} finished in an earlier call.
        failed: {CT: reason}.
        archive: the submission; the first process packs it once all CTs of all are finished.
    """

    written: dict[Path, Path] = field(default_factory=dict)
    present: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    archive: Path | None = None

    def text(self) -> str:
        """Return a line of counts, then one for each failure, or for the submission."""
        counts = f"{len(self.written)} segmented, {len(self.present)} were finished before"
        lines = [f"{counts}, {len(self.failed)} failed"]
        lines += [f"  {path}: {reason}" for path, reason in self.failed.items()]
        if self.archive:
            lines.append(f"all of them: {self.archive}")
        return "\n".join(lines)


def find_volumes(
    root: Path | str, out: Path | str | None = None, layout: str = "auto"
) -> list[Case]:
    """Return the CTs anywhere below `root`, or `root` itself if it is a file.

    A CT is every NIfTI file and packed .b2nd that is no reference, by its layout, no prediction,
    and does not lie in `out`; every zip but a submission; and every study of DICOM, named after its
    folder.

    Args:
        root: a file or a folder.
        out: folder of the results.
        layout: as for `cases.find_cases`.

    Raises:
        FileNotFoundError: there is none.
    """
    root = Path(root)
    results = Path(out).resolve() if out is not None else None
    if results and root.resolve() not in results.parents:  # only the names tell them from CTs
        results = None
    if root.suffix == SUFFIX:
        return [_packed_case(root)]
    packed = sorted(root.rglob(f"[!.]*{SUFFIX}"))
    cases = [_packed_case(path) for path in packed if not path.name.endswith(LABELS_SUFFIX)]
    cases += find_cts(root, layout)
    cases = [case for case in cases if case.volume.name != SUBMISSION_ARCHIVE or root.is_file()]
    found = [case for case in cases if results not in case.volume.resolve().parents]
    if not found:
        raise FileNotFoundError(
            f"no CT at {root}: expected .nii, .nii.gz, .b2nd or DICOM; other formats must be "
            "converted first"
        )
    return found


def _packed_case(path: Path) -> Case:
    case_id = path.name.removesuffix(SUFFIX)
    return Case(case_id, case_id, path)


def segment_files(
    cases: Sequence[Case],
    out: Path | str,
    liver_model: LiverModel | Sequence[LiverModel] | None = None,
    tumor_model: TumorModel | Sequence[TumorModel] | None = None,
    post: Postprocessing | None = None,
    *,
    submission: bool = False,
    take_over: bool = False,
    formats: Sequence[str] = ("nifti",),
    probabilities: bool = False,
) -> FolderReport:
    """Segment CT files; skip finished ones, name those that fail and go on.

    Under `torchrun` each process takes its share of the files and returns when all are done.

    Args:
        cases: from `find_volumes`; their segmentations are not read.
        out: folder for ``prediction-volume-N.nii.gz``; N is the case id.
        liver_model, tumor_model, post: as for `segment.segment_volume`.
        submission: write ``test-segmentation-N.nii`` instead, and submission.zip when all are
            there.
        take_over: replace results of other models or settings in `out`; else they are refused.
        formats: names of `FORMATS`; "dicom-seg" is for CTs that came from DICOM. The report names
            the files of the first.
        probabilities: write ``NAME_liver_probability.nii.gz`` and ``..._tumor_...`` beside each
            prediction too, see `write_probability`.

    Raises:
        ValueError: two files would have the same result, or `out` holds results of other models or
            settings.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    suffixes = [FORMATS[name] for name in formats]
    name = PREDICTION_NAME.replace(FORMATS["nifti"], suffixes[0])
    by_path = _called(cases)
    targets = _targets(by_path, out, SUBMISSION_NAME if submission else name)
    record = MakerRecord(out, liver_model, tumor_model, post)
    record.claim(take_over=take_over)
    share = own_share(list(targets))
    files = {path: _beside(target, suffixes) for path, target in targets.items()}
    systems = [name for name in SYSTEMS if probabilities and record.maker[name]]
    beside = {
        path: [probability_path(target, system) for system in systems]
        for path, target in targets.items()
    }
    present = {
        path: targets[path]
        for path in share
        if all(_finished(by_path[path], file, record, beside[path]) for file in files[path])
    }
    report = FolderReport(present=present)
    wanted = {path: by_path[path] for path in share if path not in present}
    bar = tqdm(_read_ahead(wanted), "segment", len(wanted), unit="scan", disable=own_rank() > 0)
    for path, source in bar:
        try:
            volume, content, findings = source.result()
            kept = {} if probabilities else None
            labels = segment_volume(
                volume, liver_model, tumor_model, post, checked=True, probabilities=kept
            )
            evidence = second_look(volume, labels, liver_model, tumor_model)
            for file in files[path]:
                record.forget(file)
            write_probabilities(kept or {}, volume, targets[path])
            for file in files[path]:
                write_segmentation(labels, volume, file)
                record.add(file, content, by_path[path], findings, evidence, beside[path])
            report.written[path] = targets[path]
        except Exception as error:  # one bad file must not end the others
            report.failed[path] = str(error) or type(error).__name__
            expected = isinstance(error, UNREAD)
            logger.warning(
                "%s was not segmented: %s", path, report.failed[path], exc_info=not expected
            )
    # Wait before a failure is reported: `torchrun` ends all processes when one fails.
    met = wait_for_others()
    if submission and not report.failed and not (met and own_rank()):
        others = [path for path in targets if path not in report.present | report.written]
        if all(record.holds(targets[path], by_path[path]) for path in others):
            report.archive = _pack(list(targets.values()), out / SUBMISSION_ARCHIVE)
    return report


def segment_file(
    volume_path: Path | str,
    out_path: Path | str,
    liver_model: LiverModel | Sequence[LiverModel] | None = None,
    tumor_model: TumorModel | Sequence[TumorModel] | None = None,
    post: Postprocessing | None = None,
    *,
    orientation: str | None = None,
    accept: Sequence[str] = (),
) -> Path:
    """Segment a CT file and write the labels with the CT's shape, affine and voxel order.

    Args:
        volume_path: as for `volumes.read_volume`; what is odd about the CT is logged.
        out_path: where to write, .nii or .nii.gz; .dcm for a CT from DICOM.
        liver_model, tumor_model, post: as for `segment_volume`.
        orientation: overrules the header and its anatomy, see `cases.Case`.
        accept: codes of findings that are overruled.

    Returns:
        `out_path`.

    Raises:
        ValueError: a CT that cannot be read or used, another suffix of `out_path`, or the CT's own
            path, before any work.
    """
    out_path = segmentation_path(out_path, volume_path)
    (case,) = overruled([Case("ct", "ct", Path(volume_path))], orientation, accept)
    volume, _, _ = read_checked(case)
    labels = segment_volume(volume, liver_model, tumor_model, post, checked=True)
    return write_segmentation(labels, volume, out_path)


def own_device(name: str | None = None) -> torch.device:
    """Return the device of this process: under `torchrun` each takes a GPU of its own."""
    device = choose_device(name)
    number = local_rank()
    if device.type == "cuda" and device.index is None and number is not None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


def _called(cases: Sequence[Case]) -> dict[Path, Case]:
    """Return the cases by what messages and reports call their CTs: by the file.

    Of several in one zip it is as if that were a folder.
    """
    times = Counter(volume for volume, _ in {(case.volume, case.id) for case in cases})
    return {
        case.volume if times[case.volume] == 1 else case.volume / case.id: case for case in cases
    }


def _targets(cases: Mapping[Path, Case], out: Path, name: str) -> dict[Path, Path]:
    """Return {CT: where its labels go}."""
    sources: dict[str, Path] = {}  # by name; to some disks capitals make no difference
    targets = {path: out / name.format(case.id) for path, case in cases.items()}
    for path, target in targets.items():
        other = sources.setdefault(target.name.lower(), path)
        if other != path:
            raise ValueError(
                f"{other} and {path} would both be written to {target.name}; "
                "segment them into different folders"
            )
    return targets


def _beside(target: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return all files of one prediction: `target` has the first suffix."""
    stem = target.name.removesuffix(suffixes[0])
    return [target, *(target.with_name(f"{stem}{suffix}") for suffix in suffixes[1:])]


def write_probabilities(given: Mapping[str, np.ndarray], like: Volume, labels: Path) -> None:
    """Write the probabilities of the given systems beside the labels."""
    for system, values in given.items():
        write_probability(values, like, probability_path(labels, system))


def read_probabilities(labels: Path | str, like: Volume) -> dict[str, np.ndarray]:
    """Return the probabilities that lie beside labels: system -> (Z, Y, X) uint8, times 255.

    Raises:
        ValueError: they are of another CT.
    """
    paths = {system: probability_path(labels, system) for system in SYSTEMS}
    return {
        system: read_probability(path, like) for system, path in paths.items() if path.is_file()
    }


def _finished(case: Case, target: Path, record: MakerRecord, beside: Sequence[Path]) -> bool:
    """Return whether a CT was segmented before; log a file that only looks like its result."""
    try:
        finished = record.holds(target, case, beside)
        if target.is_file() and not finished:
            logger.info(
                "%s: segmented again, %s was not made from it as it is", case.volume, target
            )
        return finished
    except OSError:  # reading the CT will say what is wrong
        return False


def _read_ahead(cases: Mapping[Path, Case]) -> Iterator[tuple[Path, Future]]:
    """Yield each CT with its `read_checked` in the future; meanwhile the next one is read."""
    with ThreadPoolExecutor(1) as pool:
        ahead = deque()
        for path, case in cases.items():
            ahead.append((path, pool.submit(read_checked, case)))
            if len(ahead) > 1:
                yield ahead.popleft()
        yield from ahead


def read_checked(case: Case) -> tuple[Volume, str, list[Finding]]:
    """Return a CT, turned by its anatomy where its header is wrong, its hash and its findings.

    Raises:
        OSError, ValueError: it cannot be read, or must not be used as it is.
    """
    if len(os.fsencode(case.id)) > MOST_ID_BYTES:
        raise ValueError(f"its name is too long: {case.id[:40]}...; give it a shorter one")
    path = case.volume
    content = hash_of_files(path)
    volume, findings = read_ct(case)
    for finding in findings:
        if finding.harmful:
            raise ValueError(f"{path}: {finding.text}")
        logger.info("%s: %s", path, finding.text)
    return volume, content, findings


def read_ct(case: Case) -> tuple[Volume, list[Finding]]:
    """Return a CT, turned as anatomy or the user says, and what is odd about it, harmful or not.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    if case.volume.suffix == SUFFIX:  # checked and turned when it was prepared
        return read_prepared(case.volume, case.orientation)
    volume, _, findings = load_case(replace(case, segmentation=None))
    return volume, about_ct(findings)


def _pack(files: Sequence[Path], archive: Path) -> Path:
    """Zip the files flat; the same files give the same bytes."""
    with written_whole(archive) as temporary, zipfile.ZipFile(temporary, "w") as target:
        for path in files:
            entry = zipfile.ZipInfo(path.name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = path.stat().st_size
            with open(path, "rb") as source, target.open(entry, "w") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    return archive
