"""Files that appear whole or not at all."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".part-"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}  # not offered here; the disk is fine


@contextmanager
def written_whole(path: str | os.PathLike, *, lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside `path`, renamed to `path` when the block ends without an error.

    The temporary name keeps the suffix (libraries choose the format by it). After an error the
    temporary file is removed and an existing `path` is untouched.

    Args:
        path: final name of a file or folder; its folder is made if absent.
        lasting: whole also after a power cut, see `rename_lasting`; False for files that are
            quickly made again, or many and small.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # containers repeat process numbers: only a random name is nobody else's
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)  # os.replace cannot replace a folder that holds files
        if lasting:
            rename_lasting(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def rename_lasting(temporary: Path, path: Path) -> None:
    """Rename a file, or a folder of files, once its content is on the disk; then sync the rename.

    After a plain rename a power cut may leave an empty file under the final name.

    Raises:
        OSError: the disk is full or failed.
    """
    if temporary.is_dir():
        for member in temporary.iterdir():
            _sync_file(member)
        _sync_folder(temporary)
    else:
        _sync_file(temporary)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_file(path: Path) -> None:
    with open(path, "r+b") as stream:  # Windows syncs no file that is open for reading only
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in CANNOT_SYNC:
                raise


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder; Windows and some network file systems cannot."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_whole(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copy a file's content, whole or not at all."""
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def remove_leftovers(folder: str | os.PathLike, name: str = "*") -> int:
    """Remove what killed runs left under temporary names below `folder`; return how many.

    Call it only while nothing else writes there.

    Args:
        folder: may be absent.
        name: pattern of the final names that are meant.
    """
    leftovers = sorted(Path(folder).rglob(f"{TEMPORARY_PREFIX}{name}"), reverse=True)
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


def writable_folder(folder: str | os.PathLike) -> Path:
    """Make a folder and check that it can be written, before hours of work.

    Raises:
        OSError: it cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}); choose another folder"
        ) from error
    return Path(folder)


def write_json(path: str | os.PathLike, content: object, *, lasting: bool = True) -> Path:
    """Write `content` as JSON, whole or not at all; the same content gives the same bytes.

    `lasting` is as for `written_whole`.
    """
    with written_whole(path, lasting=lasting) as temporary:
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


def open_readable(path: str | os.PathLike) -> BinaryIO:
    """Open a user's file for reading bytes.

    Raises:
        PermissionError: this user may not; names the file and the cure.
        OSError: it is a pipe or a device, which could be waited for without end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    try:
        return open(path, "rb")
    except PermissionError:
        raise PermissionError(
            errno.EACCES, "this user may not read it; chmod u+r makes it readable", str(path)
        ) from None


def file_hash(path: str | os.PathLike) -> str:
    """Return the SHA-1 hash (40 hex digits) of a file's content, to know the file again.

    A folder's hash covers the names and contents of all its files. SHA-1 is the fastest
    of Python's hashes; it is no defence against forgery.
    """
    if os.path.isdir(path):
        files = sorted(found for found in Path(path).rglob("*") if found.is_file())
        lines = [f"{found.relative_to(path).as_posix()} {file_hash(found)}" for found in files]
        return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
    with open_readable(path) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
