"""Puts files and directories in place so that a crash at any moment leaves the old or the new, whole and durable."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconcile.errors import ReportError

AT_FDCWD = -100
RENAME_EXCHANGE = 2
"""Linux renameat2(2): swap two names in one step."""

ADVICE = {
    errno.EACCES: "let the user that runs the job write there, or change reports.directory",
    errno.EPERM: "let the user that runs the job own it and be a member of reports.group, or change reports.directory or reports.group",
    errno.EROFS: "the file system is read-only: mount it for writing, or change reports.directory",
    errno.ENOSPC: "free some disk space, then resume the run",
    errno.EDQUOT: "raise the disk quota or delete old reports, then resume the run",
    errno.ENOTDIR: "a file stands where a directory must be: move it away",
    errno.EEXIST: "something else stands there: move it away",
    errno.ENAMETOOLONG: "choose a shorter reports.directory",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read what is written, whatever the umask: the mode of files and the group that owns them (None: the user's own)."""

    file_mode: int = 0o600
    group_id: int | None = None

    @property
    def directory_mode(self) -> int:
        """Readers of the files may enter the directories."""
        return 0o700 | (0o050 if self.file_mode & 0o040 else 0)


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn an OSError into a ReportError that names the path and says how to mend it."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        advice = ADVICE.get(error.errno or 0, "check the disk and reports.directory")
        raise ReportError(
            f"reports cannot be written at {os.fsdecode(where)}: {error.strerror or error}; {advice}"
        ) from error


def write_file(path: Path, chunks: Iterable[bytes], access: Access) -> tuple[str, int]:
    """Write a new file and wait until it is on the disk; return its SHA-256 in hexadecimal and its size in bytes."""
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        if access.group_id is not None:
            os.fchown(descriptor, -1, access.group_id)
        os.fchmod(descriptor, access.file_mode)
        os.fsync(descriptor)
    return digest.hexdigest(), size


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_directories(path: Path, access: Access) -> None:
    """Create a directory and the missing ones above it; those that are there already keep their mode."""
    missing = []
    above = path
    while not above.exists() and not above.is_symlink():
        missing.append(above)
        above = above.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        give_directory(directory, access)
        sync_directory(directory.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def give_directory(path: Path, access: Access) -> None:
    """Set the mode and group of a directory that this job made."""
    if access.group_id is not None:
        os.chown(path, -1, access.group_id)
    os.chmod(path, access.directory_mode)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def owned(path: Path) -> Iterator[bool]:
    """Hold a directory against other processes that clean up; yields False where another process holds it or it is gone.

    The lock ends with the process, so that what a dead one left is free at once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            # A network file system without locks: only a dry run beside the night's run could meet it, and loses its own report.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            held = True
        yield held
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(second))


def point_link(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, in one step even where it points elsewhere already."""
    if os.path.lexists(link) and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(link))
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    os.symlink(target, temporary)
    try:
        os.rename(temporary, link)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(link.parent)


def remove_tree(path: Path) -> bool:
    """Remove a directory as far as possible, since the next run removes what is left; tell whether it is gone."""
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)
