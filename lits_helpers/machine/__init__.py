"""What the machine gives: whole files, locks, workers, cores, memory, `torchrun`'s processes."""

from .archives import LARGEST_FILE_BYTES, HostileArchive, safe_members
from .arguments import few, require, require_each
from .files import (
    DISK_FULL,
    TEMPORARY_PREFIX,
    copy_whole,
    file_hash,
    open_readable,
    read_json,
    remove_leftovers,
    rename_lasting,
    writable_folder,
    write_json,
    written_whole,
)
from .limits import available_cores, free_memory_bytes
from .locks import locked, locked_folder
from .ranks import local_rank, own_rank, own_share, processes_here, wait_for_others, world_size
from .workers import run_jobs, spawned_pool

__all__ = [
    "DISK_FULL",
    "LARGEST_FILE_BYTES",
    "TEMPORARY_PREFIX",
    "HostileArchive",
    "available_cores",
    "copy_whole",
    "few",
    "file_hash",
    "free_memory_bytes",
    "local_rank",
    "locked",
    "locked_folder",
    "open_readable",
    "own_rank",
    "own_share",
    "processes_here",
    "read_json",
    "remove_leftovers",
    "rename_lasting",
    "require",
    "require_each",
    "run_jobs",
    "safe_members",
    "spawned_pool",
    "wait_for_others",
    "world_size",
    "writable_folder",
    "write_json",
    "written_whole",
]
