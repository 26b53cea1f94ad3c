"""A downloaded file: check that it is the NIfTI file asked for, and unpack it safely."""

import gzip
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..machine import (
    LARGEST_FILE_BYTES,
    TEMPORARY_PREFIX,
    HostileArchive,
    rename_lasting,
    safe_members,
)
from ..volumes import GZIP_MAGIC, HEADER_BYTES, claimed_bytes

SLACK_BYTES = 2**20  # what may follow the voxels
CHUNK_BYTES = 2**20


class BrokenFile(ValueError):
    """A file's content is damaged or something else; fetching it again may help."""


def nifti_bytes(head: bytes) -> int:
    """Return how many bytes a NIfTI file has at least, uncompressed, by its header.

    Args:
        head: its first `HEADER_BYTES`.

    Raises:
        BrokenFile: it is no such header.
    """
    if head.lstrip()[:1] in (b"<", b"{"):
        raise BrokenFile("it is a web page or a message, not a NIfTI file")
    try:
        return claimed_bytes(head)
    except ValueError as error:
        raise BrokenFile(str(error)) from error


def check_nifti(path: Path) -> None:
    """Check cheaply that a .nii or .nii.gz is whole: its length against its header.

    Raises:
        BrokenFile: it is not; the message says why.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(HEADER_BYTES)
        if head[:2] == GZIP_MAGIC:
            stream.seek(-4, os.SEEK_END)
            (claimed,) = struct.unpack("<I", stream.read(4))
            _check_gzip_length(path, claimed)
            return
    expected = nifti_bytes(head)
    if size < expected:
        raise BrokenFile(f"{size} bytes, but its header describes {expected}: it is cut off")


def is_whole(path: Path) -> bool:
    """Tell whether `path` is a file that passes `check_nifti`."""
    try:
        check_nifti(path)
    except (BrokenFile, OSError):
        return False
    return True


def _check_gzip_length(path: Path, claimed: int) -> None:
    """Compare the length that ends a gzip file with its header; read all of it if they differ."""
    try:
        with gzip.open(path) as stream:
            expected = nifti_bytes(stream.read(HEADER_BYTES))
        if not expected <= claimed <= expected + SLACK_BYTES:  # cut off, or of several members
            length = _checked_gzip(path)
            if length < expected:
                raise BrokenFile(f"{length} bytes, but its header describes {expected}")
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenFile(f"its gzip stream is broken ({error})") from error


def unpacked_name(target: Path) -> Path:
    """Return the temporary name under which `target` is unpacked."""
    # a fixed name, so that a rerun after a kill overwrites it
    return target.with_name(f"{TEMPORARY_PREFIX}unpacked-{target.name}")


def settle(source: Path, target: Path) -> Path:
    """Check a fetched file and move it to its final name, out of its zip or gzip if it has one.

    Args:
        source: a complete transfer: NIfTI, gzipped NIfTI, or a zip with the one file in it.
        target: final name, `....nii` or `....nii.gz`; appears only when whole.

    Returns:
        The final path: `target`, without ".gz" if the server had unpacked it.

    Raises:
        BrokenFile: the content is damaged or something else.
        HostileArchive: see `safe_members`.
    """
    with open(source, "rb") as stream:
        magic = stream.read(4)
    if magic == b"PK\x03\x04":
        _unzip_one(source, target)
    elif magic[:2] == GZIP_MAGIC and target.suffix != ".gz":
        with gzip.open(source) as stream:
            _pour(stream, target)
    else:
        if magic[:2] != GZIP_MAGIC and target.suffix == ".gz":
            target = target.with_suffix("")
        if magic[:2] == GZIP_MAGIC:
            _checked_gzip(source)
        check_nifti(source)
        rename_lasting(source, target)
    return target


def _unzip_one(source: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = safe_members(archive)
            named = [m for m in members if PurePosixPath(m.filename).name == target.name]
            if len(named) != 1:
                raise BrokenFile(f"the zip does not hold {target.name} once but {len(named)} times")
            with archive.open(named[0]) as stream:
                _pour(stream, target)
    except (zipfile.BadZipFile, RuntimeError) as error:  # the second: encrypted, unknown method
        raise BrokenFile(f"{target.name} in the zip is broken ({error})") from error


def _pour(stream: BinaryIO, target: Path) -> None:
    """Write a stream to `target`, whole and checked, never more than its NIfTI header describes."""
    temporary = unpacked_name(target)
    packed = target.suffix == ".gz"
    try:
        with open(temporary, "wb") as out:
            for chunk in _chunks(stream, LARGEST_FILE_BYTES if packed else None):
                out.write(chunk)
        if packed:
            _checked_gzip(temporary)
        check_nifti(temporary)
        rename_lasting(temporary, target)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BrokenFile(f"its compressed data is broken ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _chunks(stream: BinaryIO, limit: int | None) -> Iterator[bytes]:
    """Yield a stream in pieces, up to `limit` bytes; None takes the limit from its NIfTI header."""
    chunk = stream.read(HEADER_BYTES)
    total = 0
    limit = nifti_bytes(chunk) + SLACK_BYTES if limit is None else limit
    if limit > LARGEST_FILE_BYTES + SLACK_BYTES:
        raise BrokenFile(
            f"its header describes {limit / 2**30:.0f} GiB, more than any CT volume has"
        )
    while chunk:
        total += len(chunk)
        if total > limit:
            raise HostileArchive(
                f"it unpacks to more than the {limit} bytes that its header describes"
            )
        yield chunk
        chunk = stream.read(CHUNK_BYTES)


def _checked_gzip(path: Path) -> int:
    """Read a gzipped NIfTI to its end, which verifies its checksum; return its length in bytes."""
    try:
        with gzip.open(path) as stream:
            return sum(len(chunk) for chunk in _chunks(stream, None))
    except (OSError, EOFError, zlib.error) as error:
        raise BrokenFile(f"its gzip stream is broken ({error})") from error
