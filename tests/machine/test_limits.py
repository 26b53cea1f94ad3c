"""What a process may use of cores and memory, on a machine and within its containers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.repository import ROOT

from lits_helpers.machine import limits


def test_files_that_are_only_cached_leave_a_container_its_memory(tmp_path, monkeypatch):
    for name, text in {
        "memory.max": "1000",
        "memory.current": "900",
        "memory.stat": "anon 300\ninactive_file 500\nactive_file 100\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(limits, "CONTAINER", tmp_path)
    assert limits.free_memory_bytes() == 600
    (tmp_path / "memory.max").write_text("max")
    assert limits.free_memory_bytes() > 600


@pytest.mark.parametrize(
    ("line", "group", "names"),
    [
        ("0::/slurm/job_7/step_0", "slurm/job_7", ("max", "current", "inactive_file")),
        (
            "9:memory:/slurm/job_7",
            "memory/slurm",
            ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_memory_of_a_job_counts_wherever_it_is_stated(
    tmp_path, monkeypatch, line, group, names
):
    limit, used, cached = names
    (tmp_path / "own").write_text(f"3:cpuset:/\n{line}\n")
    (tmp_path / group).mkdir(parents=True)
    (tmp_path / group / f"memory.{limit}").write_text("1000\n")
    (tmp_path / group / f"memory.{used}").write_text("900\n")
    (tmp_path / group / "memory.stat").write_text(f"cache 1\n{cached} 500\n")
    monkeypatch.setattr(limits, "CONTAINER", tmp_path)
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "own")
    assert limits.free_memory_bytes() == 600


CPU_FILES = {  # file of a control group -> what it states
    "version 2": {"cpu.max": "250000 100000\n"},
    "version 1": {"cpu.cfs_quota_us": "250000\n", "cpu.cfs_period_us": "100000\n"},
    "version 2, half a core": {"cpu.max": "50000 100000\n"},
    "version 2, no limit": {"cpu.max": "max 100000\n"},
    "version 1, no limit": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"},
    "nothing": {},
}


@pytest.fixture
def eight_cores(tmp_path, monkeypatch):
    """Return the folder of control groups of a machine with eight cores and no quota."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(limits, "CONTAINER", tmp_path / "groups")
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "own")
    return tmp_path / "groups"


@pytest.mark.parametrize(("stated", "cores"), list(zip(CPU_FILES, (2, 2, 1, 8, 8, 8), strict=True)))
@pytest.mark.parametrize(
    ("line", "folder"),
    [(None, "."), ("0::/job/step", "job"), ("4:cpu,cpuacct:/job/step", "cpu,cpuacct/job")],
)
def test_a_quota_counts_in_whole_cores_wherever_it_is_stated(
    eight_cores, stated, cores, line, folder
):
    (eight_cores / folder).mkdir(parents=True)
    for name, text in CPU_FILES[stated].items():
        (eight_cores / folder / name).write_text(text)
    if line:
        (eight_cores.parent / "own").write_text(f"9:memory:/elsewhere\n{line}\n")
    assert limits.available_cores() == cores


@pytest.mark.parametrize(("given", "cores"), [("3", 3), ("64", 8), ("", 8), ("many", 8), ("0", 1)])
def test_a_slurm_task_has_the_cores_it_was_given(eight_cores, monkeypatch, given, cores):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert limits.available_cores() == cores


WITHOUT_PROC = """
import os
from lits_helpers import find_cases, prepare, segment, write_phantom_dataset
from lits_helpers.machine import available_cores, free_memory_bytes
if __name__ == "__main__":
    assert not os.path.exists("/proc/self")
    assert available_cores() >= 1
    assert free_memory_bytes() > 0
    write_phantom_dataset("raw", cases=2, shape=(12, 40, 48), workers=0)
    assert prepare(find_cases("raw"), "prepared", workers=2).prepared == ["0", "1"]
    ct = find_cases("raw")[0].volume
    found = segment(ct, tumor=None)
    assert found.labels.shape == found.volume.hu.shape
"""


@pytest.mark.slow
def test_without_proc_phantoms_are_made_prepared_and_segmented(tmp_path):
    hide = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = "mount -t tmpfs none /proc && exec "
    if (
        not shutil.which("unshare")
        or subprocess.run(
            [*hide, "sh", "-c", mount + "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this machine lets no process hide /proc from itself")
    (tmp_path / "work.py").write_text(WITHOUT_PROC)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*hide, "sh", "-c", f"{mount}{sys.executable} work.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_proc_the_folder_of_groups_and_the_affinity_count(eight_cores, monkeypatch):
    plain = Path.read_text

    def read_text(path, *arguments, **options):
        if path.is_relative_to("/proc"):
            raise FileNotFoundError(path)
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(limits, "OWN_GROUPS", Path("/proc/self/cgroup"))
    assert limits.available_cores() == 8
    assert limits.free_memory_bytes() == 4 * 2**30
    eight_cores.mkdir()
    (eight_cores / "cpu.max").write_text("150000 100000")
    assert limits.available_cores() == 1
