"""Files that appear whole or not at all."""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".part-"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`, renamed to `path` when the block ends without an error.

    The temporary name keeps the suffix (libraries choose the format by it). After an error whatever
    was written is removed and an existing `path` is untouched.

    Args:
        path: final name of a file or folder; its folder is made if absent.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)  # os.replace cannot replace a folder that holds files
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: str | os.PathLike, refusal: str | None = None) -> Iterator[None]:
    """Keep other processes of this machine that ask for the same lock out, where locks exist.

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
    """Do as `locked` for a folder of data; the lock lies among the system's temporary files.

    Args:
        folder: it may be absent, or read-only.
        refusal: as for `locked`.
        purpose: locks for different ones do not exclude each other.

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
            stream = stack.enter_context(open(path, "a"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if refusal is not None:
                raise OSError(f"another process works in {folder}: {refusal}") from error
            logger.info("waiting for the process that works in %s", folder)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows; no locks on this disk; or nothing can be written,
            pass  # which whoever writes there will say
        yield


def hold(path: str | os.PathLike) -> IO | None:
    """Take a share of a lock; closing the stream that is returned gives it back.

    Any number of processes may hold one. Waits while another has the lock for itself. None where
    locks do not exist, or this one cannot be made.
    """
    try:
        import fcntl

        stream = _opened(path)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("waiting for the process that works in %s", Path(path).parent)
        fcntl.flock(stream, fcntl.LOCK_SH)
    except OSError:  # no locks on this disk
        stream.close()
        return None
    return stream


def _opened(path: str | os.PathLike) -> IO:
    """Open a lock to read and write, as NFS wants it for both kinds, or else to read."""
    try:
        return open(path, "a+")
    except PermissionError:
        return open(path)


@contextmanager
def unheld(path: str | os.PathLike) -> Iterator[bool]:
    """Say whether nobody has the lock, nor a share of it, and keep it so; False where unknown."""
    with ExitStack() as stack:
        try:
            import fcntl

            stream = stack.enter_context(_opened(path))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except (ImportError, OSError):
            free = False
        yield free


def copy_whole(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copy a file's content, whole or not at all."""
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def remove_leftovers(folder: str | os.PathLike, name: str = "*") -> int:
    """Remove what killed runs left under temporary names anywhere below `folder`; return how many.

    Call it only while nothing else writes there.

    Args:
        folder: it may be absent.
        name: only what was to have this final name; a pattern.
    """
    leftovers = sorted(Path(folder).rglob(f"{TEMPORARY_PREFIX}{name}"), reverse=True)
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


def write_json(path: str | os.PathLike, content: object) -> Path:
    """Write `content` as JSON, whole or not at all; the same content gives the same bytes."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON file.

    Raises:
        ValueError: the file is no JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); delete it to have it made again"
        ) from error


def file_hash(path: str | os.PathLike) -> str:
    """Return the SHA-1 hash (40 hex digits) of a file's content, to know it again.

    No defence against forgery; of Python's hashes it is the fastest, with and without the
    processor's help.
    """
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
