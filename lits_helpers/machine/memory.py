"""How much memory may still be used: the machine's, or a container's or job's if that is less."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CONTAINER = Path("/sys/fs/cgroup")  # where Linux states the memory of containers and jobs
OWN_GROUPS = Path("/proc/self/cgroup")  # the groups that this process belongs to
# limit, use, and the entry of memory.stat that the system gives back when needed: versions 2, 1
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory_bytes() -> int:
    """Return the memory that may still be used; 4 GiB where nothing states it (no Linux)."""
    free = [_group_bytes(group, *names) for group in _own_groups() for names in GROUP_FILES]
    known = [value for value in (_meminfo_bytes(), *free) if value is not None]
    return min(known, default=4 * 2**30)


def _meminfo_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None


def _own_groups() -> Iterator[Path]:
    """Yield the folders that may state this process's limits: of its groups and all above them."""
    yield CONTAINER
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # version 2, or version 1
            inside = PurePosixPath(path.lstrip("/"))
            for group in (inside, *inside.parents):
                yield CONTAINER / controllers / group


def _group_bytes(group: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        free = int((group / limit).read_text()) - int((group / used).read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return free + next(int(value) for name, value in rows if name == cached)
    except (OSError, ValueError, StopIteration):  # no such file, or "max"
        return None
