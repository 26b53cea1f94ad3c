"""Locks that keep the processes of one machine out of each other's files; they end with them."""

import hashlib
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

UNGUARDED = 'a worker process runs the whole script: call this below `if __name__ == "__main__":`'


@contextmanager
def locked(path: str | os.PathLike, refusal: str | None = None) -> Iterator[None]:
    """Hold a lock against other processes of this machine, where locks exist.

    Args:
        path: the lock; its folder is made if absent.
        refusal: what to do when another process has it; None waits until it is free.

    Raises:
        OSError: another process has it; the message ends with `refusal`.
    """
    with _held(Path(path), Path(path).parent, refusal):
        yield


@contextmanager
def locked_folder(
    folder: str | os.PathLike, refusal: str | None = None, purpose: str = ""
) -> Iterator[None]:
    """Lock a folder of data as `locked` does; the lock file lies in the system's temporary folder.

    Args:
        folder: it may be absent, or read-only.
        refusal: as for `locked`.
        purpose: locks for different purposes do not exclude each other.

    Raises:
        OSError: as `locked`.
    """
    name = f"{Path(folder).resolve()} {purpose}".encode()
    place = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    with _held(Path(tempfile.gettempdir()) / f"lits-{place}.lock", Path(folder), refusal):
        yield


@contextmanager
def _held(path: Path, folder: Path, refusal: str | None) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(_opened(path))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if refusal is not None:
                raise OSError(f"another process works in {folder}: {refusal}") from error
            if getattr(multiprocessing.current_process(), "_inheriting", False):
                # a worker that imports its parent's script again: both would wait for ever
                raise RuntimeError(UNGUARDED) from error
            logger.info("waiting for the process that works in %s", folder)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):
            # Windows; a disk without locks; or one that cannot be written, which the work will tell
            pass
        yield


def _opened(path: str | os.PathLike) -> IO:
    """Open a lock file to read and write, as NFS wants it, or only to read where that is denied."""
    try:
        return open(path, "a+")
    except PermissionError:
        return open(path)
