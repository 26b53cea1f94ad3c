"""What an archive may hold before anything of it is unpacked."""

import stat
import zipfile
from pathlib import PurePosixPath

LARGEST_FILE_BYTES = 3 * 2**30  # the longest LiTS scan as float64 has 2.1e9
LARGEST_ARCHIVE_BYTES = 64 * 2**30  # all of LiTS has 54e9
MOST_MEMBERS = 10_000
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
ENCRYPTED = 1  # of an entry's flags


class HostileArchive(ValueError):
    """An archive that would write where it must not, more than it may, or what nobody can read."""


def safe_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return an archive's files after checking every entry, before anything is written.

    Raises:
        HostileArchive: an absolute name or one with `..`, a link or device, a file over 3 GiB, too
            many entries or over 64 GiB in all, a password or a rare way of packing.
    """
    entries = archive.infolist()
    if len(entries) > MOST_MEMBERS:
        raise HostileArchive(
            f"{len(entries)} entries in the archive, at most {MOST_MEMBERS} are believed"
        )
    for entry in entries:
        _check_entry(entry)
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_ARCHIVE_BYTES:
        raise HostileArchive(
            f"the archive would unpack to {total / 2**30:.0f} GiB in all, more than any study has"
        )
    return [entry for entry in entries if not entry.is_dir()]


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or ":" in entry.filename:
        raise HostileArchive(f"the archive would write outside its folder, to {entry.filename!r}")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise HostileArchive(f"the archive holds a link or device, {entry.filename!r}")
    if entry.flag_bits & ENCRYPTED:
        raise HostileArchive("the archive wants a password: unpack it, and give the folder")
    if entry.compress_type not in METHODS:  # Windows packs above 2 GB with method 9
        raise HostileArchive(
            f"{entry.filename!r} in the archive is packed by method {entry.compress_type}, which "
            "nothing here reads: unpack it, and give the folder"
        )
    if entry.file_size > LARGEST_FILE_BYTES:
        raise HostileArchive(
            f"{entry.filename!r} in the archive would unpack to {entry.file_size / 2**30:.0f} GiB,"
            " more than any CT volume has"
        )
