"""What a person must know and do: notices about the run itself, and the cases that the job will not settle alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reports.page_model import Need, Notice, Task, count, plural
from reports.past_nights import Past
from reports.twins import is_in_review, twin_groups

Row = Mapping[str, Any]

LISTED = 20
"""Cases of one kind that are listed in full; the rest are in the files."""

REVIEWS: Mapping[str, str] = {
    "unreadable": "Stripe describes this account in a way that this version cannot judge. See what is known, and ask Stripe's support if it stays so.",
    "not_in_ledger": "Stripe lists this account and your ledger does not. Add it to the ledger, as closed if it is not in use.",
    "holder_mismatch": "Stripe and your ledger name different customers. Correct the ledger, or find out who linked whose account.",
}
"""Why an account waits for a person, by finding."""

REVIEW_OF_AFFECTED = (
    "It is broken, and asking would be a guess: its accounts disagree on the customer, an older request is unknown, its cause is set to "
    "review, or it came back under another login that could not be matched."
)


def notices(summary: Mapping[str, Any], past: Past) -> Iterator[Notice]:
    """What is wrong with the run, the worst first, then what is merely worth knowing."""
    if summary["counts"] is None:
        yield Notice(
            "The run stopped before it could report. Mend what stopped it and start it again: what was begun is settled first.",
            detail=summary["why"] or "",
            command="relink run" if summary["command"] == "run" else "",
        )
    merchants: Sequence[Row] = summary["merchants"]
    for one in merchants:
        if not one["complete"] and summary["counts"] is not None:
            yield Notice(
                f"Merchant {one['merchant']} stopped: its accounts may be missing here.", detail=one["why"] or ""
            )
    for total in summary["control"]:
        if not total["ties"]:
            yield Notice(
                f"A control total does not tie: {total['name']}: {total['left']:,} and {total['right']:,}. Do not rely on these figures."
            )
    for one in merchants:
        if one["held"]:
            yield Notice(
                f"A brake holds the requests of merchant {one['merchant']}: {one['why'] if one['complete'] and one['why'] else 'see below'}."
            )
        if one.get("quiet"):
            yield Notice(f"Merchant {one['merchant']}: nobody was contacted, {one['quiet']}.", bad=False)
    for result, words in (
        ("rejected", "refused by Stripe"),
        ("unknown", "sent without a certain answer"),
        ("not_sent", "not sent"),
    ):
        number = (summary["counts"] or {}).get("result", {}).get(result, 0)
        if number:
            yield Notice(f"{plural(number, 'request')} of this run {'was' if number == 1 else 'were'} {words}.")
    yield from _about_orphans(summary.get("orphans") or {})
    yield from _about_listed(summary.get("sessions_query") or [])
    yield from _about_others(summary.get("accounts_compared") or {})
    yield from _about_refreshes(summary)
    if summary["dry_run"]:
        yield Notice(
            "A dry run: nobody was asked and nothing was recorded; requests here are those that would be made.",
            bad=False,
        )
    elif summary["sent"] and summary["counts"] is None:
        yield Notice(f"{plural(summary['sent'], 'request')} may have reached Stripe before it stopped.")
    if summary.get("basis") == "earlier_snapshot":
        yield Notice(
            f"The accounts and the ledger are those of {summary['basis_date']}: there is no snapshot of {summary['run_date']}.",
            bad=False,
        )
    yield from _about_history(summary, past)


def _about_listed(listed: list[Mapping[str, Any]]) -> Iterator[Notice]:
    for merchant in listed:
        refused = merchant["refused"]
        for one in refused[:LISTED]:
            yield Notice(
                f"Session {one['session_id']} of ledger.sessions_query cannot be followed; correct it there, or leave it out.",
                detail=one["why"],
            )
        if len(refused) > LISTED:
            yield Notice(
                f"{plural(len(refused) - LISTED, 'more session')} of ledger.sessions_query cannot be followed: see sessions_query in summary.json."
            )


def _about_orphans(orphans: Mapping[str, Any]) -> Iterator[Notice]:
    foreign = orphans.get("foreign_sessions") or []
    for one in foreign[:LISTED]:
        yield Notice(
            f"Session {one['session_id']} asks about authorization {one['authorization_id']} and is not followed. To follow it:",
            command=one["command"],
            detail=one["why"],
        )
    if len(foreign) > LISTED:
        yield Notice(
            f"{plural(len(foreign) - LISTED, 'more session')} that this job does not follow: see orphans in summary.json."
        )
    for name, words in (
        ("found", "of an earlier night was found by an event and is followed again"),
        ("reactivated_unattributed", "has accounts that came back, and no known session explains it"),
    ):
        if orphans.get(name):
            yield Notice(f"{plural(orphans[name], 'unknown request')}: each {words}.", bad=False)


def _about_refreshes(summary: Mapping[str, Any]) -> Iterator[Notice]:
    counted = {name: number for name, number in (summary["counts"] or {}).get("refresh_status", {}).items() if number}
    if counted:
        said = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counted.items())
        yield Notice(
            f"Fresh data of accounts that came back within 30 business dates: {said}. See refresh_status in accounts.",
            bad=False,
        )
    for one in summary["merchants"]:
        if one.get("refresh_trouble"):
            yield Notice(
                f"Merchant {one['merchant']}: not all fresh data could be asked for tonight; the next night goes on.",
                detail=one["refresh_trouble"],
            )


def _about_others(compared: Mapping[str, Any]) -> Iterator[Notice]:
    if compared.get("others"):
        yield Notice(
            f"{plural(compared['requests_with_others'], 'customer')} brought back {plural(compared['others'], 'account')} besides those asked "
            "for: see other_accounts in relink_outcomes.",
            bad=False,
        )


def _about_history(summary: Mapping[str, Any], past: Past) -> Iterator[Notice]:
    if past.base is None:
        yield Notice(
            "No earlier complete run within 30 business dates: there is nothing to compare with yet.", bad=False
        )
    for name in past.unread:
        yield Notice(f"An earlier report could not be read and is left out: {name}.")


def needs(summary: Mapping[str, Any], tables: Mapping[str, pa.Table], newest: Iterable[Row]) -> list[Need]:
    """Every kind of case that waits for a person, with its cases; kinds without any are left out.

    `newest` are the newest rows of the requests of thirty business dates, tonight's included.
    """
    requests, outcomes, accounts = tables["relink_requests"], tables["relink_outcomes"], tables["accounts"]
    unknown = _still_unknown(newest, outcomes, accounts)
    again = _retry(summary)
    twins = twin_groups(accounts)
    found = [
        *_held(summary, tables["authorizations"]),
        _need(
            "unknown",
            "Requests of which nobody knows whether Stripe made a session",
            "Look for the idempotency key, which `relink status` shows, in the request logs of Stripe's Dashboard. If Stripe made a session, "
            "`relink adopt` it; else ask again with the command beside it. Until then these customers are not asked.",
            "relink_outcomes.parquet where outcome = 'unknown', and of the reports of the 30 business dates up to tonight the newest rows of "
            "requests with that outcome whose authorization_id is in accounts.parquet where next_step = 'review'",
            unknown,
            _unknown,
        ),
        _need(
            "rejected",
            "Requests that Stripe refused tonight",
            "Mend what Stripe's message names. A later night asks again after the cooldown; "
            + (
                "the command does so at once."
                if again
                else "once this run has been finished, `relink retry` does so at once."
            ),
            "relink_requests.parquet where result = 'rejected'",
            _where(requests, "result", "rejected"),
            _rejected,
            again,
        ),
        _need(
            "not_sent",
            "Requests that were planned and not sent",
            "The run stopped before their turn; these customers know nothing yet, and the next night takes them up.",
            "relink_requests.parquet where result = 'not_sent'",
            _where(requests, "result", "not_sent"),
            _rejected,
            again or _resume(summary),
        ),
        _need(
            "answers",
            "Answers that cannot be read safely",
            "The session is gone, or succeeded without saying how. See what is known of it, and look it up in Stripe's Dashboard.",
            "relink_outcomes.parquet where outcome = 'review'",
            _where(outcomes, "outcome", "review"),
            _answer,
        ),
        _twins(twins),
        *_reviews(
            accounts,
            {(row["merchant"], row["authorization_id"]) for row in unknown},
            {(row["merchant"], row["account_id"]) for group in twins for row in group},
        ),
        _need(
            "attempts_exhausted",
            "Customers who were asked as often as the settings allow",
            "Nothing more is sent about this outage. Call or write to the customer yourself, or close the account in the ledger; "
            "when it works again the job notices by itself.",
            "accounts.parquet where next_step = 'attempts_exhausted'",
            _where(accounts, "next_step", "attempts_exhausted"),
            _account,
        ),
        _replaced(accounts, tables["account_successors"]),
    ]
    return [need for need in found if need.count.value]


def _retry(summary: Mapping[str, Any]) -> str:
    """What tries the refused and unsent requests of a finished run again; nothing for any other."""
    asked = summary["complete"] and not summary["dry_run"]
    return f"relink retry {_quoted(summary['run_id'])}" if asked else ""


def _resume(summary: Mapping[str, Any]) -> str:
    """What finishes a night that stopped; other commands are called again."""
    is_night = summary["command"] in ("run", "resume") and not summary["dry_run"]
    return f"relink resume {_quoted(summary['run_id'])}" if is_night else ""


def _held(summary: Mapping[str, Any], authorizations: pa.Table) -> Iterator[Need]:
    held = _where(authorizations, "next_step", "held_by_brake")
    for one in summary["merchants"]:
        if not one["held"]:
            continue
        own = _where(held, "merchant", one["merchant"])
        plan_hash = one.get("held_plan_hash")
        yield Need(
            f"held.{one['merchant']}",
            f"Requests that a brake holds, merchant {one['merchant']}",
            "Decide whether so much broke at the banks or whether something of ours is wrong. The command asks these customers; it works once, "
            "within 24 hours, and `relink status` names the plan file to read first."
            if plan_hash
            else "So much broke at once that a person would have to release these requests.",
            count(f"needs.held.{one['merchant']}", own.num_rows),
            "authorizations.parquet where next_step = 'held_by_brake'",
            command=f"relink run --override-brakes {_quoted(plan_hash)}" if plan_hash else "",
        )


def _still_unknown(newest: Iterable[Row], outcomes: pa.Table, accounts: pa.Table) -> list[Row]:
    """The unknown requests that still wait: tonight's, and older ones whose customers are not asked because of them."""
    reviewed = _where(accounts, "next_step", "review").select(["merchant", "authorization_id"]).to_pylist()
    waiting = {(row["merchant"], row["authorization_id"]) for row in reviewed}
    tonight = set(_where(outcomes, "outcome", "unknown")["request_id"].to_pylist())
    found = [
        row
        for row in newest
        if row["outcome"] == "unknown"
        and (row["request_id"] in tonight or (row["merchant"], row["authorization_id"]) in waiting)
    ]
    return sorted(found, key=lambda row: (row["merchant"], row["request_id"]))


def _twins(groups: Sequence[Sequence[Row]]) -> Need:
    """Broken accounts that are not asked about because another may be the same, each with those others."""
    others = {
        (row["merchant"], row["account_id"]): [one for one in group if one["account_id"] != row["account_id"]]
        for group in groups
        for row in group
    }

    def task(row: Row) -> Task:
        told = ", ".join(
            f"{one['account_id']} ({one['stripe_status']})" for one in others[row["merchant"], row["account_id"]]
        )
        return Task(_subject(row), f"May be the same as {told}.", f"relink history {_quoted(row['account_id'])}")

    return _need(
        "twins",
        "Accounts that may be one and the same",
        "A customer has several accounts with the same bank, last digits and kind under more than one login, and nothing proves whether they are one account, linked "
        "again. Close the row of one that is not in use in the ledger; to ask about an account all the same, name its login in `relink request --authorization`.",
        "accounts.parquet where next_step = 'review' and the finding can be mended by a relink, of accounts that agree in merchant, account_holder_id, "
        "institution_name, last4 and subcategory under several authorization_id",
        [row for group in groups for row in group if is_in_review(row)],
        task,
    )


def _reviews(
    accounts: pa.Table, unknown: Collection[tuple[str, str]], twins: Collection[tuple[str, str]]
) -> Iterator[Need]:
    """Accounts to review, but for the `twins` and those that wait for nothing but one of the `unknown` requests."""
    chosen = _where(accounts, "next_step", "review")
    titles = {
        "unreadable": "Accounts that cannot be judged",
        "not_in_ledger": "Accounts that the ledger does not name",
        "holder_mismatch": "Accounts of another customer than the ledger says",
    }
    for finding, title in titles.items():
        rows = f"accounts.parquet where next_step = 'review' and finding = '{finding}'"
        yield _need(finding, title, REVIEWS[finding], rows, _where(chosen, "finding", finding), _account)
    others = chosen.filter(pc.invert(pc.is_in(chosen["finding"], pa.array(list(titles))))).to_pylist()
    affected = [
        row
        for row in others
        if (row["merchant"], row["authorization_id"]) not in unknown
        and (row["merchant"], row["account_id"]) not in twins
    ]
    rows = "accounts.parquet where next_step = 'review', all other findings, less the logins of unknown requests and the accounts that may be one above"
    yield _need("review", "Broken accounts that wait for a person", REVIEW_OF_AFFECTED, rows, affected, _account)


def _replaced(accounts: pa.Table, successors: pa.Table) -> Need:
    pairs = zip(successors["old_account_id"].to_pylist(), successors["new_account_id"].to_pylist(), strict=True)
    new_ids = dict(pairs)

    def task(row: Row) -> Task:
        new_id = new_ids.get(row["account_id"])
        goes = f"Lives on as {new_id}." if new_id else "Lives on under another login."
        return Task(_subject(row), goes, f"relink history {_quoted(row['account_id'])}")

    return _need(
        "replaced",
        "Accounts to be changed in the ledger",
        "Their customers connected again under another login, in answer to a request or of their own accord. Put the new account id in the ledger in place of the "
        "old one, or close the old row where the ledger has the new one already: account_successors.sql, beside this page, does so.",
        "accounts.parquet where next_step = 'replaced'",
        _where(accounts, "next_step", "replaced"),
        task,
    )


def _need(
    name: str,
    title: str,
    sentence: str,
    rows: str,
    cases: pa.Table | list[Row],
    task: Callable[[Row], Task],
    command: str = "",
) -> Need:
    listed = cases[:LISTED] if isinstance(cases, list) else cases.slice(0, LISTED).to_pylist()
    number = len(cases) if isinstance(cases, list) else cases.num_rows
    return Need(name, title, sentence, count(f"needs.{name}", number), rows, tuple(map(task, listed)), command)


def _unknown(row: Row) -> Task:
    if row.get("reactivated_unattributed"):
        said = "Accounts came back, and no known session explains it."
        return Task(_subject(row), said, f"relink history {_quoted(row['authorization_id'])}")
    command = f"relink request --authorization {_quoted(row['authorization_id'])} --resolve-unknown"
    return Task(
        _subject(row), f"Sent on {row['requested_at']:%Y-%m-%d %H:%M} UTC." if row["requested_at"] else "", command
    )


def _rejected(row: Row) -> Task:
    said = ": ".join(part for part in (row["error_code"] or row["error_type"], row["error_message"]) if part)
    return Task(_subject(row), said, f"relink history {_quoted(row['authorization_id'])}")


def _answer(row: Row) -> Task:
    return Task(_subject(row), "", f"relink history {_quoted(row['session_id'] or row['authorization_id'])}")


def _account(row: Row) -> Task:
    cause = f", cause {row['cause']}" if row["cause"] else ""
    holder = f", held by {row['account_holder_id']}" if row["account_holder_id"] else ""
    return Task(_subject(row), f"{row['finding']}{cause}{holder}.", f"relink history {_quoted(row['account_id'])}")


def _subject(row: Row) -> str:
    ids = row.get("account_id") if row.get("finding") else row.get("authorization_id")
    last4 = f" ····{row['last4']}" if row.get("last4") else ""
    return f"{row['institution_name'] or '(no institution)'}{last4}, {ids}"


def _where(table: pa.Table, column: str, value: str) -> pa.Table:
    return table.filter(pc.equal(table[column], value))


def _quoted(text: str) -> str:
    """An id as one word of a shell, whatever stands in it."""
    return shlex.quote(text)
