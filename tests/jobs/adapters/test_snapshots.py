"""Snapshots come back exactly as written, are private, and a damaged one is never used."""

from __future__ import annotations

import os
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.adapters.snapshots import SnapshotStore, StoredSnapshot
from reconcile.errors import OutsideError
from reconcile.frames import ACCOUNTS, LEDGER, empty, from_columns
from reconcile.model import Scope
from tests.jobs.adapters.stored_values import AT, HOUR, RUN_ID, SCOPE

SETTINGS = {"relink": {"cooldown_days": 4}, "note": "ünïcode"}


def frame(contract: dict[str, pa.DataType], rows: list[dict[str, Any]]) -> pd.DataFrame:
    return from_columns({name: [row.get(name) for row in rows] for name in contract}, contract)


def write(
    store: SnapshotStore, accounts: pd.DataFrame, ledger: pd.DataFrame, scope: Scope = SCOPE, run_id: str = RUN_ID
) -> StoredSnapshot:
    return store.write(
        scope, run_id, accounts, ledger, snapshot_id="snap_1", taken_at=AT, completed_at=AT + HOUR, settings=SETTINGS
    )


ACCOUNT_ROWS = [
    {
        "account_id": "fca_9",
        "last4": "0042",
        "tokenized_numbers": True,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    },
    {"account_id": "fca_1", "institution_name": "", "permissions": "balances;transactions"},
]
LEDGER_ROWS = [
    {
        "account_id": "fca_7",
        "ledger_holder_id": "cus_7",
        "do_not_contact": False,
        "exposure_minor": 2**62 + 1,
        "currency": "EUR",
    },
    {"account_id": "fca_1", "ledger_holder_id": "cus_1", "do_not_contact": True, "required_permissions": ""},
    {"account_id": "fca_0", "ledger_holder_id": "cus_0", "do_not_contact": False},
]


def test_a_snapshot_comes_back_in_every_value_type_and_order(tmp_path: Path) -> None:
    accounts, ledger = frame(ACCOUNTS, ACCOUNT_ROWS), frame(LEDGER, LEDGER_ROWS)
    store = SnapshotStore(tmp_path / "var" / "snapshots")
    stored = write(store, accounts, ledger)
    assert stored.path == f"merchant=main/{RUN_ID}.parquet"
    assert stored.bytes == (tmp_path / "var" / "snapshots" / stored.path).stat().st_size
    back = store.read(stored.path, stored.sha256)
    pd.testing.assert_frame_equal(back.accounts, accounts)
    pd.testing.assert_frame_equal(back.ledger, ledger)
    assert (back.metadata.snapshot_id, back.metadata.merchant, back.metadata.mode) == ("snap_1", "main", "sandbox")
    assert (back.metadata.taken_at, back.metadata.completed_at, back.metadata.settings) == (AT, AT + HOUR, SETTINGS)
    assert back.metadata.libraries["pyarrow"] == pa.__version__


identifiers = st.text(st.sampled_from('abcXYZ09_-é\x00\n"'), min_size=1, max_size=6)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
account_rows = st.lists(
    st.fixed_dictionaries(
        {
            "account_id": identifiers,
            "institution_name": texts,
            "created_at": moments,
            "tokenized_numbers": st.none() | st.booleans(),
        }
    ),
    max_size=6,
    unique_by=lambda row: row["account_id"],
)
ledger_rows = st.lists(
    st.fixed_dictionaries(
        {"account_id": identifiers, "reference": texts, "exposure_minor": st.none() | st.integers(-(2**63), 2**63 - 1)}
    ),
    max_size=6,
    unique_by=lambda row: row["account_id"],
)


@settings(max_examples=60, deadline=None)
@given(accounts=account_rows, ledger=ledger_rows, cut=st.integers(0, 3))
def test_whatever_a_night_holds_comes_back(
    tmp_path_factory: pytest.TempPathFactory, accounts: Any, ledger: Any, cut: int
) -> None:
    # A frame with chunks and a foreign index is what a pull and a filter hand over.
    left = pd.concat([frame(ACCOUNTS, accounts[:cut]), frame(ACCOUNTS, accounts[cut:])])
    right = frame(LEDGER, ledger)
    store = SnapshotStore(tmp_path_factory.mktemp("snapshots"))
    stored = write(store, left, right)
    back = store.read(stored.path, stored.sha256)
    pd.testing.assert_frame_equal(back.accounts, left.reset_index(drop=True))
    pd.testing.assert_frame_equal(back.ledger, right)


def test_the_file_itself_says_what_is_on_which_side(tmp_path: Path) -> None:
    stored = write(SnapshotStore(tmp_path), frame(ACCOUNTS, ACCOUNT_ROWS), frame(LEDGER, LEDGER_ROWS))
    import pyarrow.parquet as parquet

    table = parquet.read_table(tmp_path / stored.path, partitioning=None)
    sides = zip(
        table["account_id"].to_pylist(), table["in_stripe"].to_pylist(), table["in_ledger"].to_pylist(), strict=True
    )
    assert list(sides) == [
        ("fca_9", True, False),
        ("fca_1", True, True),
        ("fca_7", False, True),
        ("fca_0", False, True),
    ]
    assert parquet.ParquetFile(tmp_path / stored.path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_schema_is_the_same_for_an_empty_night(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    store = SnapshotStore(tmp_path)
    full = write(store, frame(ACCOUNTS, ACCOUNT_ROWS), frame(LEDGER, LEDGER_ROWS))
    none = write(store, empty(ACCOUNTS), empty(LEDGER), run_id="20261123T033000Z-bbbb")
    assert parquet.read_schema(tmp_path / none.path).equals(parquet.read_schema(tmp_path / full.path))


def test_files_and_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        stored = write(SnapshotStore(tmp_path / "a" / "b"), empty(ACCOUNTS), empty(LEDGER))
    finally:
        os.umask(before)
    path = tmp_path / "a" / "b" / stored.path
    modes = [stat.S_IMODE(found.stat().st_mode) for found in (path, path.parent, path.parent.parent, tmp_path / "a")]
    assert modes == [0o600, 0o700, 0o700, 0o700]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing", "other"])
def test_a_damaged_snapshot_is_named_and_not_used(tmp_path: Path, damage: str) -> None:
    store = SnapshotStore(tmp_path)
    stored = write(store, frame(ACCOUNTS, ACCOUNT_ROWS), frame(LEDGER, LEDGER_ROWS))
    path = tmp_path / stored.path
    content = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        case "cut":
            path.write_bytes(content[:-10])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "other":
            write(store, empty(ACCOUNTS), empty(LEDGER))
    with pytest.raises(OutsideError, match=RUN_ID):
        store.read(stored.path, stored.sha256)


def test_a_file_that_is_no_snapshot_is_refused_even_with_the_right_hash(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "merchant=main" / "x.parquet"
    path.parent.mkdir()
    for content in (b"PAR1 nonsense PAR1", b""):
        path.write_bytes(content)
        with pytest.raises(OutsideError, match="damaged"):
            SnapshotStore(tmp_path).read("merchant=main/x.parquet", hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    "path", ["../x.parquet", "/etc/passwd", "merchant=main/../../x", "merchant=a/b/c.parquet", "x.parquet", "a/\x00"]
)
def test_a_path_cannot_lead_out_of_the_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(OutsideError, match="leads out"):
        SnapshotStore(tmp_path / "snapshots").read(path, "")


@pytest.mark.parametrize("name", ["..", "../../x", "/abs", "a\x00b", "", "a\nb", "a\\b"])
def test_a_merchant_name_cannot_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutsideError, match="file name"):
        write(SnapshotStore(tmp_path), empty(ACCOUNTS), empty(LEDGER), Scope(name, "live"))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_snapshot_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(tmp_path)
    accounts, ledger = frame(ACCOUNTS, ACCOUNT_ROWS), frame(LEDGER, LEDGER_ROWS)
    stored = write(store, accounts, ledger)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutsideError, match="No space left"):
        write(store, empty(ACCOUNTS), empty(LEDGER))
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "merchant=main").iterdir()] == [f"{RUN_ID}.parquet"]
    pd.testing.assert_frame_equal(store.read(stored.path, stored.sha256).accounts, accounts)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    stored = write(store, empty(ACCOUNTS), empty(LEDGER))
    leftover = tmp_path / "merchant=main" / ".x.parquet.abc.tmp"
    leftover.write_bytes(b"half")
    store.remove_leftovers()
    assert not leftover.exists()
    assert (tmp_path / stored.path).exists()


def test_repeated_account_ids_are_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="repeat"):
        write(SnapshotStore(tmp_path), frame(ACCOUNTS, ACCOUNT_ROWS[:1] * 2), empty(LEDGER))


NAMES = st.sampled_from([f"cus_{number}" for number in range(6)])


@settings(max_examples=25)
@given(
    st.lists(st.tuples(NAMES, st.integers(0, 4), st.sampled_from(["both", "stripe", "ledger"])), max_size=14),
    st.integers(2, 5),
)
def test_a_divided_snapshot_comes_back_whole_and_in_parts(rows: list[tuple[str, int, str]], parts: int) -> None:
    """In the order of the whole; each customer and each authorization in one part, with its ledger rows."""
    numbered = [(f"fca_{number * 37 % 101:03d}", *one) for number, one in enumerate(rows)]
    accounts = frame(
        ACCOUNTS,
        [
            {"account_id": name, "account_holder_id": holder, "authorization_id": f"fcauth_{holder}_{login}"}
            for name, holder, login, where in numbered
            if where != "ledger"
        ],
    )
    ledger = frame(
        LEDGER,
        [
            {"account_id": name, "ledger_holder_id": holder, "do_not_contact": False}
            for name, holder, _, where in reversed(numbered)
            if where != "stripe"
        ],
    )
    with tempfile.TemporaryDirectory() as directory:
        store = SnapshotStore(Path(directory), parts_for=lambda rows: parts)
        kept = write(store, accounts, ledger)
        whole, pieces = store.read(kept.path, kept.sha256), list(store.read_parts(kept.path, kept.sha256))
        assert store.account_ids(kept.path, kept.sha256) == whole.accounts["account_id"].tolist()
    pd.testing.assert_frame_equal(whole.accounts, accounts)
    pd.testing.assert_frame_equal(whole.ledger, ledger)
    for written, found in ((accounts, [one.accounts for one in pieces]), (ledger, [one.ledger for one in pieces])):
        ids = written["account_id"].tolist()
        in_parts = [piece["account_id"].tolist() for piece in found]
        assert sorted(name for piece in in_parts for name in piece) == sorted(ids)
        assert in_parts == [[name for name in ids if name in piece] for piece in in_parts]
    homes = [{*piece.accounts["account_holder_id"], *piece.ledger["ledger_holder_id"]} for piece in pieces]
    assert sum(map(len, homes)) == len(set().union(*homes))


def test_an_undivided_snapshot_is_one_part_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    kept = write(store, frame(ACCOUNTS, ACCOUNT_ROWS), frame(LEDGER, LEDGER_ROWS))
    (part,) = store.read_parts(kept.path, kept.sha256)
    pd.testing.assert_frame_equal(part.accounts, store.read(kept.path, kept.sha256).accounts)
    with pytest.raises(OutsideError, match="damaged"):
        next(store.read_parts(kept.path, "0" * 64))
