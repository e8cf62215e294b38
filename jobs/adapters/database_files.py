"""Where an embedded database may lie: private files, local disks."""

from __future__ import annotations

import os
import re
from pathlib import Path

from reconcile.errors import DatabaseError

NETWORK_FILESYSTEMS = frozenset(
    [
        "afs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.cephfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    ]
)
"""Types on which write-ahead logging is unsafe: its index is memory shared by one host's processes
(SQLite documentation: "Write-Ahead Logging", disadvantages)."""

_MOUNTS = Path("/proc/self/mountinfo")


def filesystem_type(path: Path, mounts: str) -> str | None:
    """The type of the filesystem that holds a path, by the text of `/proc/self/mountinfo`; None where no mount point fits."""
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount_point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        # A later line covers an earlier one on the same point, hence `>=`.
        if path.is_relative_to(mount_point) and (best is None or len(mount_point.parts) >= best[0]):
            best = (len(mount_point.parts), right.split(" ")[0])
    return best[1] if best else None


def refuse_network_filesystem(path: Path) -> None:
    """Raise DatabaseError where the database would lie on a network filesystem; silent where the host does not say."""
    try:
        mounts = _MOUNTS.read_text(errors="replace")
    except OSError:
        return
    # Unlike `Path.resolve`, this takes symlinks in a circle; opening them fails and says so.
    kind = filesystem_type(Path(os.path.realpath(path)), mounts)
    if kind in NETWORK_FILESYSTEMS:
        raise DatabaseError(
            f"database {path} lies on a network filesystem ({kind}), where SQLite's write-ahead log is not safe: "
            "move it to a local disk, or set database.url to a PostgreSQL server"
        )


def create_private_file(path: Path) -> None:
    """Create an empty file of mode 0600 and its missing directories of mode 0700; an existing file is left as it is.

    A symlink that leads nowhere yet is followed, as SQLite would: it would create what it names for everybody to read. SQLite gives its
    log files the mode of the database, so they are private too.
    """
    try:
        path = Path(os.path.realpath(path))
        missing = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.is_dir() or not path.parent.is_dir():
            raise DatabaseError(
                f"database {path} cannot be created: a directory or file is in its way; change database.url"
            ) from None
    except OSError as error:
        raise DatabaseError(
            f"database {path} cannot be created ({error.strerror}): make its directory writable for this user, or change database.url"
        ) from None
