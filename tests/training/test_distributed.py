"""Several processes share every batch; the slow tests start two gloo processes under torchrun."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.repository import ROOT

from lits_helpers.training.distributed import Ranks
from lits_helpers.training.run_folder import read_history

WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [{repository!r}, {tests!r}]
from helpers import distributed_worker
distributed_worker.{job}(Path({folder!r}))
"""


@pytest.mark.parametrize(("count", "world"), [(10, 1), (10, 2), (10, 4), (7, 3), (1, 2)])
def test_every_slice_of_a_batch_goes_to_exactly_one_rank(count, world):
    batch = torch.arange(100, 100 + count)
    shares = [Ranks(rank, world).share(batch) for rank in range(world)]
    seen = torch.cat([part for part, weight in shares if weight])
    assert sorted(seen.tolist()) == batch.tolist()


@pytest.mark.parametrize(("count", "world"), [(10, 2), (10, 4), (7, 3), (1, 2)])
def test_weighted_average_over_ranks_is_the_mean_over_the_batch(count, world):
    values = torch.arange(100.0) ** 2
    batch = torch.arange(count)
    shares = [Ranks(rank, world).share(batch) for rank in range(world)]
    average = sum(weight * values[part].mean() for part, weight in shares) / world
    assert average.item() == pytest.approx(values[:count].mean().item())


def test_one_process_needs_no_process_group():
    ranks = Ranks()
    assert ranks.writes
    assert ranks.highest(2, torch.device("cpu")) == 2
    assert ranks.sum(torch.ones(2)).tolist() == [1, 1]
    network = torch.nn.Linear(1, 1)
    assert ranks.wrap(network, torch.device("cpu")) is network


def test_ranks_that_read_different_slices_stop_before_one_waits_for_another(monkeypatch):
    other = {"training": 9, "validation": 4}  # what the other rank read

    def highest(_ranks, number, _device):
        theirs = other["training" if abs(number) > 5 else "validation"]
        return max(number, theirs if number > 0 else -theirs)

    monkeypatch.setattr(Ranks, "highest", highest)
    ranks, device = Ranks(0, 2), torch.device("cpu")
    ranks.require_same_slices([9, 4], device)
    with pytest.raises(ValueError, match="numbers of slices, 8 to 9"):
        ranks.require_same_slices([8, 4], device)


def start(job, folder, processes=2):
    """Start `job` of distributed_worker.py on so many gloo processes."""
    script = folder / f"{job}.py"
    script.write_text(
        WORKER.format(repository=str(ROOT), tests=str(ROOT / "tests"), job=job, folder=str(folder))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )


def finished(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    finished(start("gradients", tmp_path))
    finished(start("gradients", tmp_path, processes=1))
    two, one = (torch.load(tmp_path / f"gradients_{n}.pth", weights_only=True) for n in (2, 1))
    for name, gradient in one.items():
        assert torch.allclose(two[name], gradient, rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
def test_two_processes_see_every_slice_once_and_validate_as_one(tmp_path):
    """Ten validation slices and nine training slices divide evenly by neither 2 nor the batch."""
    output = finished(start("whole_training", tmp_path))
    assert output.count("cached in a memory-mapped file") == 4  # two parts, on two processes
    assert not (tmp_path / "run" / "cache").exists()  # the training is finished
    seen = [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(2)]
    parts = [part for rank in seen for part, weight in rank if weight]
    assert sorted(itertools.chain(*parts)) == sorted(2 * list(range(9)))  # two epochs
    weights = [[weight for _, weight in rank] for rank in seen]  # batches of four, four and one
    assert weights == [2 * [1.0, 1.0, 2.0], 2 * [1.0, 1.0, 0.0]]
    checked = json.loads((tmp_path / "validation.json").read_text())
    assert checked["two"] == pytest.approx(checked["one"], abs=1e-6)
    assert len(read_history(tmp_path / "run" / "history.csv")) == 2


@pytest.mark.slow
def test_two_processes_resume_what_one_began(tmp_path):
    finished(start("first_half", tmp_path, processes=1))
    output = finished(start("whole_training", tmp_path))
    assert "resuming with processes 2 instead of 1" in output
    rows = read_history(tmp_path / "run" / "history.csv")
    assert [row["steps"] for row in rows] == [3, 6]


@pytest.mark.slow
def test_killing_one_process_ends_the_other_within_a_minute(tmp_path):
    process = start("endless_training", tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid_1").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    os.kill(int((tmp_path / "pid_1").read_text()), signal.SIGKILL)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - began < 60
    other = int((tmp_path / "pid_0").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)
