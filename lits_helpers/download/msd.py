"""LiTS without an account: Task03_Liver of the Medical Segmentation Decathlon, by byte ranges.

The archive is one plain tar. Its headers say where each member lies; then one Range is one file.
"""

import contextlib
import logging
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar

import requests
import urllib3

from ..machine import read_json, remove_leftovers, write_json
from .source import (
    Answer,
    DownloadError,
    FileUnavailable,
    PassingFailure,
    Patience,
    RemoteFile,
    connection_failure,
    passing_status,
    retrying,
)

logger = logging.getLogger(__name__)

ARCHIVE = "Task03_Liver.tar"
INDEX = f"{ARCHIVE}.index.json"
ADDRESSES = (  # the second is a mirror
    f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{ARCHIVE}",
    f"https://msd-for-monai-eu.s3.eu-west-2.amazonaws.com/{ARCHIVE}",
)
PAGE = "http://medicaldecathlon.com"
FOLDERS = {"imagesTr": "volume", "labelsTr": "segmentation"}
MEMBER = re.compile(r"liver_(\d+)\.nii(\.gz)?")
BLOCK_BYTES = 512  # of a tar: headers are one, data is filled up to whole ones
WINDOW_BYTES = 3 * BLOCK_BYTES  # a header, the little AppleDouble file after it, the next header


@dataclass
class Index:
    """Where the members of an archive lie, as far as its headers have been read.

    Attributes:
        identity: of the archive: what the server calls it, and its length.
        length: of the archive, bytes.
        place: where the next header lies, bytes.
        members: name -> where its data begin, and their size, in bytes.
    """

    identity: str
    length: int
    place: int = 0
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


class MsdArchive:
    """The archive at the first address that serves it; nothing is asked before it is needed.

    Args:
        folder: where the index of members is kept, with the identity that it was made for.
        patience: how long to try.
        addresses: of the same archive, the preferred one first.
    """

    name = "the MSD archive"
    credit = (
        "Task03_Liver of the Medical Segmentation Decathlon, which is LiTS (Bilic et al., Antonelli"
        " et al.), CC BY-SA 4.0"
    )
    form = "imagesTr/liver_N.nii.gz and no labelsTr/liver_N.nii.gz"
    prepared_share: ClassVar = {False: 0.65, True: 0.9}  # what arrives is gzipped
    typical_bytes: ClassVar = {"volume": 150_000_000, "segmentation": 1_000_000}

    def __init__(
        self,
        folder: Path | str,
        patience: Patience | None = None,
        addresses: tuple[str, ...] = ADDRESSES,
    ):
        self.patience = patience or Patience()
        self.addresses = addresses
        self.index_path = Path(folder) / INDEX
        self._address = addresses[0]
        self._session = requests.Session()
        self._walk: Index | None = None  # of headers, which a failure may interrupt
        self._index: Index | None = None

    def key(self, path: PurePath) -> tuple[str, int] | None:
        """Return ("volume" or "segmentation", case number) of a file, None for others."""
        match = MEMBER.fullmatch(path.name)
        kind = FOLDERS.get(path.parent.name)
        return (kind, int(match[1])) if match and kind else None

    def case_id(self, number: int) -> str:
        """Return the id that a case has when its files are found in a folder."""
        return f"liver_{number}"

    def page(self, place: str) -> str:
        """Return the address of the page about the archive."""
        return PAGE

    def list_files(self, numbers: Iterable[int]) -> list[RemoteFile]:
        """Return every CT and reference in the archive.

        Raises:
            DownloadError: no address serves it.
        """
        self._index = self._index or self._find_index()
        members = self._index.members.items()
        return [RemoteFile(ARCHIVE, name, size) for name, (_, size) in members]

    @contextlib.contextmanager
    def open(self, file: RemoteFile, start: int, identity: str | None) -> Iterator[Answer]:
        """Ask for a member from byte `start` on, or from 0 if it belongs to another archive.

        Raises:
            DownloadError: no address serves it; a `PassingFailure` where it may come later.
        """
        index = self._index = self._index or self._find_index()
        if file.name not in index.members:
            raise FileUnavailable(f"{file.name} is not in {ARCHIVE} any more: leave this case out")
        offset, size = index.members[file.name]
        if identity != index.identity or start >= size:
            start = 0
        try:
            with self._range(offset + start, size - start) as (response, found, _):
                if found != index.identity:
                    raise _changed()
                yield Answer(response.raw, start, size, index.identity)
        except FileUnavailable as error:  # moved meanwhile: ask each address again
            self._index = None
            raise PassingFailure(str(error), "run again") from None
        except PassingFailure as error:
            if error.restart:
                self._index = None
            raise

    def _find_index(self) -> Index:
        """Return the index of the archive at the first address that serves it."""
        for address in self.addresses:
            self._address = address
            try:
                return retrying(self._read_index, self.patience)
            except (FileUnavailable, PassingFailure) as error:
                problem = error
                logger.warning("%s", error)
        raise DownloadError(str(problem))

    def _read_index(self) -> Index:
        """Return the kept index if it is of the archive there, else make one and keep it."""
        _, identity, length = self._window(0)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            known = Index(**read_json(self.index_path))
            if known.identity == identity:
                return known
        if self._walk is None or self._walk.identity != identity:
            logger.info("finding the members of %s, once: about a minute", ARCHIVE)
            self._walk = Index(identity, length)
        self._read_headers(self._walk)
        remove_leftovers(self.index_path.parent, f"*{self.index_path.name}")
        self.index_path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.index_path, asdict(self._walk))
        return self._walk

    def _read_headers(self, walk: Index) -> None:
        window, begins = b"", 0
        while walk.place < walk.length:
            block = window[walk.place - begins :][:BLOCK_BYTES]
            if len(block) < BLOCK_BYTES:
                begins = walk.place
                window, identity, _ = self._window(begins)
                if identity != walk.identity:
                    raise _changed()
                block = window[:BLOCK_BYTES]
            if not block.strip(b"\0"):
                return  # the end of a tar
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                what = f"{ARCHIVE} is no tar at byte {walk.place} ({error})"
                raise PassingFailure(what, "run again later") from None
            begin = walk.place + BLOCK_BYTES
            if member.isreg() and self.key(PurePosixPath(member.name)):
                if begin + member.size <= walk.length:
                    walk.members[member.name] = (begin, member.size)
            walk.place = begin + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES

    def _window(self, start: int) -> tuple[bytes, str, int]:
        """Return a few bytes from `start` on, and identity and length of the archive."""
        with self._range(start, WINDOW_BYTES) as (response, identity, length):
            wanted = min(WINDOW_BYTES, length - start)
            try:
                content = response.raw.read(wanted)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise connection_failure(error, self._host, "a header") from None
        if len(content) != wanted:
            raise PassingFailure(f"{ARCHIVE}: a header was cut off", "run again")
        return content, identity, length

    @contextlib.contextmanager
    def _range(self, start: int, count: int) -> Iterator[tuple[requests.Response, str, int]]:
        """Yield a response to exactly these bytes, fewer at the archive's end; and as `_window`."""
        asked = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        options = {"headers": asked, "stream": True, "timeout": self.patience.timeout_s}
        try:
            with self._session.get(self._address, **options) as response:
                length = self._checked_length(response, start, count)
                tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
                yield response, f"{tag} {length}", length
        except requests.RequestException as error:
            raise connection_failure(error, self._host, ARCHIVE) from None

    def _checked_length(self, response: requests.Response, start: int, count: int) -> int:
        """Return the length of the archive if the answer is of the bytes asked for."""
        status = response.status_code
        answer = f"{self._host} answered {status} for {ARCHIVE}"
        if status in (403, 404, 410):
            raise FileUnavailable(f"{answer}: it is not there any more, see {PAGE}")
        if status == 200:
            raise FileUnavailable(
                f"{self._host} sends all of {ARCHIVE} where a part was asked for: a proxy may be in"
                " between; fetch it by hand, unpack it and read it as a folder"
            )
        if failure := passing_status(response, status, answer):
            raise failure
        if status != 206:
            raise DownloadError(f"{answer}: see {PAGE}")
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        first, last, length = map(int, span.groups()) if span else (-1, -1, 0)
        if (first, last) != (start, min(start + count, length) - 1):
            raise PassingFailure(f"{self._host} sent other bytes of {ARCHIVE}", "run again")
        return length

    @property
    def _host(self) -> str:
        return self._address.split("/")[2]


def _changed() -> PassingFailure:
    return PassingFailure(f"{ARCHIVE} changed on the server", "run again", restart=True)
