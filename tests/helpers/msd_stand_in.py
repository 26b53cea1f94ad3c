"""A server of Task03_Liver.tar and of its mirror on loopback, with generated archives."""

import gzip
import hashlib
import io
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from helpers.kaggle_stand_in import PATIENCE, Fault, Handler, StandIn, nifti
from lits_helpers.download import MsdArchive, fetch_cases
from lits_helpers.download.msd import ARCHIVE, WINDOW_BYTES
from lits_helpers.download.source import FileUnavailable, Patience

VOLUME, LABELS = "Task03_Liver/imagesTr/liver_3.nii.gz", "Task03_Liver/labelsTr/liver_3.nii.gz"


def liver_files(numbers=(3, 60)) -> dict[str, bytes]:
    """Return {member: content} of a few tiny cases, the later ones first, and of a test CT."""
    files = {"Task03_Liver/dataset.json": b"{}"}
    files["Task03_Liver/imagesTs/liver_132.nii.gz"] = packed(132)
    for number in sorted(numbers, reverse=True):
        files[f"Task03_Liver/labelsTr/liver_{number}.nii.gz"] = packed(number, bits=8)
        files[f"Task03_Liver/imagesTr/liver_{number}.nii.gz"] = packed(number)
    return files


def packed(seed: int, **options) -> bytes:
    """Return a small gzipped NIfTI, the same for the same seed."""
    return gzip.compress(nifti(seed, **options), mtime=0)


def tar_of(files: dict[str, bytes]) -> bytes:
    """Return a ustar archive of files in this order, each after its AppleDouble companion."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("Task03_Liver", "Task03_Liver/imagesTr", "Task03_Liver/labelsTr"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in files.items():
            path = Path(name)
            for member, data in ((f"{path.parent}/._{path.name}", b"Mac" * 80), (name, content)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Shelf(StandIn):
    """What the two servers hold and what they saw.

    Attributes:
        archive, mirror: contents of both; None answers 404.
        faults, header_faults: of requests for members and for headers, each used once.
        swap: after so many requests this is the archive.
        spans: first and last byte of each request.
    """

    sets: dict = field(default_factory=dict)
    archive: bytes | None = None
    mirror: bytes | None = None
    faults: list[Fault] = field(default_factory=list)
    header_faults: list[Fault] = field(default_factory=list)
    swap: tuple[int, bytes] | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)

    @property
    def addresses(self) -> tuple[str, str]:
        """Both addresses, the mirror's last."""
        return f"{self.url}/{ARCHIVE}", f"{self.storage_url}/{ARCHIVE}"

    def member_spans(self) -> list[tuple[int, int]]:
        """Return the spans of requests for members."""
        return [span for span in self.spans if span[1] - span[0] + 1 != WINDOW_BYTES]


class _First(Handler):
    def held(self) -> bytes | None:
        return self.stand_in.archive

    def do_GET(self):
        first, last = map(int, re.findall(r"\d+", self.headers["Range"]))
        self.stand_in.spans.append((first, last))
        if self.stand_in.swap and len(self.stand_in.spans) == self.stand_in.swap[0]:
            self.stand_in.archive = self.stand_in.swap[1]
        header = last - first + 1 == WINDOW_BYTES
        faults = self.stand_in.header_faults if header else self.stand_in.faults
        fault = faults.pop(0) if faults else Fault()
        content = self.held()
        if content is None or fault.status:
            return self.fail(Fault(status=fault.status or 404, retry_after=fault.retry_after))
        body = content if fault.ignore_range else content[first : last + 1]
        self.send_response(200 if fault.ignore_range else 206)
        begin, end = first + fault.elsewhere, min(last, len(content) - 1) + fault.elsewhere
        if not fault.ignore_range:
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}-3449"')
        length = len(body) if fault.announce is None else fault.announce
        self.send_header("Content-Length", str(length))
        self.end_headers()
        return self.pour(body[:length], fault)


class _Mirror(_First):
    def held(self) -> bytes | None:
        return self.stand_in.mirror


SERVERS = (_First, _Mirror)


def archive_of(shelf: Shelf, folder: Path, patience: Patience = PATIENCE) -> MsdArchive:
    """Return the source that reads the stand-in."""
    return MsdArchive(folder, patience, shelf.addresses)


def fetch_pair(source: MsdArchive, number: int, folder: Path) -> tuple[bytes, bytes]:
    """Fetch a case, keep its raw files and return their contents.

    Raises:
        FileUnavailable: it could not be had.
    """
    pairs = []
    failed = fetch_cases(source, [number], folder, lambda _, *p: pairs.append(p), keep_raw=True)
    if failed:
        raise FileUnavailable(failed[number])
    volume, labels = pairs[0]
    return volume.read_bytes(), labels.read_bytes()
