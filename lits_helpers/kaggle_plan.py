"""What a download takes, said before it starts: files, gigabytes, minutes, disk."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .kaggle_client import KaggleClient
from .kaggle_errors import KaggleError
from .kaggle_files import RemoteFile, checked_numbers, missing_files, present_cases

PREPARED_SHARE = {False: 0.25, True: 0.35}  # packed cases, with PNG slices, against raw files
ASSUMED_RATE = 20e6  # bytes per second, what Colab gets


@dataclass(frozen=True)
class Room:
    """What one disk must hold for a download at the worst moment, and can hold now, in bytes."""

    folder: Path
    needed: int
    free: int


@dataclass(frozen=True)
class DownloadPlan:
    """What a download would fetch. `str(plan)` says it in words.

    Attributes:
        files: what is missing.
        present: case numbers that need no request.
        rooms: on the disk of the raw files; then on that of the prepared cases, if it is another.
    """

    files: tuple[RemoteFile, ...]
    present: tuple[int, ...]
    rooms: tuple[Room, ...]

    @property
    def bytes(self) -> int:
        """Bytes to fetch, unpacked; Kaggle may send them zipped to about a third."""
        return sum(file.bytes for file in self.files)

    def __str__(self) -> str:
        if not self.files:
            return f"nothing to fetch: {len(self.present)} cases are in {self.rooms[0].folder}"
        cases = len({file.number for file in self.files})
        minutes = max(self.bytes / ASSUMED_RATE / 60, 1)
        needs = " and ".join(
            f"{room.needed / 1e9:.1f} GB in {room.folder} ({room.free / 1e9:.1f} GB are free)"
            for room in self.rooms
        )
        return (
            f"{cases} cases to fetch, {len(self.present)} already here: {self.bytes / 1e9:.1f} GB,"
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
    """Return the number of the disk that a folder, there or not yet, is on, and its free bytes."""
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
    """Say what fetching these cases takes. Kaggle is asked only if something is missing.

    Args:
        numbers: case numbers.
        folder: where the raw files go.
        keep_raw: the raw files stay; otherwise at most two cases lie there at a time.
        mounted: a further folder, read in place.
        prepared: where the prepared cases go; None for the disk of `folder`.
        png: whether slices are exported too.
        disk_of: tells disks apart and says what is free there.

    Raises:
        ValueError: a number out of 0..130.
        KaggleError: no credentials, or Kaggle cannot be asked.
    """
    numbers, folder = checked_numbers(numbers), Path(folder)
    here = present_cases(folder, mounted, numbers=numbers)
    present = [number for number in numbers if len(here.get(number, {})) == 2]
    files = missing_files(numbers, here, client or KaggleClient())
    raw_bytes = _raw_bytes(files, keep_raw)
    made_bytes = int(PREPARED_SHARE[png] * sum(file.bytes for file in files))
    disk, free = disk_of(folder)
    made_disk, made_free = disk_of(Path(prepared or folder))
    if disk == made_disk:
        rooms = [Room(folder, raw_bytes + made_bytes, free)]
    else:
        rooms = [Room(folder, raw_bytes, free), Room(Path(prepared), made_bytes, made_free)]
    return DownloadPlan(tuple(files), tuple(present), tuple(rooms))


def _raw_bytes(files: Sequence[RemoteFile], keep_raw: bool) -> int:
    total = sum(file.bytes for file in files)
    by_case = Counter()
    for file in files:
        by_case[file.number] += file.bytes
    in_transit = 2 * max(by_case.values(), default=0)  # one being prepared, one arriving
    return in_transit + (total if keep_raw else 0)
