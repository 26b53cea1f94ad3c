"""Find how many cores and how much memory this process may use, in a container or job too."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CONTAINER = Path("/sys/fs/cgroup")  # where Linux states the limits of containers and jobs
OWN_GROUPS = Path("/proc/self/cgroup")  # the groups that this process belongs to
# limit, use, and the entry of memory.stat that the system gives back when needed: versions 2, 1
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_cores() -> int:
    """Return the number of CPU cores that this process may use, at least one.

    The fewest of: the machine's, those of its affinity (`taskset`), of its Slurm task, and the
    quotas of its control groups.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = [len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1]
    if (given := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdecimal():
        cores.append(int(given))
    cores += [quota for quota in map(_quota, _own_groups("cpu")) if quota is not None]
    return max(1, min(cores))


def _quota(group: Path) -> int | None:
    """Return the whole cores of a control group's quota, version 2 or 1; None without one."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            return int(quota) // int(period) if int(quota) > 0 else None
        except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            continue
    return None


def free_memory_bytes() -> int:
    """Return the memory that may still be used; 4 GiB where nothing states it (no Linux)."""
    free = [_group_bytes(group, *names) for group in _own_groups("memory") for names in GROUP_FILES]
    known = [value for value in (_meminfo_bytes(), *free) if value is not None]
    return min(known, default=4 * 2**30)


def _meminfo_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None


def _own_groups(controller: str) -> Iterator[Path]:
    """Yield the folders that may state this process's limits: of its groups and all above them."""
    yield CONTAINER
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in (controllers or controller).split(","):  # version 1; version 2 names none
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
