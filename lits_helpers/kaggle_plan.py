"""What a download takes, said before it starts: files, gigabytes, minutes, disk."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .kaggle_client import KaggleClient
from .kaggle_errors import KaggleError
from .kaggle_files import RemoteFile, checked_numbers, present_cases, remote_files

PREPARED_SHARE = {False: 0.25, True: 0.35}  # packed cases, with PNG slices, against raw files
ASSUMED_RATE = 20e6  # bytes per second, what Colab gets


@dataclass(frozen=True)
class DownloadPlan:
    """What a download would fetch. `str(plan)` says it in words.

    Attributes:
        files: what is missing.
        present: case numbers that need no request.
        folder: where the raw files go.
        disk_bytes: what its disk must hold at the worst moment, prepared cases included if they
            go there too.
        free_bytes: what it can hold now.
        elsewhere: (folder, bytes needed, bytes free) of prepared cases on another disk.
    """

    files: tuple[RemoteFile, ...]
    present: tuple[int, ...]
    folder: Path
    disk_bytes: int
    free_bytes: int
    elsewhere: tuple[Path, int, int] | None = None

    @property
    def bytes(self) -> int:
        """Bytes to fetch, unpacked; Kaggle may send them zipped to about a third."""
        return sum(file.bytes for file in self.files)

    def __str__(self) -> str:
        if not self.files:
            return f"nothing to fetch: {len(self.present)} cases are in {self.folder}"
        cases = len({file.number for file in self.files})
        minutes = self.bytes / ASSUMED_RATE / 60
        there = (
            f", and {self.elsewhere[1] / 1e9:.1f} GB in {self.elsewhere[0]}"
            if self.elsewhere
            else ""
        )
        return (
            f"{cases} cases to fetch, {len(self.present)} already here: {self.bytes / 1e9:.1f} GB,"
            f" about {max(minutes, 1):.0f} min at {ASSUMED_RATE / 1e6:.0f} MB/s;"
            f" needs {self.disk_bytes / 1e9:.1f} GB of disk,"
            f" {self.free_bytes / 1e9:.1f} GB are free{there}"
        )

    def check(self) -> None:
        """Stop before anything is fetched if the disk cannot hold it.

        Raises:
            KaggleError: it cannot.
        """
        places = [(self.folder, self.disk_bytes, self.free_bytes)]
        places += [self.elsewhere] if self.elsewhere else []
        for folder, needed, free in places:
            if needed > free:
                raise KaggleError(
                    f"{folder} needs {needed / 1e9:.1f} GB for this but has {free / 1e9:.1f} GB"
                    " free: free some, choose another folder or fewer cases, or do without raw"
                    " files and PNG slices, if any were to be kept"
                )


def plan_download(
    numbers: Iterable[int],
    folder: Path | str,
    *,
    keep_raw: bool = False,
    mounted: Path | str | None = None,
    client: KaggleClient | None = None,
    prepared: Path | str | None = None,
    png: bool = True,
) -> DownloadPlan:
    """Say what fetching these cases takes. Kaggle is asked only if something is missing.

    Args:
        numbers: case numbers.
        folder: where the raw files go.
        keep_raw: the raw files stay; otherwise at most two cases lie there at a time.
        mounted: a further folder, read in place.
        prepared: where the prepared cases go; None for the disk of `folder`.
        png: whether slices are exported too.

    Raises:
        ValueError: a number out of 0..130.
        KaggleError: no credentials, or Kaggle cannot be asked.
    """
    numbers, folder = checked_numbers(numbers), Path(folder)
    here = present_cases(folder, mounted, numbers=numbers)
    present = [number for number in numbers if len(here.get(number, {})) == 2]
    missing = [number for number in numbers if number not in present]
    remote = remote_files(missing, client or KaggleClient()) if missing else {}
    files = [f for n in missing for kind, f in remote[n].items() if kind not in here.get(n, {})]
    needed, result = _raw_bytes(files, keep_raw), _prepared_bytes(files, png)
    known = tuple(files), tuple(present), folder
    if prepared and _disk_of(Path(prepared)) != _disk_of(folder):
        there = Path(prepared), result, _free_bytes(Path(prepared))
        return DownloadPlan(*known, needed, _free_bytes(folder), there)
    return DownloadPlan(*known, needed + result, _free_bytes(folder))


def _prepared_bytes(files: Sequence[RemoteFile], png: bool) -> int:
    return int(PREPARED_SHARE[png] * sum(file.bytes for file in files))


def _raw_bytes(files: Sequence[RemoteFile], keep_raw: bool) -> int:
    total = sum(file.bytes for file in files)
    by_case: dict[int, int] = {}
    for file in files:
        by_case[file.number] = by_case.get(file.number, 0) + file.bytes
    in_transit = 2 * max(by_case.values(), default=0)  # one being prepared, one arriving
    return in_transit + (total if keep_raw else 0)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _disk_of(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
