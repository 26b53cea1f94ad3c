"""Folders of CTs: each segmented once, whatever becomes of the others, by one or many processes."""

import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .environment import choose_device
from .files import read_json, write_json, written_whole
from .inference import segment_volume
from .packed import LABELS_SUFFIX
from .postprocess import Postprocessing
from .trained import LiverModel, TumorModel
from .volumes import read_volume, write_segmentation

logger = logging.getLogger(__name__)

PREDICTION_NAME = "prediction-volume-{}.nii.gz"
SUBMISSION_NAME = "test-segmentation-{}.nii"  # as the LiTS server wants them, zipped
SUBMISSION_ARCHIVE = "submission.zip"
RECORD_NAME = "segmented_by.json"

CT_NAME = re.compile(r"(?:test-)?(?:volume-)?(.+?)(?:\.nii(?:\.gz)?|\.b2nd)")
NO_CT = (".", "segmentation-", "test-segmentation-", "prediction-")


@dataclass
class FolderReport:
    """What became of the CTs that fell to this process.

    Attributes:
        written: {CT: labels} segmented now.
        present: {CT: labels} finished in an earlier call.
        failed: {CT: reason}.
        archive: the submission, once every CT of all processes is finished.
    """

    written: dict[Path, Path] = field(default_factory=dict)
    present: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    archive: Path | None = None

    def text(self) -> str:
        """Return a line of counts, then one for each failure."""
        counts = f"{len(self.written)} segmented, {len(self.present)} were finished before"
        lines = [f"{counts}, {len(self.failed)} failed"]
        return "\n".join(lines + [f"  {path}: {reason}" for path, reason in self.failed.items()])


def segment_folder(
    root: Path | str,
    out: Path | str,
    liver_model: LiverModel | None = None,
    tumor_model: TumorModel | None = None,
    post: Postprocessing | None = None,
    *,
    submission: bool = False,
) -> FolderReport:
    """Segment every CT below a folder; see `segment_files`.

    Raises:
        FileNotFoundError: no CT there.
    """
    files = find_volumes(root, out)
    return segment_files(files, out, liver_model, tumor_model, post, submission=submission)


def find_volumes(root: Path | str, out: Path | str | None = None) -> list[Path]:
    """Return the CTs anywhere below `root`, or `root` itself if it is a file.

    Every .nii, .nii.gz and packed .b2nd counts that is not named as a segmentation or prediction
    and does not lie in `out`.

    Raises:
        FileNotFoundError: there is none.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    own = None if out is None else Path(out).resolve()
    found = [
        path
        for path in sorted(root.rglob("*"))
        if CT_NAME.fullmatch(path.name)
        and not path.name.startswith(NO_CT)
        and not path.name.endswith(LABELS_SUFFIX)
        and path.is_file()
        and own not in path.resolve().parents
    ]
    if not found:
        raise FileNotFoundError(f"no CT at {root}: expected .nii, .nii.gz or packed .b2nd files")
    return found


def segment_files(
    files: Sequence[Path],
    out: Path | str,
    liver_model: LiverModel | None = None,
    tumor_model: TumorModel | None = None,
    post: Postprocessing | None = None,
    *,
    submission: bool = False,
) -> FolderReport:
    """Segment CT files; what is finished is skipped, what fails is named and the rest goes on.

    Under `torchrun` each process takes its share of the files; nothing else is exchanged.

    Args:
        files: from `find_volumes`.
        out: folder for ``prediction-volume-N.nii.gz``, N being what follows "volume-" in a CT's
            name, or all of the name.
        liver_model, tumor_model, post: as for `inference.segment_volume`.
        submission: write ``test-segmentation-N.nii`` instead, and submission.zip when all are
            there.

    Raises:
        ValueError: two files would have the same result, or `out` holds results of other models or
            settings.
        OSError: `out` cannot be written.
    """
    out, post = Path(out), post or Postprocessing()
    targets = _targets(files, out, SUBMISSION_NAME if submission else PREDICTION_NAME)
    ours = _claim(out, {"liver": liver_model, "tumor": tumor_model}, post)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    report = FolderReport()
    wanted = []
    for path in list(targets)[rank::world]:
        if ours and targets[path].is_file():
            report.present[path] = targets[path]
        else:
            wanted.append(path)
    bar = tqdm(_read_ahead(wanted), "segment", len(wanted), unit="scan", disable=rank > 0)
    for path, volume in bar:
        try:
            labels = segment_volume(volume.result(), liver_model, tumor_model, post)
            report.written[path] = write_segmentation(labels, volume.result(), targets[path])
        except Exception as error:  # one bad file must not end the others
            report.failed[path] = str(error) or type(error).__name__
            logger.warning("%s was not segmented: %s", path, report.failed[path])
    if submission and all(target.is_file() for target in targets.values()):
        report.archive = _pack(list(targets.values()), out / SUBMISSION_ARCHIVE)
    return report


def own_device(name: str | None = None) -> torch.device:
    """Return the device of this process: under `torchrun` each takes a GPU of its own."""
    device = choose_device(name)
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return device


def _targets(files: Sequence[Path], out: Path, name: str) -> dict[Path, Path]:
    """Return {CT: where its labels go}."""
    targets, sources = {}, {}
    for path in files:
        match = CT_NAME.fullmatch(path.name)
        target = out / name.format(match[1] if match else path.name)
        if target in sources:
            raise ValueError(
                f"{sources[target]} and {path} would both be written to {target.name}; "
                "segment them into different folders"
            )
        targets[path], sources[target] = target, path
    return targets


def _claim(out: Path, models: Mapping[str, LiverModel | None], post: Postprocessing) -> bool:
    """Write down whose results `out` holds, or compare with what is written there.

    Returns:
        whether it was written down before: results without it are of unknown models.
    """
    maker = {system: model and _weights_hash(model) for system, model in models.items()}
    maker = {**maker, "postprocessing": asdict(post)}
    record = out / RECORD_NAME
    if record.is_file():
        before = read_json(record)
        other = [name for name in maker if before.get(name) != maker[name]]
        if other:
            raise ValueError(
                f"{out} holds results of another setting ({' and '.join(other)} differ): "
                "choose another folder for these, or delete that one"
            )
        return True
    try:
        write_json(record, maker)
    except OSError as error:
        raise OSError(f"cannot write to {out} ({error}); choose another folder") from error
    return False


def _weights_hash(model: LiverModel) -> str:
    digest = blake2b(repr(model.spec).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def _read_ahead(files: Sequence[Path]) -> Iterator[tuple[Path, Future]]:
    """Yield each file with its volume; the next is read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for path, following in pairwise([*files, None]):
            volume = ahead or pool.submit(read_volume, path)
            ahead = following and pool.submit(read_volume, following)
            yield path, volume


def _pack(files: Sequence[Path], archive: Path) -> Path:
    """Zip the files flat; the same files give the same bytes."""
    with written_whole(archive) as temporary, zipfile.ZipFile(temporary, "w") as target:
        for path in files:
            entry = zipfile.ZipInfo(path.name)
            entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, path.stat().st_size
            with open(path, "rb") as source, target.open(entry, "w") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    return archive
