"""Complete snapshots: one compressed Parquet file for each merchant and run, written whole or not at all.

A file holds the accounts and the ledger of that night side by side: the accounts in the order in which Stripe listed them, then the ledger
rows that Stripe does not have. Its metadata says when and under which settings it was taken. A large one is divided by customer, a row group
for each part (`reconcile.partitions`), so that it can be judged part by part; the order of Stripe's list then stands in a column.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from reconcile.errors import OutsideError
from reconcile.model import Scope

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA_VERSION = 1

_METADATA_KEY = b"relink_snapshot"
_LEDGER_PREFIX = "ledger__"
_LEDGER_ORDER = "ledger__row"
_STRIPE_ORDER = "stripe__row"
_TEMPORARY_SUFFIX = ".tmp"
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A written snapshot; `path` is relative to the store's directory."""

    path: str
    sha256: str
    bytes: int


class SnapshotMetadata(NamedTuple):
    """What a snapshot file says of itself; times are aware UTC, `settings` hold no secret. `divided`: each row group is a part."""

    snapshot_id: str
    merchant: str
    mode: str
    run_id: str
    taken_at: datetime
    completed_at: datetime
    settings: Mapping[str, Any]
    schema_version: int
    libraries: Mapping[str, str]
    divided: bool = False


class StoredPart(NamedTuple):
    """Some customers' accounts and ledger rows, and where each stands in the whole."""

    accounts: pd.DataFrame
    ledger: pd.DataFrame
    accounts_rows: pa.Array
    ledger_rows: pa.Array


class Snapshot(NamedTuple):
    """A snapshot as read: frames in the `frames.ACCOUNTS` and `frames.LEDGER` contracts, in the order in which they were written."""

    accounts: pd.DataFrame
    ledger: pd.DataFrame
    metadata: SnapshotMetadata


class SnapshotStore:
    """The directory that holds the snapshots, as `merchant=<name>/<run_id>.parquet`; files are 0600, directories 0700.

    `parts_for` says into how many parts a snapshot of so many rows is divided; None for `reconcile.partitions.parts_for`.
    """

    def __init__(self, directory: Path, parts_for: Callable[[int], int] | None = None) -> None:
        self._directory = directory
        self._parts_for = parts_for

    def write(
        self,
        scope: Scope,
        run_id: str,
        accounts: pd.DataFrame,
        ledger: pd.DataFrame,
        *,
        snapshot_id: str,
        taken_at: datetime,
        completed_at: datetime,
        settings: Mapping[str, Any],
    ) -> StoredSnapshot:
        """Store a complete snapshot durably; the same run's earlier one is replaced.

        Raises:
            OutsideError: the disk refused; nothing is left of the attempt.
            ValueError: a frame breaks its contract or repeats an account id.
        """
        from reconcile.partitions import parts_for

        _refuse_repeats(accounts, ledger)
        parts = (self._parts_for or parts_for)(max(len(accounts), len(ledger)))
        return self.write_parts(
            scope,
            run_id,
            _divide(accounts, ledger, parts),
            divided=parts > 1,
            snapshot_id=snapshot_id,
            taken_at=taken_at,
            completed_at=completed_at,
            settings=settings,
        )

    def write_parts(
        self,
        scope: Scope,
        run_id: str,
        parts: Iterable[StoredPart],
        *,
        divided: bool = True,
        snapshot_id: str,
        taken_at: datetime,
        completed_at: datetime,
        settings: Mapping[str, Any],
    ) -> StoredSnapshot:
        """Store a snapshot that comes in parts, of which one at a time is in memory; no account may stand in two."""
        relative = _confined(f"merchant={_plain(scope.merchant)}/{_plain(run_id)}.parquet")
        metadata = SnapshotMetadata(
            snapshot_id,
            scope.merchant,
            scope.mode,
            run_id,
            taken_at,
            completed_at,
            settings,
            SCHEMA_VERSION,
            _libraries(),
            divided,
        )
        tables = (_part_table(part, divided=divided) for part in parts)
        final = self._directory / relative
        if final.parent.is_symlink():
            raise OutsideError(f"snapshot {final} cannot be written: {final.parent} is a symlink; remove it")
        try:
            _make_private_directories(final.parent)
            _remove_leftovers(final.parent)
            with _temporary_beside(final) as temporary:
                _write_parquet(tables, temporary, _to_json(metadata))
                stored = StoredSnapshot(str(relative), _sha256(temporary), temporary.stat().st_size)
                os.replace(temporary, final)
            _sync(final.parent)
        except OSError as error:
            raise OutsideError(
                f"snapshot {final} cannot be written ({error.strerror or error}): free some space or make its directory writable, then run again"
            ) from None
        return stored

    def read(self, path: str, sha256: str) -> Snapshot:
        """Read a snapshot back, equal in every value and type to what was written.

        Raises:
            OutsideError: the file is missing, is not the one that was written, or cannot be read.
        """
        final = self._checked(path, sha256)
        with _undamaged(final):
            import pyarrow.parquet as parquet

            table = parquet.read_table(final, partitioning=None)
            metadata = _from_json((table.schema.metadata or {})[_METADATA_KEY])
            return Snapshot(*_split(table), metadata)

    def read_parts(self, path: str, sha256: str) -> Iterator[Snapshot]:
        """Read a divided snapshot part by part, each in the order of the whole; an undivided one as one part.

        Raises:
            OutsideError: as `read` does.
        """
        final = self._checked(path, sha256)
        with _undamaged(final):
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(final) as file:
                metadata = _from_json((file.schema_arrow.metadata or {})[_METADATA_KEY])
                groups = [[group] for group in range(file.num_row_groups)]
                if not metadata.divided:
                    groups = [[group for one in groups for group in one]]
                for chosen in groups:
                    yield Snapshot(*_split(file.read_row_groups(chosen)), metadata)

    def _checked(self, path: str, sha256: str) -> Path:
        """The file of a snapshot, which is the one that was written.

        Raises:
            OutsideError: it is missing, or another one.
        """
        final = self._directory / _confined(path)
        try:
            found = _sha256(final)
        except OSError as error:
            raise OutsideError(
                f"snapshot {final} cannot be read ({error.strerror or error}): restore it from a backup"
            ) from None
        if found != sha256:
            raise OutsideError(
                f"snapshot {final} is damaged: it is not the file that was written; restore it from a backup"
            )
        return final

    def account_ids(self, path: str, sha256: str) -> list[str]:
        """The ids of a snapshot's accounts alone, in the order in which Stripe listed them.

        Raises:
            OutsideError: the file is missing, is not the one that was written, or cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as parquet

        final = self._directory / _confined(path)
        try:
            if _sha256(final) != sha256:
                raise OutsideError(f"snapshot {final} is damaged: it is not the file that was written")
            wanted = ("account_id", "in_stripe", _STRIPE_ORDER)
            columns = [name for name in parquet.read_schema(final).names if name in wanted]
            table = _in_stripe_order(parquet.read_table(final, columns=columns, partitioning=None))
            ids: list[str] = table["account_id"].to_pylist()
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise OutsideError(f"snapshot {final} cannot be read ({type(error).__name__})") from None
        return ids

    def remove_leftovers(self) -> None:
        """Remove the temporary files that a killed run left; only ever call it under the lock."""
        for directory in self._directory.glob("merchant=*"):
            _remove_leftovers(directory)


@contextlib.contextmanager
def _undamaged(final: Path) -> Iterator[None]:
    """Whatever shows that a file does not hold what it should becomes an error that says so."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise OutsideError(f"snapshot {final} is damaged ({type(error).__name__}): restore it from a backup") from None


def _refuse_repeats(accounts: pd.DataFrame, ledger: pd.DataFrame) -> None:
    from reconcile.frames import ACCOUNTS, LEDGER, check

    for name, frame, contract in (("accounts", accounts, ACCOUNTS), ("ledger", ledger, LEDGER)):
        identifiers = check(frame, contract, name)["account_id"]
        if identifiers.hasnans or identifiers.nunique() != len(frame):
            raise ValueError(f"{name}: account ids are missing or repeat, so they cannot be joined")


def _divide(accounts: pd.DataFrame, ledger: pd.DataFrame, parts: int) -> Iterator[StoredPart]:
    import numpy as np
    import pyarrow as pa

    from reconcile.partitions import follow, part_numbers

    if parts == 1 or not (len(accounts) or len(ledger)):
        yield StoredPart(accounts, ledger, pa.array(np.arange(len(accounts))), pa.array(np.arange(len(ledger))))
        return
    in_part = part_numbers(accounts, parts)
    of_ledger = follow(ledger["account_id"], ledger["ledger_holder_id"], accounts["account_id"], in_part, parts)
    for number in range(parts):
        chosen, wanted = np.flatnonzero(in_part == number), np.flatnonzero(of_ledger == number)
        if len(chosen) or len(wanted):
            yield StoredPart(accounts.iloc[chosen], ledger.iloc[wanted], pa.array(chosen), pa.array(wanted))


def _part_table(part: StoredPart, *, divided: bool) -> pa.Table:
    """A part's rows; those of a divided snapshot say where they stand in the whole."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _join(part.accounts, part.ledger)
    if not divided:
        return table
    position = table.schema.get_field_index(_LEDGER_ORDER)
    table = table.set_column(position, _LEDGER_ORDER, pc.take(part.ledger_rows, table[_LEDGER_ORDER]).cast(pa.int32()))
    extra = table.num_rows - len(part.accounts_rows)
    rows = pa.concat_arrays([part.accounts_rows.cast(pa.int32()), pa.nulls(extra, pa.int32())])
    return table.append_column(_STRIPE_ORDER, rows)


def _join(accounts: pd.DataFrame, ledger: pd.DataFrame) -> pa.Table:
    """The outer join by account id; the ledger's order is kept in a column of its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from reconcile.frames import ACCOUNTS, LEDGER, check

    left = pa.Table.from_pandas(
        check(accounts, ACCOUNTS, "accounts"), schema=pa.schema(list(ACCOUNTS.items())), preserve_index=False
    )
    right = pa.Table.from_pandas(
        check(ledger, LEDGER, "ledger"), schema=pa.schema(list(LEDGER.items())), preserve_index=False
    )
    for name, table in (("accounts", left), ("ledger", right)):
        identifiers = table["account_id"]
        if identifiers.null_count or pc.count_distinct(identifiers).as_py() != table.num_rows:
            raise ValueError(f"{name}: account ids are missing or repeat, so they cannot be joined")
    row_in_ledger = pc.index_in(left["account_id"], value_set=right["account_id"])
    only_in_ledger = pc.indices_nonzero(pc.is_null(pc.index_in(right["account_id"], value_set=left["account_id"])))
    rows = pa.chunked_array([*row_in_ledger.chunks, only_in_ledger.cast(pa.int32())], pa.int32())
    extra = len(only_in_ledger)
    columns: dict[str, Any] = {}
    for name, kind in ACCOUNTS.items():
        rest = right["account_id"].take(only_in_ledger).chunks if name == "account_id" else [pa.nulls(extra, kind)]
        columns[name] = pa.chunked_array([*left[name].chunks, *rest], kind)
    for name in LEDGER:
        if name != "account_id":
            columns[_LEDGER_PREFIX + name] = right[name].take(rows)
    columns[_LEDGER_ORDER] = rows
    columns["in_stripe"] = pa.concat_arrays([pa.repeat(True, left.num_rows), pa.repeat(False, extra)])
    columns["in_ledger"] = pc.is_valid(rows)
    return pa.table(columns)


def _split(table: pa.Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    from reconcile.frames import ACCOUNTS, LEDGER, from_columns

    stripe = _in_stripe_order(table)
    in_ledger = table.filter(table["in_ledger"]).sort_by(_LEDGER_ORDER)
    accounts = from_columns({name: stripe[name] for name in ACCOUNTS}, ACCOUNTS)
    columns = {name: in_ledger[name if name == "account_id" else _LEDGER_PREFIX + name] for name in LEDGER}
    return accounts, from_columns(columns, LEDGER)


def _in_stripe_order(table: pa.Table) -> pa.Table:
    """The rows of accounts that Stripe has, in the order of its list."""
    stripe = table.filter(table["in_stripe"])
    return stripe.sort_by(_STRIPE_ORDER) if _STRIPE_ORDER in table.column_names else stripe


def _write_parquet(tables: Iterator[pa.Table], path: Path, metadata: bytes) -> None:
    """Write each table as one row group."""
    import pyarrow.parquet as parquet

    first = next(tables)
    with path.open("wb") as file:
        schema = first.schema.with_metadata({_METADATA_KEY: metadata})
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(
                    table.replace_schema_metadata(schema.metadata), row_group_size=max(1, table.num_rows)
                )
        file.flush()
        os.fsync(file.fileno())


def _to_json(metadata: SnapshotMetadata) -> bytes:
    values = metadata._asdict()
    for name in ("taken_at", "completed_at"):
        if values[name].tzinfo is None:
            raise ValueError(f"{name} is naive: every stored time is aware")
        values[name] = values[name].astimezone(UTC).isoformat()
    return json.dumps(values, sort_keys=True).encode()


def _from_json(stored: bytes) -> SnapshotMetadata:
    values = json.loads(stored)
    for name in ("taken_at", "completed_at"):
        values[name] = datetime.fromisoformat(values[name])
    return SnapshotMetadata(**values)


def _libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("pandas", "pyarrow", "stripe")}


def _plain(name: str) -> str:
    if not name or name.startswith(".") or any(character in name for character in "/\\\x00") or not name.isprintable():
        raise OutsideError(f"{name!r} cannot be part of a file name: rename the merchant in the settings")
    return name


def _confined(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if len(relative.parts) != 2 or relative.is_absolute() or ".." in relative.parts or "\x00" in path:
        raise OutsideError(
            f"snapshot path {path!r} leads out of the snapshot directory: the records were tampered with"
        )
    return relative


def _make_private_directories(directory: Path) -> None:
    missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)
        _sync(parent.parent)


def _remove_leftovers(directory: Path) -> None:
    for leftover in directory.glob(f".*{_TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary_beside(final: Path) -> Iterator[Path]:
    """A private empty file in the same directory, removed unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=_TEMPORARY_SUFFIX, dir=final.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    # A rename survives a power loss only once its directory is on disk.
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
