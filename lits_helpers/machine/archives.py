"""What an archive may hold before anything of it is unpacked."""

import stat
import zipfile
from pathlib import PurePosixPath

LARGEST_FILE_BYTES = 3 * 2**30  # the longest LiTS scan as float64 has 2.1e9
MOST_MEMBERS = 10_000


class HostileArchive(ValueError):
    """An archive that would write where it must not, or more than it may; nothing was unpacked."""


def safe_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return an archive's files after checking every entry, before anything is written.

    Raises:
        HostileArchive: an absolute name or one with `..`, a link or device, a file over 3 GiB,
            or too many entries.
    """
    entries = archive.infolist()
    if len(entries) > MOST_MEMBERS:
        raise HostileArchive(
            f"{len(entries)} entries in the archive, at most {MOST_MEMBERS} are believed"
        )
    for entry in entries:
        _check_entry(entry)
    return [entry for entry in entries if not entry.is_dir()]


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or ":" in entry.filename:
        raise HostileArchive(f"the archive would write outside its folder, to {entry.filename!r}")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise HostileArchive(f"the archive holds a link or device, {entry.filename!r}")
    if entry.file_size > LARGEST_FILE_BYTES:
        raise HostileArchive(
            f"{entry.filename!r} in the archive would unpack to {entry.file_size / 2**30:.0f} GiB,"
            " more than any CT volume has"
        )
