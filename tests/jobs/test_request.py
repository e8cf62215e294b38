"""Manual requests for a selection, under the guards of a night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.nightly import RunResult
from jobs.selection import Selection, read_selection_file
from jobs.work import Work
from reconcile.errors import SettingsError
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, add_customer, assert_ties, outcomes, small_world, steps, table

BANK = "Alderbrook Mutual"


def ask(
    nights: Nights,
    *,
    ignore_cooldown: bool = False,
    dry_run: bool = False,
    resolved_by: str | None = None,
    **names: set[str],
) -> RunResult:
    work = Work(
        "request",
        dry_run=dry_run,
        from_stored=True,
        selection=Selection(**{name: frozenset(values) for name, values in names.items()}),
        ignore_cooldown=ignore_cooldown,
        unknowns_resolved_by=resolved_by,
    )
    return nights.run(work)


def asked(result: RunResult) -> list[str]:
    return sorted(row["authorization_id"] for row in table(result, "relink_requests"))


@pytest.fixture
def quiet(make_nights: MakeNights) -> Nights:
    """Nine customers, all broken, of whom the night may ask none, so that all wait for a person."""
    nights = make_nights(small_world(customers=9, broken=range(1, 10)))
    nights.run(relink={"max_requests_per_run": 0})
    assert nights.posts() == 0
    nights.world.advance(seconds=600)
    return nights


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"authorizations": {"fcauth_2"}}, ["fcauth_2"]),
        ({"authorizations": {"fcauth_2", "fcauth_4"}}, ["fcauth_2", "fcauth_4"]),
        ({"customers": {"cus_3"}}, ["fcauth_3"]),
        ({"accounts": {"fca_5_2"}}, ["fcauth_5"]),
        ({"institutions": {BANK}}, [f"fcauth_{number}" for number in range(1, 10)]),
        ({"customers": {"cus_3"}, "accounts": {"fca_5_2"}}, ["fcauth_3", "fcauth_5"]),
    ],
)
def test_only_the_selected_are_asked(quiet: Nights, names: dict[str, set[str]], expected: list[str]) -> None:
    result = ask(quiet, **names)
    assert result.exit_code == 0
    assert asked(result) == expected
    assert sorted(quiet.world.contacts_by_authorization()) == expected
    assert {one.request.origin for one in quiet.stored()} == {"request"}
    assert quiet.reads("accounts.list") == 2, (
        "the night's pull, and one account to hear Stripe's clock before the first intent"
    )
    assert_ties(result)
    latest = quiet.link("latest")
    assert latest is not None
    assert result.run_id not in latest


@pytest.mark.parametrize(
    "names",
    [
        {"authorizations": {"fcauth_99"}},
        {"authorizations": {"fcauth_1", "fcauth_99"}},
        {"customers": {"fcauth_1"}},
        {"institutions": {"alderbrook mutual"}},
        {"institutions": {"' OR 1=1--"}},
        {"authorizations": {"../../x"}},
    ],
)
def test_an_unknown_name_asks_nobody(quiet: Nights, names: dict[str, set[str]]) -> None:
    result = ask(quiet, **names)
    assert result.exit_code == 2
    assert "not among the accounts of the snapshot" in (result.why or "")
    assert quiet.posts() == 0


def test_a_dry_run_says_what_would_be_asked(quiet: Nights) -> None:
    before = quiet.knowledge()
    result = ask(quiet, customers={"cus_3"}, dry_run=True)
    assert asked(result) == ["fcauth_3"]
    assert {row["result"] for row in table(result, "relink_requests")} == {"would_request"}
    assert (quiet.posts(), quiet.knowledge()) == (0, before)


def test_somebody_asked_lately_waits_unless_the_person_insists(nights: Nights) -> None:
    nights.run()
    session = nights.by_authorization()["fcauth_1"].session_id
    assert session is not None
    nights.world.answer(session, "no_authorization")
    nights.next_night()
    nights.world.advance(seconds=600)
    waits = ask(nights, authorizations={"fcauth_1"})
    assert (asked(waits), steps(waits)["fca_1_1"]) == ([], "cooldown")
    insisted = ask(nights, authorizations={"fcauth_1"}, ignore_cooldown=True)
    assert asked(insisted) == ["fcauth_1"]
    assert nights.by_authorization()["fcauth_1"].request.attempt == 2


def test_an_open_session_is_not_doubled_however_one_insists(nights: Nights) -> None:
    nights.run()
    nights.world.advance(seconds=600)
    result = ask(nights, authorizations={"fcauth_1"}, ignore_cooldown=True)
    assert (asked(result), steps(result)["fca_1_1"], nights.posts()) == ([], "open_session", 3)


def test_an_unknown_request_is_followed_by_another_only_where_a_person_says_so_and_is_named(nights: Nights) -> None:
    nights.sections["relink"] = {"delivery": "hosted_email", "return_url": "https://shop.example/back"}
    nights.world.faults.script("error_500_after", method="POST", times=3)
    assert nights.run().exit_code == 4
    assert nights.states()["fcauth_1"] == "unknown"
    nights.world.faults.clear()
    nights.world.advance(days=5)
    posts = nights.posts()
    for result in (
        ask(nights, authorizations={"fcauth_1"}, ignore_cooldown=True),
        ask(nights, authorizations={"fcauth_2"}, resolved_by="Ada on host", dry_run=True),
        ask(nights, authorizations={"fcauth_1"}, resolved_by="Ada on host", dry_run=True),
    ):
        assert result.complete
    assert nights.posts() == posts
    assert [one.resolved_by for one in nights.stored() if one.state == "unknown"] == [None]
    ask(nights, authorizations={"fcauth_1"}, resolved_by="Ada on host")
    first, second = [one for one in nights.stored() if one.authorization_id == "fcauth_1"]
    assert (first.state, first.request.attempt, first.resolved_by) == ("unknown", 1, "Ada on host")
    assert (second.state, second.request.attempt, nights.posts()) == ("created", 2, posts + 1)


def test_a_healthy_authorization_is_not_asked(nights: Nights) -> None:
    nights.run()
    result = ask(nights, authorizations={"fcauth_5"})
    assert (result.exit_code, asked(result), steps(result)["fca_5_1"]) == (0, [], "none")


def test_caps_are_shared_with_the_night(make_nights: MakeNights) -> None:
    nights = make_nights(small_world(customers=6, broken=range(1, 7)))
    nights.sections["relink"] = {"max_requests_per_run": 3}
    nights.run(relink={"max_requests_per_run": 2})
    result = ask(nights, institutions={BANK})
    assert len(asked(result)) == 1
    assert list(steps(result).values()).count("capped") == 6


def test_the_night_counts_what_a_person_asked(quiet: Nights) -> None:
    ask(quiet, authorizations={"fcauth_1", "fcauth_2"})
    quiet.world.advance(hours=1)
    quiet.sections["relink"] = {"max_requests_per_run": 5}
    result = ask(quiet, institutions={BANK})
    assert len(asked(result)) == 3


def test_what_was_rejected_today_still_counts(quiet: Nights) -> None:
    quiet.sections["relink"] = {"max_requests_per_run": 1}
    quiet.world.delete_customer("cus_1")
    assert ask(quiet, authorizations={"fcauth_1"}).exit_code == 4
    assert asked(ask(quiet, authorizations={"fcauth_2"})) == []


# A snapshot older than an hour


def test_a_fresh_snapshot_is_trusted(quiet: Nights) -> None:
    ask(quiet, authorizations={"fcauth_1"})
    assert quiet.reads("accounts.retrieve") == 0


def test_after_an_hour_the_accounts_are_read_again(quiet: Nights) -> None:
    quiet.world.advance(hours=1)
    result = ask(quiet, authorizations={"fcauth_1"})
    assert (quiet.reads("accounts.retrieve"), asked(result), quiet.posts()) == (2, ["fcauth_1"], 1)


def test_accounts_that_work_again_need_no_request(quiet: Nights) -> None:
    quiet.world.heal_authorization("fcauth_1")
    quiet.world.advance(hours=1)
    result = ask(quiet, authorizations={"fcauth_1", "fcauth_2"})
    assert result.exit_code == 0
    assert quiet.world.contacts_by_authorization() == {"fcauth_2": 1}
    assert outcomes(result)["fcauth_1"] == "healed"
    rows = {row["authorization_id"]: row["result"] for row in table(result, "relink_requests")}
    assert rows == {"fcauth_1": "not_sent", "fcauth_2": "created"}
    assert [name for night in result.nights for name, _ in night.skipped] == ["fcauth_1"]
    assert_ties(result)


def test_one_that_works_again_leaves_the_other_to_be_asked_about(quiet: Nights) -> None:
    quiet.world.heal_account("fca_1_1")
    quiet.world.advance(hours=1)
    assert asked(ask(quiet, authorizations={"fcauth_1"})) == ["fcauth_1"]
    assert quiet.posts() == 1


@pytest.mark.parametrize("change", ["holder", "authorization", "gone"])
def test_accounts_that_changed_hands_are_for_a_person(quiet: Nights, change: str) -> None:
    if change == "holder":
        quiet.world.set_holder("fca_1_2", ("customer", "cus_other"))
    elif change == "authorization":
        quiet.world.override("fca_1_2", {"authorization": "fcauth_other"})
    else:
        quiet.world.remove_account("fca_1_2")
    quiet.world.advance(hours=1)
    result = ask(quiet, authorizations={"fcauth_1"})
    assert (quiet.posts(), outcomes(result)) == (0, {"fcauth_1": "review"})
    assert_ties(result)


def test_what_was_left_out_may_be_asked_about_later(quiet: Nights) -> None:
    quiet.world.heal_authorization("fcauth_1")
    quiet.world.advance(hours=1)
    ask(quiet, authorizations={"fcauth_1"})
    quiet.world.break_authorization("fcauth_1")
    quiet.world.advance(hours=1)
    again = ask(quiet, authorizations={"fcauth_1"})
    assert again.exit_code == 0
    assert quiet.world.contacts_by_authorization() == {"fcauth_1": 1}
    assert_ties(again)


def test_a_reread_that_fails_sends_nothing(quiet: Nights) -> None:
    quiet.world.advance(hours=1)
    quiet.world.faults.script("error_503", path="*/accounts/*", times=100)
    result = ask(quiet, authorizations={"fcauth_1", "fcauth_2"})
    assert (result.exit_code, quiet.posts()) == (4, 0)
    assert set(quiet.states().values()) == {"not_sent"}
    assert_ties(result)


def test_without_a_snapshot_one_is_made(nights: Nights) -> None:
    result = ask(nights, authorizations={"fcauth_1"})
    assert (asked(result), nights.posts()) == (["fcauth_1"], 1)
    assert nights.run().exit_code == 0
    assert nights.posts() == 3, "the night itself is not done by it"


def test_a_night_that_stopped_after_its_pull_leaves_the_last_snapshot_current(nights: Nights) -> None:
    """What was pulled is of use only together with what is concluded from it."""
    nights.run()
    add_customer(nights.world, 7)
    nights.world.break_authorization("fcauth_5")
    nights.world.break_authorization("fcauth_7")
    nights.load_ledger()
    nights.world.advance(days=1)
    before = nights.knowledge()
    nights.world.faults.script("unauthorized", path="*/sessions/*", times=100)
    assert nights.run().exit_code == 3
    assert nights.knowledge() == before
    nights.world.faults.clear()
    nights.world.advance(seconds=600)
    result = ask(nights, authorizations={"fcauth_5"})
    assert (result.exit_code, steps(result)["fca_5_1"]) == (0, "none")
    assert_ties(result)
    night = nights.run()
    assert night.exit_code == 0
    assert {"fcauth_5", "fcauth_7"} <= set(nights.states())
    row = {one["account_id"]: one for one in table(night, "accounts")}["fca_5_1"]
    assert row["inactive_since_basis"] == "event", "the event was not lost with the night that stopped"


# Selection files


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "selection.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_selection_file_may_mix_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffauthorization_id,account_holder_id\r\nfcauth_1,\r\n, cus_2 \r\n\r\n")
    assert read_selection_file(path) == Selection(
        authorizations=frozenset({"fcauth_1"}), customers=frozenset({"cus_2"})
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "no header"),
        ("authorization_id\n", "selects nothing"),
        ("authorization_id\n \n", "selects nothing"),
        ("authorization\nfcauth_1\n", "unknown columns authorization"),
        ("authorization_id,email\nfcauth_1,x\n", "unknown columns email"),
        ("authorization_id\nfcauth_1,fcauth_2\n", "line 2 has another number of cells"),
        ("authorization_id,account_id\nfcauth_1\n", "line 2 has another number of cells"),
        ("authorization_id,authorization_id\nfcauth_1,fcauth_2\n", "twice"),
        ('authorization_id\n"fcauth_1\n', "cannot be read as CSV"),
        (b"authorization_id\n\xff\xfe\n", "cannot be read as CSV"),
    ],
)
def test_a_faulty_selection_file_is_refused_whole(tmp_path: Path, content: Any, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read_selection_file(write(tmp_path, content))


def test_a_selection_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_selection_file(tmp_path / "none.csv")
