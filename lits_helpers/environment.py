"""Where this runs: Colab or not, Google Drive, secrets, the device, memory and disk."""

import logging
import os
import platform
import shutil
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .machine import available_cores
from .settings import hint, named_device

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DRIVE_ROOT = Path("/content/drive")
GPU_HINT = "no GPU: in Colab choose Runtime > Change runtime type > T4 GPU, then Run all again"
AVX512_BF16_FLAGS = ("avx512_bf16", "amx_bf16")  # CPUs on which bfloat16 beats float32


def in_colab() -> bool:
    """Say whether this Python runs inside Google Colab."""
    return "google.colab" in sys.modules


def show_log() -> None:
    """Let this module's messages appear in the notebook (Colab hides them otherwise)."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("lits_helpers").setLevel(logging.INFO)


def mount_drive() -> Path | None:
    """Mount Google Drive and return the project's folder on it.

    Returns:
        ``MyDrive/lits``; None, with a logged reason, outside Colab or where Drive cannot be
        used (refused, timed out, not writable): the run then goes on with the local disk.
    """
    if not in_colab():
        logger.info("Google Drive is mounted in Colab only; results stay on this machine")
        return None
    root = DRIVE_ROOT / "MyDrive" / "lits"
    return root if _mounted(root) else None


@cache  # the user is asked once, also by a later step
def _mounted(root: Path) -> bool:
    """Mount Drive, make the folder and say whether both went well."""
    from google.colab import drive  # exists in Colab only

    try:
        drive.mount(str(DRIVE_ROOT))
        root.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # MessageError when refused, ValueError after a timeout, OSError
        logger.warning(
            "Google Drive is not in use (%s): results stay on this machine and are lost with it; "
            "to be asked again: Runtime > Restart session, then Run all",
            error,
        )
        return False
    return True


def colab_secret(name: str) -> str | None:
    """Return a Colab secret, or None where it is missing, denied or this is not Colab."""
    if not in_colab():
        return None
    from google.colab import userdata

    try:
        return userdata.get(name) or None
    except Exception as error:  # SecretNotFoundError, NotebookAccessError, TimeoutException
        logger.info("Colab secret %s: %s", name, type(error).__name__)
        return None


def choose_device(name: "torch.device | str | None" = None) -> "torch.device":
    """Return the named torch device, else that of LITS_DEVICE, else the best: CUDA, MPS, CPU.

    Raises:
        ValueError: the named device is unknown or absent.
    """
    import torch

    if name := name or named_device():
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            where = hint("device")
            raise ValueError(f"device {str(name)!r} ({where}) is not usable: {error}") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def use_available_cores() -> None:
    """Let torch compute with at most one thread for each core that this process may use.

    torch itself counts all cores of the machine, also in a container that may use fewer. What the
    user set in OMP_NUM_THREADS stays.
    """
    import torch

    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def amp_dtype(device: "torch.device") -> "torch.dtype":
    """Return the number format in which a device trains fastest without losing accuracy.

    bfloat16 where it is native (Ampere and later, CPUs with AVX512-BF16 or AMX), float16 on older
    GPUs (a T4), float32 elsewhere.
    """
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in AVX512_BF16_FLAGS)


def report(device: "torch.device | str | None" = None) -> str:
    """Return a line of versions, device, memory and disk; in Colab without a GPU a hint follows.

    Without a device, where no network is used, torch stays out: its import takes seconds.
    """
    packages = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "torchvision", "numpy")
    )
    free = f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB of disk free"
    places = "; ".join((_device_words(device), _memory_words(), free))
    line = f"Python {platform.python_version()}, {packages}; {places}"
    return f"{line}\n{GPU_HINT}" if in_colab() and str(device) == "cpu" else line


def _device_words(device: "torch.device | str | None") -> str:
    cores = f"{available_cores()} cores"
    if device is None:
        return cores
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"
    return f"{device.type}, {cores}"


def _memory_words() -> str:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return "memory unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB of memory"
