"""Follow sessions that something else created, as attempts that were made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from jobs.adapters import records
from jobs.crew import FAILURES_IN_A_ROW
from jobs.listed_sessions import MOST_READS
from jobs.night import Adoption, MerchantNight
from jobs.wiring import Wiring
from reconcile.classify import flags
from reconcile.contacts import LISTED, sum_up_contacts
from reconcile.listed_sessions import ListedSession
from reconcile.model import (
    AFFECTED,
    KIND_OF_FINDING,
    Breakage,
    BreakageKey,
    BreakageKind,
    CoveredAccount,
    Finding,
    Holder,
    RelinkRequest,
    State,
)
from reconcile.orphans import delivery_of, fits_request
from reconcile.records import MalformedAnswer, ReadFailed, ReadRejected, SessionRecord
from reconcile.request import (
    Row,
    covered_accounts,
    describe_covered,
    due_date,
    exposure_by_currency,
    plain_rows,
    widens,
)

logger = logging.getLogger(__name__)

NAMED = 20
"""So many sessions are named in one line of the log."""


def adopt(wiring: Wiring, night: MerchantNight) -> None:
    """Follow each session that the command or the merchant's list names; one that cannot be followed is refused by name and hinders no other.

    Raises:
        OutsideError: Stripe refused the key, or several reads of the list's sessions in a row failed.
    """
    for number, session_id in enumerate(night.work.adopts, start=1):
        request_id = f"{night.stamp.run_id}-{night.merchant.scope.merchant}-{number:05d}"
        requested_at = night.work.requested_at or night.stamp.as_of
        try:
            adoption = _adopt(wiring, night, session_id, request_id, requested_at, night.stamp.command)
        except records.ContactTaken as taken:
            adoption = Adoption(session_id, "refused", str(taken))
        night.adoptions.append(adoption)
        logger.info("session %s: %s %s", session_id, adoption.result, adoption.why)
    _adopt_listed(wiring, night)


def _adopt_listed(wiring: Wiring, night: MerchantNight) -> None:
    """Follow the sessions that the merchant's list names, before it is decided whom to ask."""
    listed = night.listed
    if listed is None:
        return
    found = {one.stored.session_id for one in night.found}
    known_now = _known_authorizations(night, {told.authorization_id for _, told in listed.refused_before} - {None})
    again = [one for one, told in listed.refused_before if told.authorization_id in known_now]
    remembered = [told for one, told in listed.refused_before if one not in again]
    chosen = [one for one in (*listed.to_read, *again) if one.session_id not in found]
    to_read, unread = chosen[:MOST_READS], listed.unread + len(chosen[MOST_READS:])
    if night.stamp.dry_run:
        night.listed = replace(listed, unread=unread + len(to_read), results=tuple(remembered))
        if to_read:
            named = ", ".join(one.session_id for one in to_read[:NAMED])
            logger.warning("a run would read %d listed sessions and follow those that it can: %s", len(to_read), named)
        return
    results = _read_listed(wiring, night, sorted(to_read, key=lambda one: one.requested_at or night.stamp.as_of))
    adopted = {one.session_id for one in results if one.result == "adopted"}
    unread += len(to_read) - len(results)
    lasting = [records.RefusedSession(one.session_id, one.authorization_id, one.why) for one in results if one.lasting]
    records.add_refused_sessions(wiring.database, night.merchant.scope, lasting, wiring.clock())
    night.listed = replace(
        listed, known=listed.known + len(listed.ids & found), unread=unread, results=(*remembered, *results)
    )
    night.open_before += len(adopted)
    night.foreign = [one for one in night.foreign if one.session_id not in adopted]
    if unread:
        logger.warning("%d sessions of ledger.sessions_query are looked at by the next night", unread)


def _read_listed(wiring: Wiring, night: MerchantNight, sessions: Sequence[ListedSession]) -> list[Adoption]:
    results: list[Adoption] = []
    failures = 0
    for number, one in enumerate(sessions, start=1):
        # No merchant can be called so that a request of theirs has this id: theirs end in digits alone.
        request_id = f"{night.stamp.run_id}-{night.merchant.scope.merchant}-listed{number:05d}"
        requested_at = one.requested_at or night.stamp.as_of
        try:
            adoption = _adopt(wiring, night, one.session_id, request_id, requested_at, LISTED)
        except records.ContactTaken as taken:
            adoption = Adoption(one.session_id, "refused", str(taken))
        except (ReadFailed, ReadRejected, MalformedAnswer) as failed:
            failures += 1
            logger.warning("session %s of ledger.sessions_query could not be read: %s", one.session_id, failed)
            if failures >= FAILURES_IN_A_ROW and isinstance(failed, ReadFailed):
                raise  # Stripe's trouble: whose sessions these are is not known, so nobody is asked tonight
            continue
        failures = 0
        results.append(adoption)
        level = logging.WARNING if adoption.result == "refused" else logging.INFO
        logger.log(level, "session %s of ledger.sessions_query: %s %s", one.session_id, adoption.result, adoption.why)
    return results


def _known_authorizations(night: MerchantNight, authorization_ids: set[str | None]) -> set[str | None]:
    if not authorization_ids:
        return set()
    ids = night.findings["authorization_id"]
    return set(ids.loc[flags(ids.isin(list(authorization_ids)))])


def _adopt(
    wiring: Wiring, night: MerchantNight, session_id: str, request_id: str, requested_at: datetime, origin: str
) -> Adoption:
    scope = night.merchant.scope
    if records.find_by_session(wiring.database, scope, session_id) is not None:
        return Adoption(session_id, "already followed")
    session = night.merchant.gateway.retrieve_session(session_id, purpose="adopt")
    if session is None:
        return Adoption(session_id, "refused", "Stripe has no such session", lasting=True)
    if not session.has_relink_options or session.requested_authorization is None:
        return Adoption(session_id, "refused", "it has no relink_options, so it repairs nothing", lasting=True)
    rows = plain_rows(night.findings.loc[flags(night.findings["authorization_id"] == session.requested_authorization)])
    if not rows:
        return Adoption(
            session_id,
            "refused",
            f"its authorization {session.requested_authorization} is not known; run `relink run` first",
            lasting=True,
            authorization_id=session.requested_authorization,
        )
    unsettled = records.attempting_requests(wiring.database, scope)
    if any(stored.authorization_id == session.requested_authorization for stored in unsettled):
        return Adoption(
            session_id, "refused", "a request of its authorization still waits for Stripe's answer; run again later"
        )
    # What a list names may be any session of the merchant's; only a person who names one has looked for what was lost.
    if origin != LISTED and _settles_unknown(wiring, night, session):
        return Adoption(session_id, "adopted", "it is what an unknown request made")
    request = _request(wiring, night, session, rows, request_id, origin)

    def work(connection: Any) -> bool:
        wiring.require_fence(connection)
        _record_outage(wiring, night, request.breakage)
        return records.adopt_request(
            wiring.database,
            scope,
            night.stamp.run_id,
            night.stamp.date_of(requested_at),
            request,
            session_id,
            requested_at,
            wiring.clock(),
        )

    if not wiring.database.run(work):
        return Adoption(session_id, "already followed")
    return Adoption(session_id, "adopted")


def _settles_unknown(wiring: Wiring, night: MerchantNight, session: SessionRecord) -> bool:
    """Take the session as what the one open unknown request that asked for the same made, if there is just one.

    Whoever names it has found it at Stripe; counting it as a further attempt would count one contact twice.
    """
    # What an event told of tonight is recorded with the decisions.
    found = {one.stored.request.request_id for one in night.found}
    unknown = [
        stored
        for stored in records.unknown_requests(wiring.database, night.merchant.scope)
        if stored.request.request_id not in found and fits_request(stored, session)
    ]
    if len(unknown) != 1:
        return False
    records.resolve_unknown(
        wiring.database,
        unknown[0].request.request_id,
        wiring.clock(),
        resolved_by=f"adopted by run {night.stamp.run_id}",
        state=str(State.CREATED),
        session_id=session.session_id,
    )
    # What tonight's accounts say of it is for the next night to conclude, from the session.
    settled = unknown[0].request.request_id
    night.looked_at = [one for one in night.looked_at if one.request.request_id != settled]
    night.unattributed = [one for one in night.unattributed if one.request.request_id != settled]
    night.outcomes = [one for one in night.outcomes if one.request_id != settled]
    return True


def _request(
    wiring: Wiring, night: MerchantNight, session: SessionRecord, rows: Sequence[Row], request_id: str, origin: str
) -> RelinkRequest:
    scope, stamp = night.merchant.scope, night.stamp
    moved = {
        one.old_account_id
        for one in records.successors(wiring.database, scope)
        if one.old_account_id != one.new_account_id
    }
    covered = covered_accounts(rows, moved)
    if session.requested_account is not None:
        covered = [row for row in covered if row["account_id"] == session.requested_account]
    reason = next(
        (str(kind) for kind in AFFECTED if any(row["finding"] == kind for row in covered)), str(Finding.INACTIVE)
    )
    breakage = _breakage(wiring, night, rows, reason)
    contacts = sum_up_contacts(
        records.requests_for_authorizations(wiring.database, scope, [breakage.authorization_id]), [breakage], stamp
    )
    first = rows[0]
    holder = Holder(
        session.holder_type or str(first["holder_type"]), session.account_holder_id or str(first["account_holder_id"])
    )
    permissions = tuple(sorted(session.permissions or ()))
    return RelinkRequest(
        request_id=request_id,
        merchant=scope.merchant,
        mode=scope.mode,
        breakage=breakage,
        attempt=contacts.highest_attempt.get(breakage, 0) + 1,
        account_id=session.requested_account,
        holder=holder,
        institution_name=first["institution_name"],
        reason=reason,
        cause=next((row["cause"] for row in covered), None),
        covered=describe_covered(covered) or _whole(rows, session.requested_account),
        permissions=permissions,
        widens=widens(rows, permissions, session.requested_account),
        delivery=delivery_of(session),
        due_date=due_date(covered, stamp),
        exposure_by_currency=exposure_by_currency(covered),
        references=tuple(sorted({row["reference"] for row in covered} - {None})),
        origin=origin,
    )


def _whole(rows: Sequence[Row], account_id: str | None) -> tuple[CoveredAccount, ...]:
    """Where nothing is broken any more, every ledger account that the session reaches is to be active after it."""
    reached = [row for row in rows if row["ledger_status"] == "open" and account_id in (None, row["account_id"])]
    return describe_covered([{**row, "finding": str(Finding.INACTIVE)} for row in reached])


def _breakage(wiring: Wiring, night: MerchantNight, rows: Sequence[Row], reason: str) -> BreakageKey:
    """The open breakage that the session is to mend, else the last one of its kind."""
    assert night.breakages is not None
    authorization_id, kind = str(rows[0]["authorization_id"]), str(KIND_OF_FINDING.get(reason, BreakageKind.CONNECTION))
    for breakage in night.breakages.open:
        if (breakage.key.authorization_id, breakage.key.kind) == (authorization_id, kind):
            return breakage.key
    highest = records.highest_breakage_numbers(wiring.database, night.merchant.scope).get((authorization_id, kind), 0)
    return BreakageKey(authorization_id, kind, max(1, highest))


def _record_outage(wiring: Wiring, night: MerchantNight, key: BreakageKey) -> None:
    """Have the outage on record with the session that is to mend it: a run that dies now must not leave its number for another one.

    One that opened tonight is recorded as open, as the decisions will say again. Where there never was any, the first number is
    recorded as over, so that the next outage gets a number of its own.
    """
    assert night.breakages is not None
    database, scope, stamp = wiring.database, night.merchant.scope, night.stamp
    opened = [one for one in night.breakages.opened if one.key == key]
    recorded = records.highest_breakage_numbers(database, scope).get((key.authorization_id, key.kind), 0)
    if opened:
        records.open_breakage(database, scope, *opened)
    elif not recorded:
        records.open_breakage(database, scope, Breakage(key, stamp.as_of, stamp.business_date, stamp.run_id))
        records.close_breakage(database, scope, key, at=stamp.as_of, run_id=stamp.run_id, reason="adopted")
