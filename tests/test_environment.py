"""The machine: device, number format, log and report, outside Colab."""

import logging
import sys

import pytest
import torch
from helpers.grey_models import SHAPE, write_ct
from helpers.logs import logged

import lits_helpers
from lits_helpers import environment
from lits_helpers.environment import GPU_HINT, amp_dtype, choose_device, report, show_log

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _outside_colab(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


@pytest.fixture
def log_left_alone():
    root, ours = logging.getLogger(), logging.getLogger("lits_helpers")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


# --- device --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_fastest_device_is_chosen(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("LITS_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == choose_device("") == torch.device(expected)


def test_named_device_is_taken(monkeypatch):
    monkeypatch.setenv("LITS_DEVICE", "quantum")
    assert choose_device("cpu") == CPU  # an argument or option wins over its variable


def test_everything_obeys_the_variable(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LITS_DEVICE", "cpu")
    assert choose_device() == CPU
    made = lits_helpers.segment(write_ct(tmp_path / "ct.nii"), tumor=None)  # as notebook 04 does
    assert made.labels.shape == SHAPE


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_unusable_device_is_named(name):
    with pytest.raises(ValueError, match=rf"device '{name}' \(device= or LITS_DEVICE\) is not"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_bfloat16_is_used_where_the_gpu_has_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert amp_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", torch.bfloat16),
        ("flags : amx_bf16 amx_tile", torch.bfloat16),
        ("flags : fpu avx2", torch.float32),
    ],
)
def test_bfloat16_is_used_where_the_cpu_has_it(monkeypatch, flags, expected):
    monkeypatch.setattr(environment.Path, "read_text", lambda *args, **options: flags)
    assert amp_dtype(CPU) == expected


def test_cpu_without_proc_works_in_float32(monkeypatch):
    def absent(*args, **options):
        raise FileNotFoundError

    monkeypatch.setattr(environment.Path, "read_text", absent)
    assert amp_dtype(CPU) == torch.float32


@pytest.mark.gpu
def test_a_present_gpu_is_chosen_and_reported():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    assert choose_device().type == "cuda"
    assert torch.cuda.get_device_name() in report("cuda")


# --- report and log ------------------------------------------------------------------------------


def test_report_is_one_line_with_versions_device_memory_and_disk():
    words = report(CPU)
    assert "\n" not in words
    assert GPU_HINT not in words
    for part in ("Python 3.", f"torch {torch.__version__.split('+')[0]}", "torchvision", "numpy"):
        assert part in words
    for part in ("cpu, ", "cores", "of memory", "GB of disk free"):
        assert part in words


def test_own_messages_appear_and_those_of_others_do_not(capsys, log_left_alone):
    logging.basicConfig(level=logging.ERROR, force=True)  # as a notebook finds it
    show_log()
    logging.getLogger("lits_helpers.preprocess").info("12 cases prepared")
    logging.getLogger("matplotlib").info("loading fonts")
    logging.getLogger("matplotlib").warning("no such font")
    assert capsys.readouterr().out == "12 cases prepared\nno such font\n"


def test_outside_colab_there_is_no_drive_and_no_secret(caplog):
    with caplog.at_level(logging.INFO, "lits_helpers"):
        assert environment.mount_drive() is None
    assert logged(caplog, "Drive", "Colab only")
    assert environment.colab_secret("KAGGLE_KEY") is None


@pytest.mark.parametrize(
    ("given", "quota", "threads"), [(None, 3, 3), (None, 1, 1), (None, 64, 8), ("7", 3, 8)]
)
def test_torch_computes_with_a_thread_a_core_unless_the_user_said_otherwise(
    monkeypatch, given, quota, threads
):
    counts = [8]  # what torch took from the machine, or from the user's variable
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(environment, "available_cores", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    environment.use_available_cores()
    assert counts[-1] == threads
