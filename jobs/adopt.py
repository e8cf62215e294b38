"""Follow sessions that something else created, as attempts that were made."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jobs.adapters import records
from jobs.night import Adoption, MerchantNight
from jobs.wiring import Wiring
from reconcile.classify import flags
from reconcile.contacts import sum_up_contacts
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
from reconcile.records import SessionRecord
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


def adopt(wiring: Wiring, night: MerchantNight) -> None:
    """Follow each session that the command names; one that cannot be followed is refused by name and hinders no other."""
    for number, session_id in enumerate(night.work.adopts, start=1):
        try:
            adoption = _adopt(wiring, night, session_id, number)
        except records.ContactTaken as taken:
            adoption = Adoption(session_id, "refused", str(taken))
        night.adoptions.append(adoption)
        logger.info("session %s: %s %s", session_id, adoption.result, adoption.why)


def _adopt(wiring: Wiring, night: MerchantNight, session_id: str, number: int) -> Adoption:
    scope = night.merchant.scope
    if records.find_by_session(wiring.database, scope, session_id) is not None:
        return Adoption(session_id, "already followed")
    session = night.merchant.gateway.retrieve_session(session_id, purpose="adopt")
    if session is None:
        return Adoption(session_id, "refused", "Stripe has no such session")
    if session.livemode != (scope.mode == "live"):
        return Adoption(session_id, "refused", f"it is not of {scope.mode} mode")
    if not session.has_relink_options or session.requested_authorization is None:
        return Adoption(session_id, "refused", "it has no relink_options, so it repairs nothing")
    rows = plain_rows(night.findings.loc[flags(night.findings["authorization_id"] == session.requested_authorization)])
    if not rows:
        return Adoption(
            session_id,
            "refused",
            f"its authorization {session.requested_authorization} is not known; run `relink run` first",
        )
    unsettled = records.attempting_requests(wiring.database, scope)
    if any(stored.authorization_id == session.requested_authorization for stored in unsettled):
        return Adoption(
            session_id, "refused", "a request of its authorization still waits for Stripe's answer; run again later"
        )
    if _settles_unknown(wiring, night, session):
        return Adoption(session_id, "adopted", "it is what an unknown request made")
    request = _request(wiring, night, session, rows, number)
    requested_at = night.work.requested_at or night.stamp.as_of
    adopted = records.adopt_request(
        wiring.database,
        scope,
        night.stamp.run_id,
        night.stamp.date_of(requested_at),
        request,
        session_id,
        requested_at,
        wiring.clock(),
    )
    if not adopted:
        return Adoption(session_id, "already followed")
    return Adoption(session_id, "adopted")


def _settles_unknown(wiring: Wiring, night: MerchantNight, session: SessionRecord) -> bool:
    """Take the session as what the one open unknown request that asked for the same made, if there is just one.

    Whoever names it has found it at Stripe; counting it as a further attempt would count one contact twice.
    """
    unknown = [
        stored
        for stored in records.unknown_requests(wiring.database, night.merchant.scope)
        if fits_request(stored, session)
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
    return True


def _request(
    wiring: Wiring, night: MerchantNight, session: SessionRecord, rows: Sequence[Row], number: int
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
        request_id=f"{stamp.run_id}-{scope.merchant}-{number:05d}",
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
        origin=stamp.command,
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
    database, scope, stamp = wiring.database, night.merchant.scope, night.stamp
    highest = records.highest_breakage_numbers(database, scope).get((authorization_id, kind), 0)
    key = BreakageKey(authorization_id, kind, max(1, highest))
    if not highest:
        # Recorded as over, so that the next outage gets a number of its own.
        records.open_breakage(database, scope, Breakage(key, stamp.as_of, stamp.business_date, stamp.run_id))
        records.close_breakage(database, scope, key, at=stamp.as_of, run_id=stamp.run_id, reason="adopted")
    return key
