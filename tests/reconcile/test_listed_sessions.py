"""Rows of the merchant's list of sessions: what is understood, and what is refused by row and column."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.errors import LedgerError
from reconcile.listed_sessions import ListedSession, sessions_by_merchant

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
ASKED = datetime(2026, 11, 20, 3, 30, tzinfo=UTC)


def read(*rows: dict[str, object], merchants: tuple[str, ...] = ("main",)) -> dict[str, tuple[ListedSession, ...]]:
    return sessions_by_merchant(rows, merchants, NOW, "ledger.sessions_query")


@pytest.mark.parametrize(
    "written",
    [
        ASKED,
        ASKED.astimezone(timezone(timedelta(hours=9))),
        "2026-11-20T03:30:00Z",
        "2026-11-20 05:30:00+02:00",
        int(ASKED.timestamp()),
        str(int(ASKED.timestamp())),
        Decimal(int(ASKED.timestamp())),
    ],
)
def test_a_time_is_understood_however_a_database_yields_it(written: object) -> None:
    (session,) = read({"session_id": "fcsess_1", "requested_at": written})["main"]
    assert session == ListedSession("fcsess_1", ASKED)
    assert session.requested_at is not None
    assert session.requested_at.utcoffset() == timedelta(0)


def test_no_time_stays_none_and_a_clock_that_is_a_little_ahead_counts_as_now() -> None:
    rows = [{"session_id": "fcsess_1"}, {"session_id": "fcsess_2", "requested_at": NOW + timedelta(minutes=2)}]
    assert read(*rows)["main"] == (ListedSession("fcsess_1"), ListedSession("fcsess_2", NOW))


def test_each_merchant_has_its_own() -> None:
    rows = [{"session_id": "fcsess_1", "merchant": "b"}, {"session_id": "fcsess_2", "merchant": "a"}]
    found = read(*rows, merchants=("a", "b", "c"))
    assert {name: [one.session_id for one in each] for name, each in found.items()} == {
        "a": ["fcsess_2"],
        "b": ["fcsess_1"],
        "c": [],
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"session_id": "fcsess_0"}, "row 2, session fcsess_0, column session_id: stands in row 1 already"),
        ({"session_id": ""}, "row 2, session without an id, column session_id: is missing"),
        ({"session_id": None}, "is missing"),
        ({"session_id": "cs_1"}, "session cs_1, column session_id: is no id of a session"),
        ({"session_id": "fcsess_../1"}, "is no id of a session"),
        ({"session_id": "fcsess_1", "requested_at": "yesterday"}, "column requested_at: is 'yesterday'; write a time"),
        ({"session_id": "fcsess_1", "requested_at": "2026-11-20 03:30:00"}, "has no time zone"),
        ({"session_id": "fcsess_1", "requested_at": datetime(2026, 11, 20)}, "has no time zone"),
        ({"session_id": "fcsess_1", "requested_at": ASKED.date()}, "write a time"),
        ({"session_id": "fcsess_1", "requested_at": int(ASKED.timestamp()) * 1000}, "write a time"),
        ({"session_id": "fcsess_1", "requested_at": "2027-01-01T00:00:00Z"}, "lies in the future"),
        (
            {"session_id": "fcsess_1", "merchant": "other"},
            "column merchant: is 'other', which the settings do not name",
        ),
    ],
)
def test_a_row_that_cannot_be_understood_is_named(row: dict[str, object], said: str) -> None:
    with pytest.raises(LedgerError) as refused:
        read({"session_id": "fcsess_0"}, row)
    assert said in str(refused.value)


def test_with_several_merchants_a_row_says_whose_it_is() -> None:
    with pytest.raises(LedgerError, match=r"column merchant: is missing, and the settings name several"):
        read({"session_id": "fcsess_1"}, merchants=("a", "b"))


@given(
    st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.binary(), st.datetimes(), st.decimals()),
    st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.datetimes(), st.decimals()),
)
def test_whatever_a_row_holds_it_is_understood_or_refused(session_id: object, requested_at: object) -> None:
    for one in (session_id, "fcsess_1"):
        try:
            found = read({"session_id": one, "requested_at": requested_at})
        except LedgerError:
            continue
        (session,) = found["main"]
        assert session.session_id.startswith("fcsess_")
        assert session.requested_at is None or session.requested_at <= NOW
