"""Which LiTS file lies where: at its source, in a folder, on a mount; and what fetching takes."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..settings import hint
from .archives import is_whole
from .source import DownloadError, RemoteFile, Source

CASES = 131
MOUNTS = ("/kaggle/input", "/content/drive/MyDrive/lits", "/content/drive/MyDrive/LiTS")
MOUNT_DEPTH = 4  # levels of folders below a root that are searched
NO_RAW = ("images", "masks", "runs")  # tens of thousands of files, slow to list on a Drive
ASSUMED_RATE = 20e6  # bytes per second, what Colab gets


Key = tuple[str, int]  # "volume" or "segmentation", and the case number


def present_cases(
    source: Source, *roots: Path | str | None, numbers: Iterable[int] | None = None
) -> dict[int, dict[str, Path]]:
    """Find whole LiTS files by name anywhere below `roots`; the first root that has one wins.

    Args:
        source: tells how files are named.
        roots: folders; None and absent ones hold nothing.
        numbers: only these cases; None = all. Opens every file of these cases: slow on a Drive.

    Returns:
        number -> {"volume": path, "segmentation": path}, either of which may be absent.
    """
    wanted = None if numbers is None else set(numbers)
    found: dict[int, dict[str, Path]] = {}
    for root in roots:
        for (kind, number), path in named_files(source, root):
            if wanted is None or number in wanted:
                case = found.setdefault(number, {})
                if kind not in case and is_whole(path):
                    case[kind] = path
    return found


def named_files(source: Source, root: Path | str | None) -> list[tuple[Key, Path]]:
    """Return every file below `root` that is named as at the source, with what it is."""
    tree = os.walk(root) if root else ()
    paths = sorted(Path(top, name) for top, _, names in tree for name in names)
    return [(key, path) for path in paths if (key := source.key(path))]


def find_mounted(source: Source, roots: Iterable[Path | str] = MOUNTS) -> Path | None:
    """Find LiTS where it is mounted (Kaggle's input folder, Google Drive), to be read in place.

    Returns:
        The deepest folder around all LiTS files of the first root that has a volume, or None.
    """
    for root in map(Path, roots):
        kinds = _kinds_by_folder(source, root)
        if any("volume" in kind for kind in kinds.values()):
            return Path(os.path.commonpath(kinds))
    return None


def _kinds_by_folder(source: Source, root: Path) -> dict[Path, set[str]]:
    kinds: dict[Path, set[str]] = {}
    for top, folders, names in os.walk(root):
        deep = len(Path(top).relative_to(root).parts) >= MOUNT_DEPTH
        folders[:] = [] if deep else [name for name in folders if name not in NO_RAW]
        found = {key[0] for name in names if (key := source.key(Path(top, name)))}
        if found:
            kinds[Path(top)] = found
    return kinds


def missing_files(
    numbers: Iterable[int], here: dict[int, dict[str, Path]], source: Source
) -> dict[Key, RemoteFile]:
    """Return the files of these cases that are not `here`; asks only if any is missing.

    Raises:
        DownloadError: the source cannot be listed, or its layout has changed.
    """
    wanted = {number for number in numbers if len(here.get(number, {})) < 2}
    listed = source.list_files(wanted) if wanted else []
    keys = [source.key(PurePosixPath(file.name)) for file in listed]
    if listed and not any(keys):
        names = ", ".join(file.name for file in listed[:3])
        raise DownloadError(
            f"{source.name} lists no {source.form}, but {names}: its layout has changed. Download "
            f"what is there by hand, unpack it, and read it with {hint('folder source')}"
        )
    missing: dict[Key, RemoteFile] = {}
    for file, key in zip(listed, keys, strict=True):
        if key and key[1] in wanted and key[0] not in here.get(key[1], {}) and _harmless(file.name):
            size = file.size_bytes or source.typical_bytes[key[0]]
            missing.setdefault(key, replace(file, size_bytes=size))
    return dict(sorted(missing.items(), key=lambda item: item[0][1]))


def _harmless(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def checked_numbers(numbers: Iterable[int]) -> list[int]:
    """Return case numbers sorted, each once.

    Raises:
        ValueError: a number out of 0..130.
    """
    numbers = sorted(set(numbers))
    wrong = [number for number in numbers if number not in range(CASES)]
    if wrong:
        raise ValueError(f"LiTS has the cases 0..{CASES - 1}, got {', '.join(map(str, wrong))}")
    return numbers


@dataclass(frozen=True)
class Room:
    """The most that a download puts onto one disk at a time, and the space free there, in bytes."""

    folder: Path
    needed: int
    free: int


@dataclass(frozen=True)
class DownloadPlan:
    """What a download would fetch; `str(plan)` is a sentence about it.

    Attributes:
        credit: whose data it is, and its licence.
        files: the missing files, by what they are.
        present: case numbers that need no request.
        rooms: the disk of the raw files, then the disk of the prepared cases if it is another.
    """

    credit: str
    files: dict[Key, RemoteFile]
    present: tuple[int, ...]
    rooms: tuple[Room, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes to fetch, unpacked; Kaggle may send about a third of them, zipped."""
        return sum(file.size_bytes for file in self.files.values())

    def __str__(self) -> str:
        if not self.files:
            return f"nothing to fetch: {len(self.present)} cases are in {self.rooms[0].folder}"
        cases = len({number for _, number in self.files})
        gigabytes = self.size_bytes / 1e9
        minutes = max(self.size_bytes / ASSUMED_RATE / 60, 1)
        needs = " and ".join(
            f"{room.needed / 1e9:.1f} GB in {room.folder} ({room.free / 1e9:.1f} GB are free)"
            for room in self.rooms
        )
        return (
            f"{cases} cases to fetch, {len(self.present)} already here: {gigabytes:.1f} GB,"
            f" about {minutes:.0f} min at {ASSUMED_RATE / 1e6:.0f} MB/s; needs {needs};"
            f" {self.credit}"
        )

    def check(self) -> None:
        """Raise before anything is fetched if a disk cannot hold it.

        Raises:
            DownloadError: it cannot.
        """
        for room in self.rooms:
            if room.needed > room.free:
                raise DownloadError(
                    f"{room.folder} needs {room.needed / 1e9:.1f} GB for this but has"
                    f" {room.free / 1e9:.1f} GB free: free some, choose another folder or fewer"
                    " cases, or do without raw files and PNG slices, if any were to be kept"
                )


def disk_of(folder: Path) -> tuple[int, int]:
    """Return the number and the free bytes of the disk of a folder that may not exist yet."""
    folder = folder.absolute()
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return place.stat().st_dev, shutil.disk_usage(place).free


def plan_download(
    source: Source,
    numbers: Iterable[int],
    folder: Path | str,
    *,
    keep_raw: bool = False,
    mounted: Path | str | None = None,
    prepared: Path | str | None = None,
    png: bool = True,
    disk_of: Callable[[Path], tuple[int, int]] = disk_of,
) -> DownloadPlan:
    """Plan a download: what is missing and the room it takes; asks only if any is missing.

    Args:
        source: where they come from.
        numbers: case numbers.
        folder: where the raw files go.
        keep_raw: the raw files stay; otherwise at most two cases lie there at a time.
        mounted: a further folder, read in place.
        prepared: where the prepared cases go; None for the disk of `folder`.
        png: whether slices are exported too.
        disk_of: folder -> number and free bytes of its disk.

    Raises:
        ValueError: a number out of 0..130.
        DownloadError: no credentials, or the source cannot be asked.
    """
    numbers = checked_numbers(numbers)
    folder = Path(folder)
    here = present_cases(source, folder, mounted, numbers=numbers)
    present = [number for number in numbers if len(here.get(number, {})) == 2]
    files = missing_files(numbers, here, source)
    total_bytes = sum(file.size_bytes for file in files.values())
    made_bytes = int(source.prepared_share[png] * total_bytes)
    raw_bytes = _in_transit_bytes(files) + (total_bytes if keep_raw else 0)
    disk, free = disk_of(folder)
    made_disk, made_free = disk_of(Path(prepared or folder))
    if disk == made_disk:
        rooms = [Room(folder, raw_bytes + made_bytes, free)]
    else:
        rooms = [Room(folder, raw_bytes, free), Room(Path(prepared), made_bytes, made_free)]
    return DownloadPlan(source.credit, files, tuple(present), tuple(rooms))


def _in_transit_bytes(files: dict[Key, RemoteFile]) -> int:
    by_case = Counter()
    for (_, number), file in files.items():
        by_case[number] += file.size_bytes
    return 2 * max(by_case.values(), default=0)  # one being prepared, one arriving
