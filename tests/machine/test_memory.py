"""How much memory is free, on a machine and within its containers."""

import pytest

from lits_helpers.machine import memory


def test_files_that_are_only_cached_leave_a_container_its_memory(tmp_path, monkeypatch):
    for name, text in {
        "memory.max": "1000",
        "memory.current": "900",
        "memory.stat": "anon 300\ninactive_file 500\nactive_file 100\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.free_memory_bytes() == 600
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_memory_bytes() > 600


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
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    assert memory.free_memory_bytes() == 600
