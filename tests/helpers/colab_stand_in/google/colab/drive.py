"""Google Drive as Colab mounts it: a test sets `answer` to what the user does in the browser."""

from pathlib import Path

from .errors import MessageError

ACCEPTED, REFUSED, TIMED_OUT = "accepted", "refused", "timed out"

answer = ACCEPTED
dialogues = 0  # how often the user was asked


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Mount as the user's `answer` wants it."""
    global dialogues
    home = Path(mountpoint) / "MyDrive"
    if home.is_dir() and not force_remount:
        print(f"Drive already mounted at {mountpoint}")
        return
    dialogues += 1
    if answer == REFUSED:
        raise MessageError("Error: credential propagation was unsuccessful")
    if answer == TIMED_OUT:
        raise ValueError("mount failed: timeout during initial read of root folder")
    home.mkdir(parents=True)
    print(f"Mounted at {mountpoint}")
