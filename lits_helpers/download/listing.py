"""Which LiTS file lies where (on Kaggle, in a folder, on a mount), and what fetching takes."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..settings import hint
from ..volumes import parse_name
from .archives import is_whole
from .client import KaggleClient, KaggleError

FIRST_SET = "andrewmvd/liver-tumor-segmentation"  # all segmentations, volumes 0-50
SECOND_SET = "andrewmvd/liver-tumor-segmentation-part-2"  # volumes 51-130
FIRST_SET_VOLUMES = 51
CASES = 131
TYPICAL_BYTES = {"volume": 300_000_000, "segmentation": 110_000_000}  # where a listing has no size
MOUNTS = ("/kaggle/input", "/content/drive/MyDrive/lits", "/content/drive/MyDrive/LiTS")
MOUNT_DEPTH = 4  # levels of folders below a root that are searched
NO_RAW = ("images", "masks", "runs")  # tens of thousands of files, slow to list on a Drive
PREPARED_SHARE = {False: 0.25, True: 0.35}  # size of prepared cases by raw size; True: with PNG
ASSUMED_RATE = 20e6  # bytes per second, what Colab gets


@dataclass(frozen=True)
class RemoteFile:
    """A file on Kaggle."""

    dataset: str  # "owner/name"
    name: str  # within the data set, with folders
    number: int  # of the case
    kind: str  # "volume" or "segmentation"
    size_bytes: int  # unpacked


def present_cases(
    *roots: Path | str | None, numbers: Iterable[int] | None = None
) -> dict[int, dict[str, Path]]:
    """Find whole LiTS files by name anywhere below `roots`; the first root that has one wins.

    Args:
        roots: folders; None and absent ones hold nothing.
        numbers: only these cases; None = all. Opens every file of these cases: slow on a Drive.

    Returns:
        number -> {"volume": path, "segmentation": path}, either of which may be absent.
    """
    wanted = None if numbers is None else set(numbers)
    found: dict[int, dict[str, Path]] = {}
    for root in roots:
        for path in named_files(root):
            kind, number = parse_name(path.name)
            if wanted is None or number in wanted:
                case = found.setdefault(number, {})
                if kind not in case and is_whole(path):
                    case[kind] = path
    return found


def named_files(root: Path | str | None) -> list[Path]:
    """Return every file below `root` that is named as LiTS names them."""
    if root is None:
        return []
    tree = os.walk(root)
    return sorted(Path(top, name) for top, _, names in tree for name in names if parse_name(name))


def find_mounted(roots: Iterable[Path | str] = MOUNTS) -> Path | None:
    """Find LiTS where it is mounted (Kaggle's input folder, Google Drive), to be read in place.

    Returns:
        The deepest folder around all LiTS files of the first root that has a volume, or None.
    """
    for root in map(Path, roots):
        kinds = _kinds_by_folder(root)
        if any("volume" in kind for kind in kinds.values()):
            return Path(os.path.commonpath(kinds))
    return None


def _kinds_by_folder(root: Path) -> dict[Path, set[str]]:
    kinds: dict[Path, set[str]] = {}
    for top, folders, names in os.walk(root):
        deep = len(Path(top).relative_to(root).parts) >= MOUNT_DEPTH
        folders[:] = [] if deep else [name for name in folders if name not in NO_RAW]
        found = {parse_name(name)[0] for name in names if parse_name(name)}
        if found:
            kinds[Path(top)] = found
    return kinds


def missing_files(
    numbers: Iterable[int], here: dict[int, dict[str, Path]], client: KaggleClient
) -> list[RemoteFile]:
    """Return the files of these cases that are not `here`; asks Kaggle only if any is missing.

    Raises:
        KaggleError: a set cannot be listed, or its layout has changed.
    """
    wanted = {number for number in numbers if len(here.get(number, {})) < 2}
    datasets = [FIRST_SET] if wanted else []
    if any(number >= FIRST_SET_VOLUMES for number in wanted):
        datasets.append(SECOND_SET)
    listed = [(dataset, file) for dataset in datasets for file in client.files(dataset)]
    parsed = [parse_name(PurePosixPath(file.name).name) for _, file in listed]
    if listed and not any(parsed):
        names = ", ".join(file.name for _, file in listed[:3])
        raise KaggleError(
            f"Kaggle lists no volume-N.nii and no segmentation-N.nii, but "
            f"{names}: its layout has changed. Download what is there by hand, "
            f"unpack it, and read it with {hint('folder source')}"
        )
    missing: dict[tuple[str, int], RemoteFile] = {}
    for (dataset, file), key in zip(listed, parsed, strict=True):
        if key and key[1] in wanted and key[0] not in here.get(key[1], {}) and _harmless(file.name):
            kind, number = key
            size = file.size_bytes or TYPICAL_BYTES[kind]
            missing.setdefault(key, RemoteFile(dataset, file.name, number, kind, size))
    return sorted(missing.values(), key=lambda file: file.number)


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
        files: the missing files.
        present: case numbers that need no request.
        rooms: the disk of the raw files, then the disk of the prepared cases if it is another.
    """

    files: tuple[RemoteFile, ...]
    present: tuple[int, ...]
    rooms: tuple[Room, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes to fetch, unpacked; Kaggle may send them zipped to about a third."""
        return sum(file.size_bytes for file in self.files)

    def __str__(self) -> str:
        if not self.files:
            return f"nothing to fetch: {len(self.present)} cases are in {self.rooms[0].folder}"
        cases = len({file.number for file in self.files})
        gigabytes = self.size_bytes / 1e9
        minutes = max(self.size_bytes / ASSUMED_RATE / 60, 1)
        needs = " and ".join(
            f"{room.needed / 1e9:.1f} GB in {room.folder} ({room.free / 1e9:.1f} GB are free)"
            for room in self.rooms
        )
        return (
            f"{cases} cases to fetch, {len(self.present)} already here: {gigabytes:.1f} GB,"
            f" about {minutes:.0f} min at {ASSUMED_RATE / 1e6:.0f} MB/s; needs {needs}"
        )

    def check(self) -> None:
        """Stop before anything is fetched if a disk cannot hold it.

        Raises:
            KaggleError: it cannot.
        """
        for room in self.rooms:
            if room.needed > room.free:
                raise KaggleError(
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
    numbers: Iterable[int],
    folder: Path | str,
    *,
    keep_raw: bool = False,
    mounted: Path | str | None = None,
    client: KaggleClient | None = None,
    prepared: Path | str | None = None,
    png: bool = True,
    disk_of: Callable[[Path], tuple[int, int]] = disk_of,
) -> DownloadPlan:
    """Plan a download: what is missing and the room it takes; asks Kaggle only if any is missing.

    Args:
        numbers: case numbers.
        folder: where the raw files go.
        keep_raw: the raw files stay; otherwise at most two cases lie there at a time.
        mounted: a further folder, read in place.
        prepared: where the prepared cases go; None for the disk of `folder`.
        png: whether slices are exported too.
        disk_of: folder -> number and free bytes of its disk.

    Raises:
        ValueError: a number out of 0..130.
        KaggleError: no credentials, or Kaggle cannot be asked.
    """
    numbers = checked_numbers(numbers)
    folder = Path(folder)
    here = present_cases(folder, mounted, numbers=numbers)
    present = [number for number in numbers if len(here.get(number, {})) == 2]
    files = missing_files(numbers, here, client or KaggleClient())
    total_bytes = sum(file.size_bytes for file in files)
    made_bytes = int(PREPARED_SHARE[png] * total_bytes)
    raw_bytes = _in_transit_bytes(files) + (total_bytes if keep_raw else 0)
    disk, free = disk_of(folder)
    made_disk, made_free = disk_of(Path(prepared or folder))
    if disk == made_disk:
        rooms = [Room(folder, raw_bytes + made_bytes, free)]
    else:
        rooms = [Room(folder, raw_bytes, free), Room(Path(prepared), made_bytes, made_free)]
    return DownloadPlan(tuple(files), tuple(present), tuple(rooms))


def _in_transit_bytes(files: Sequence[RemoteFile]) -> int:
    by_case = Counter()
    for file in files:
        by_case[file.number] += file.size_bytes
    return 2 * max(by_case.values(), default=0)  # one being prepared, one arriving
