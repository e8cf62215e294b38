"""The account history: one row for each change of an account, append only, written and read in bulk.

A hundred thousand rows go through the drivers' own bulk calls (COPY on PostgreSQL, one prepared statement on SQLite) and through Arrow:
row by row through SQLAlchemy costs several times as much.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from jobs.adapters.database import Database, driver_connection
from jobs.adapters.tables import account_history, to_microseconds
from reconcile.errors import DatabaseError
from reconcile.model import Scope

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_KEY = ("merchant", "mode", "run_id")
_ROWS_PER_BATCH = 20_000
_IDS_PER_QUERY = 400
_TABLE = account_history.name


def append_history(database: Database, scope: Scope, run_id: str, changed: pd.DataFrame) -> int:
    """Append rows in the `frames.HISTORY` contract; return how many were new.

    Rows that this run has written before are left alone, so that a resumed run may say them again.

    Raises:
        DatabaseError: another run has written a row of the same account and moment.
    """
    import pyarrow as pa

    from reconcile.frames import HISTORY, check

    check(changed, HISTORY, "history")
    if changed.empty:
        return 0
    table = pa.Table.from_pandas(changed, schema=pa.schema(list(HISTORY.items())), preserve_index=False)
    table = _storable(table)

    def work(connection: Connection) -> int:
        append = _append_sqlite if database.kind == "sqlite" else _append_postgresql
        added = append(connection, scope, run_id, table)
        if added < table.num_rows:
            _refuse_foreign_rows(connection, database, scope, run_id, table)
        return added

    return database.run(work)


def latest_history(database: Database, scope: Scope, as_of: datetime | None = None) -> pd.DataFrame:
    """The newest row of each account, now or at a past moment, by account id, in the `frames.HISTORY` contract."""
    mark = _mark(database)
    values: list[Any] = [scope.merchant, scope.mode]
    until = ""
    if as_of is not None:
        until = f" AND observed_at <= {mark}"
        values.append(to_microseconds(as_of) if database.kind == "sqlite" else as_of)
    where = f"merchant = {mark} AND mode = {mark}{until}"
    if database.kind == "sqlite":
        # With a single max(), SQLite takes the other columns from that row (SQLite documentation: "Bare columns in an aggregate query").
        newest = f"SELECT {{columns}}, max(observed_at) FROM {_TABLE} WHERE {where} GROUP BY account_id"  # noqa: S608
    else:
        newest = f"SELECT DISTINCT ON (account_id) {{columns}} FROM {_TABLE} WHERE {where} ORDER BY account_id, observed_at DESC"  # noqa: S608
    return _frame(database, [(newest, values)])


def history_of(
    database: Database,
    scope: Scope,
    account_ids: Collection[str] = (),
    authorization_ids: Collection[str] = (),
    holder_ids: Collection[str] = (),
) -> pd.DataFrame:
    """Every row of some accounts, or that ever named one of these authorizations or holders, by account and time."""
    mark = _mark(database)
    queries: list[tuple[str, list[Any]]] = []
    chosen = {"account_id": account_ids, "authorization_id": authorization_ids, "account_holder_id": holder_ids}
    for column, ids in chosen.items():
        left = iter(sorted(set(ids)))
        while chunk := list(islice(left, _IDS_PER_QUERY)):
            marks = ", ".join([mark] * len(chunk))
            queries.append(
                (
                    f"SELECT {{columns}} FROM {_TABLE} WHERE merchant = {mark} AND mode = {mark} AND {column} IN ({marks})",  # noqa: S608
                    [scope.merchant, scope.mode, *chunk],
                )
            )
    return _frame(database, queries).drop_duplicates(["account_id", "observed_at"], ignore_index=True)


def troubled_history(database: Database, scope: Scope) -> pd.DataFrame:
    """Every row of the accounts that ever were inactive or required a relink, by account and time, in the `frames.HISTORY` contract."""
    mark = _mark(database)
    own = f"merchant = {mark} AND mode = {mark}"
    ever = f"SELECT account_id FROM {_TABLE} WHERE {own} AND (stripe_status = 'inactive' OR action = 'relink_required')"  # noqa: S608
    query = f"SELECT {{columns}} FROM {_TABLE} WHERE {own} AND account_id IN ({ever})"  # noqa: S608
    return _frame(database, [(query, [scope.merchant, scope.mode] * 2)])


def _mark(database: Database) -> str:
    return "?" if database.kind == "sqlite" else "%s"


def _storable(table: pa.Table) -> pa.Table:
    """Replace NUL, which PostgreSQL cannot hold, in the one column that is free text."""
    import pyarrow.compute as pc

    position = table.schema.get_field_index("institution_name")
    cleaned = pc.replace_substring(table["institution_name"], "\x00", "\ufffd")
    return table.set_column(position, table.schema.field(position), cleaned)


def _append_sqlite(connection: Connection, scope: Scope, run_id: str, table: pa.Table) -> int:
    columns = [*_KEY, *table.column_names]
    statement = (
        f"INSERT INTO {_TABLE} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) ON CONFLICT DO NOTHING"  # noqa: S608
    )
    cursor = driver_connection(connection).cursor()
    try:
        added = 0
        for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
            key = (scope.merchant, scope.mode, run_id)
            cursor.executemany(statement, ((*key, *row) for row in zip(*_plain_columns(batch), strict=True)))
            added += cursor.rowcount
        return added
    finally:
        cursor.close()


def _plain_columns(batch: pa.RecordBatch) -> Iterator[list[Any]]:
    import pyarrow as pa

    for column in batch.columns:
        yield (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()


def _append_postgresql(connection: Connection, scope: Scope, run_id: str, table: pa.Table) -> int:
    import pyarrow.csv as pa_csv

    stage = "relink_history_stage"
    names = ", ".join(table.column_names)
    text = io.BytesIO()
    # Every text is quoted and a null is not, which is how COPY tells an empty text from a null.
    pa_csv.write_csv(table, text, pa_csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    with driver_connection(connection).cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS SELECT {names} FROM {_TABLE} WITH NO DATA")  # noqa: S608
        with cursor.copy(f"COPY {stage} ({names}) FROM STDIN (FORMAT csv)") as copy:
            copy.write(text.getbuffer())
        cursor.execute(
            f"INSERT INTO {_TABLE} ({', '.join(_KEY)}, {names}) SELECT %s, %s, %s, {names} FROM {stage} ON CONFLICT DO NOTHING",  # noqa: S608
            (scope.merchant, scope.mode, run_id),
        )
        added = int(cursor.rowcount)
        # A second append of the same transaction makes the stage anew.
        cursor.execute(f"DROP TABLE {stage}")
        return added


def _refuse_foreign_rows(
    connection: Connection, database: Database, scope: Scope, run_id: str, table: pa.Table
) -> None:
    from sqlalchemy import select

    moments: dict[datetime, list[str]] = {}
    for account_id, moment in zip(table["account_id"].to_pylist(), table["observed_at"].to_pylist(), strict=True):
        moments.setdefault(moment, []).append(account_id)
    for moment, account_ids in moments.items():
        left = iter(account_ids)
        while chunk := list(islice(left, _IDS_PER_QUERY)):
            foreign = connection.execute(
                select(account_history.c.account_id, account_history.c.run_id)
                .where(
                    account_history.c.merchant == scope.merchant,
                    account_history.c.mode == scope.mode,
                    account_history.c.account_id.in_(chunk),
                    account_history.c.observed_at == moment,
                    account_history.c.run_id != run_id,
                )
                .limit(1)
            ).one_or_none()
            if foreign is not None:
                raise DatabaseError(
                    f"account {foreign.account_id}: run {foreign.run_id} has recorded its state at {moment.isoformat()} already, and run "
                    f"{run_id} says so again: the clock of this host may have been set back; correct it and run again"
                )


def _frame(database: Database, queries: list[tuple[str, list[Any]]]) -> pd.DataFrame:
    from reconcile.frames import HISTORY, empty, from_columns

    with database.read() as connection:
        read = _read_sqlite if database.kind == "sqlite" else _read_postgresql
        tables = [table for query, values in queries for table in read(connection, query, values)]
    if not tables:
        return empty(HISTORY)
    import pyarrow as pa

    # Sorted here and not by the server, whose collation would order ids otherwise than Python does.
    whole = pa.concat_tables(tables).sort_by([("account_id", "ascending"), ("observed_at", "ascending")])
    return from_columns({name: whole[name] for name in HISTORY}, HISTORY)


def _read_sqlite(connection: Connection, query: str, values: list[Any]) -> Iterator[pa.Table]:
    import pyarrow as pa

    from reconcile.frames import HISTORY

    schema = pa.schema([(name, pa.int64() if pa.types.is_timestamp(kind) else kind) for name, kind in HISTORY.items()])
    present = list(HISTORY).index("present")
    cursor = driver_connection(connection).cursor()
    try:
        cursor.execute(query.format(columns=", ".join(HISTORY)), values)
        while rows := cursor.fetchmany(_ROWS_PER_BATCH):
            columns = list(zip(*rows, strict=True))[: len(HISTORY)]
            columns[present] = tuple(map(bool, columns[present]))
            arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
            plain = pa.Table.from_arrays(arrays, schema=schema)
            yield plain.cast(pa.schema(list(HISTORY.items())))
    finally:
        cursor.close()


def _read_postgresql(connection: Connection, query: str, values: list[Any]) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    from reconcile.frames import HISTORY

    # Times travel as whole microseconds: a server may show a time in its own zone and style.
    shown = [
        f"(extract(epoch FROM {name}) * 1000000)::bigint AS {name}" if pa.types.is_timestamp(kind) else name
        for name, kind in HISTORY.items()
    ]
    received = io.BytesIO()
    with driver_connection(connection).cursor() as cursor:
        statement = f"COPY ({query.format(columns=', '.join(shown))}) TO STDOUT (FORMAT csv)"
        with cursor.copy(statement, values) as copy:
            for block in copy:
                received.write(block)
    if not received.tell():
        return
    received.seek(0)
    types = {name: pa.int64() if pa.types.is_timestamp(kind) else kind for name, kind in HISTORY.items()}
    options = pa_csv.ConvertOptions(
        column_types=types,
        null_values=[""],
        true_values=["t"],
        false_values=["f"],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    reading = pa_csv.ReadOptions(column_names=list(HISTORY))
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    yield pa_csv.read_csv(received, reading, parsing, options).cast(pa.schema(list(HISTORY.items())))
