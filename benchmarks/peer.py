"""What we are measured against: the night as a good engineer would write it in a day, on the same libraries, without tricks and without sloth.

    python -m benchmarks.peer --api-base http://127.0.0.1:4242 --ledger-url … --database-url … --directory reports --now 2026-11-20T03:30:00+00:00

It lists every account with the package's own `auto_paging_iter` on the preview version header, reads the ledger with `pandas.read_sql`, joins
and judges in vectorised pandas, keeps each account's state through the ORM in batches, asks for relinks with an idempotency key that is
committed before the call, and writes CSV and Parquet with the data frame's own writers. It leaves out what a day does not suffice for: a proof
that a list is complete, breakages and attempts, brakes, the collection of results, snapshots, control totals, the page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy
import stripe
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

API_VERSION = "2026-09-30.preview"
EXPIRING_WITHIN_DAYS = 14
COOLDOWN_DAYS = 4
ROWS_PER_BATCH = 5_000
LEDGER_COLUMNS = "account_id, account_holder_id, required_permissions, purpose, status, do_not_contact, exposure_minor, currency, reference"


class Base(DeclarativeBase):
    """The script's own tables."""


class AccountState(Base):
    """The last known state of an account."""

    __tablename__ = "account_states"

    account_id: Mapped[str] = mapped_column(primary_key=True)
    authorization_id: Mapped[str | None]
    account_holder_id: Mapped[str | None]
    institution_name: Mapped[str | None]
    last4: Mapped[str | None]
    subcategory: Mapped[str | None]
    stripe_status: Mapped[str | None]
    cause: Mapped[str | None]
    action: Mapped[str | None]
    permissions: Mapped[str | None]
    finding: Mapped[str | None]
    inactive_since: Mapped[datetime | None] = mapped_column(sqlalchemy.DateTime(timezone=True))
    seen_at: Mapped[datetime] = mapped_column(sqlalchemy.DateTime(timezone=True))


class RelinkRequest(Base):
    """A session that was asked for."""

    __tablename__ = "relink_requests"

    key: Mapped[str] = mapped_column(primary_key=True)
    authorization_id: Mapped[str] = mapped_column(index=True)
    account_holder_id: Mapped[str]
    requested_on: Mapped[date]
    state: Mapped[str]
    session_id: Mapped[str | None]
    error: Mapped[str | None]


def pull(client: stripe.StripeClient) -> pd.DataFrame:
    """Every account with the fields that are needed."""
    listed = client.v1.financial_connections.accounts.list({"limit": 100})
    return pd.DataFrame([_fields(account) for account in listed.auto_paging_iter()])


def _fields(account: Any) -> dict[str, Any]:
    details = account.status_details
    active, inactive = getattr(details, "active", None), getattr(details, "inactive", None)
    shown = inactive if account.status == "inactive" else active if account.status == "active" else None
    due = getattr(active, "expected_deactivation_date", None)
    refreshes = (account.balance_refresh, account.ownership_refresh, account.transaction_refresh)
    refreshed = [one.last_attempted_at for one in refreshes if one is not None and one.status == "succeeded"]
    return {
        "account_id": account.id,
        "authorization_id": account.authorization,
        "account_holder_id": account.account_holder.customer,
        "institution_name": account.institution_name,
        "last4": account.last4,
        "subcategory": account.subcategory,
        "stripe_status": account.status,
        "cause": getattr(shown, "cause", None),
        "action": getattr(shown, "action", None),
        "expected_deactivation_date": None if due is None else datetime.fromtimestamp(due, UTC).date(),
        "permissions": ";".join(sorted(account.permissions or ())),
        "last_refreshed_at": datetime.fromtimestamp(max(refreshed), UTC) if refreshed else None,
    }


def read_ledger(url: str) -> pd.DataFrame:
    """The merchant's accounts."""
    engine = sqlalchemy.create_engine(url)
    ledger = pd.read_sql(sqlalchemy.text(f"SELECT {LEDGER_COLUMNS} FROM ledger"), engine)  # noqa: S608 - a constant
    engine.dispose()
    if ledger.empty or ledger["account_id"].isna().any() or ledger["account_id"].duplicated().any():
        raise SystemExit("the ledger is empty, or account ids are missing or repeat")
    ledger["exposure_minor"] = ledger["exposure_minor"].astype("Int64")
    return ledger.rename(columns={"account_holder_id": "ledger_holder_id", "status": "ledger_status"})


def classify(accounts: pd.DataFrame, ledger: pd.DataFrame, before: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """The outer join with a finding for each account."""
    joined = accounts.merge(ledger, on="account_id", how="outer", validate="one_to_one", indicator=True)
    joined = joined.merge(before, on="account_id", how="left", validate="one_to_one").sort_values("account_id")
    in_stripe, in_ledger = joined["_merge"] != "right_only", joined["_merge"] != "left_only"
    status, action = joined["stripe_status"], joined["action"]
    inactive = status == "inactive"
    since = pd.to_datetime(joined["inactive_since"], utc=True)
    joined["inactive_since"] = since.where(since.notna(), pd.Timestamp(now)).where(inactive)
    today = pd.Timestamp(now.date())
    days_left = (pd.to_datetime(joined["expected_deactivation_date"]) - today).dt.days
    needed = joined["required_permissions"].fillna("").map(lambda text: frozenset(text.split(",")) - {""})
    granted = joined["permissions"].fillna("").map(lambda text: frozenset(text.split(";")))
    joined["missing_permissions"] = [";".join(sorted(need - have)) for need, have in zip(needed, granted, strict=True)]
    joined.loc[~in_stripe, "missing_permissions"] = ""
    joined["finding"] = np.select(
        [
            ~in_stripe,
            ~in_ledger,
            joined["account_holder_id"] != joined["ledger_holder_id"],
            status == "disconnected",
            inactive & (action == "none"),
            inactive & (action == "relink_required"),
            (status == "active") & (action == "relink_required") & (days_left <= EXPIRING_WITHIN_DAYS),
            joined["missing_permissions"] != "",
        ],
        [
            "not_in_stripe",
            "not_in_ledger",
            "holder_mismatch",
            "disconnected",
            "inactive_permanent",
            "inactive",
            "expiring",
            "permissions",
        ],
        "ok",
    )
    joined["affected"] = joined["finding"].isin(["inactive", "expiring", "permissions"])
    by_login = joined.groupby("authorization_id")
    joined["shared_accounts"] = by_login["account_id"].transform("size")
    joined["shared_affected"] = by_login["affected"].transform("sum")
    return joined.drop(columns="_merge")


def save_states(session: Session, findings: pd.DataFrame, now: datetime) -> None:
    """Write every account's state, a batch at a time."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    names = [column.name for column in AccountState.__table__.columns]
    states = findings[findings["stripe_status"].notna()].assign(seen_at=now)[names]
    states = states.astype(object).where(states.notna(), None)
    statement = insert(AccountState)
    changed = {name: statement.excluded[name] for name in names if name != "account_id"}
    statement = statement.on_conflict_do_update(index_elements=["account_id"], set_=changed)
    for start in range(0, len(states), ROWS_PER_BATCH):
        rows = states.iloc[start : start + ROWS_PER_BATCH].to_dict("records")
        session.execute(statement.execution_options(render_nulls=True), rows)
    session.commit()


def plan(findings: pd.DataFrame, asked: pd.DataFrame, now: datetime, most: int) -> pd.DataFrame:
    """The authorizations to ask about tonight, most urgent first, one a customer."""
    silent = set(findings.loc[findings["do_not_contact"].isin([True, 1]), "ledger_holder_id"])
    wanted = findings[
        findings["affected"] & (findings["ledger_status"] == "open") & ~findings["account_holder_id"].isin(silent)
    ]
    due = wanted["inactive_since"].dt.date.where(wanted["inactive_since"].notna(), wanted["expected_deactivation_date"])
    wanted = wanted.assign(due=pd.to_datetime(due).fillna(pd.Timestamp.max.normalize()))
    money = wanted.dropna(subset=["currency", "exposure_minor"])
    money = money.groupby(["authorization_id", "currency"])["exposure_minor"].sum().reset_index()
    money = money.sort_values("currency").drop_duplicates("authorization_id")
    logins = wanted.groupby("authorization_id").agg(
        account_holder_id=("account_holder_id", "first"), due=("due", "min")
    )
    logins = logins.reset_index().merge(money, on="authorization_id", how="left")
    recent = asked[pd.to_datetime(asked["requested_on"]) > pd.Timestamp(now.date() - timedelta(days=COOLDOWN_DAYS))]
    logins = logins[
        ~logins["authorization_id"].isin(asked["authorization_id"])
        & ~logins["account_holder_id"].isin(recent["account_holder_id"])
    ]
    logins = logins.sort_values(
        ["due", "currency", "exposure_minor", "authorization_id"], ascending=[True, True, False, True]
    )
    return logins.drop_duplicates("account_holder_id").head(most)


def permissions_for(findings: pd.DataFrame, chosen: pd.DataFrame) -> dict[str, list[str]]:
    """What to ask for: all that the ledger requires of the login's open accounts."""
    rows = findings[
        findings["authorization_id"].isin(chosen["authorization_id"]) & (findings["ledger_status"] == "open")
    ]
    wanted: dict[str, set[str]] = {}
    for login, required, granted in zip(
        rows["authorization_id"], rows["required_permissions"], rows["permissions"], strict=True
    ):
        text = granted.replace(";", ",") if pd.isna(required) else required
        wanted.setdefault(login, set()).update(text.split(","))
    return {login: sorted(names) for login, names in wanted.items()}


def relink(
    client: stripe.StripeClient, session: Session, findings: pd.DataFrame, chosen: pd.DataFrame, now: datetime
) -> None:
    """Ask for each session; the key is committed before the call."""
    permissions = permissions_for(findings, chosen)
    for login in chosen.itertuples():
        request = RelinkRequest(
            key=str(uuid.uuid4()),
            authorization_id=login.authorization_id,
            account_holder_id=login.account_holder_id,
            requested_on=now.date(),
            state="sending",
        )
        session.add(request)
        session.commit()
        try:
            made = client.v1.financial_connections.sessions.create(
                {
                    "account_holder": {"type": "customer", "customer": login.account_holder_id},
                    "permissions": permissions[login.authorization_id],
                    "relink_options": {"authorization": login.authorization_id},  # type: ignore[typeddict-unknown-key]
                },
                {"idempotency_key": request.key},
            )
            request.session_id, request.state = made.id, "created"
        except stripe.StripeError as error:
            request.state, request.error = "failed", str(error.code)
        session.commit()


def collect(client: stripe.StripeClient, session: Session) -> None:
    """Look what came of the sessions that still wait for an answer."""
    for request in session.scalars(sqlalchemy.select(RelinkRequest).where(RelinkRequest.state == "created")):
        found = client.v1.financial_connections.sessions.retrieve(str(request.session_id))
        if getattr(found, "status", "pending") != "pending":
            request.state = found.status
    session.commit()


def write_reports(directory: Path, findings: pd.DataFrame, requests: pd.DataFrame) -> None:
    """Write each table twice, and what was written last."""
    directory.mkdir(parents=True)
    in_question = findings[findings["affected"]]
    authorizations = in_question.groupby("authorization_id").agg(
        account_holder_id=("account_holder_id", "first"),
        institution_name=("institution_name", "first"),
        affected_accounts=("account_id", "size"),
        exposure_minor=("exposure_minor", "sum"),
    )
    for name, table in _tables(findings, authorizations.reset_index(), requests):
        table.to_csv(directory / f"{name}.csv", index=False)
        table.to_parquet(directory / f"{name}.parquet", index=False)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    (directory / "manifest.json").write_text(json.dumps(files))


def _tables(
    findings: pd.DataFrame, authorizations: pd.DataFrame, requests: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "accounts", findings.drop(columns=["affected", "ledger_holder_id"])
    yield "authorizations", authorizations
    yield "relink_requests", requests


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one night."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    for name in ("--api-base", "--ledger-url", "--database-url", "--directory", "--now"):
        parser.add_argument(name, required=True)
    parser.add_argument("--requests", type=int, default=100)
    given = parser.parse_args(arguments)
    now = datetime.fromisoformat(given.now)
    client = stripe.StripeClient(
        "sk_test_benchmark", base_addresses={"api": given.api_base}, stripe_version=API_VERSION, max_network_retries=5
    )
    engine = sqlalchemy.create_engine(given.database_url)
    Base.metadata.create_all(engine)
    accounts = pull(client)
    ledger = read_ledger(given.ledger_url)
    with Session(engine) as session:
        collect(client, session)
        before = pd.read_sql(sqlalchemy.text("SELECT account_id, inactive_since FROM account_states"), engine)
        findings = classify(accounts, ledger, before, now)
        save_states(session, findings, now)
        asked = pd.read_sql(sqlalchemy.select(RelinkRequest), engine)
        chosen = plan(findings, asked, now, given.requests)
        relink(client, session, findings, chosen, now)
        tonight = sqlalchemy.select(RelinkRequest).where(RelinkRequest.requested_on == now.date())
        requests = pd.read_sql(tonight, engine)
    engine.dispose()
    write_reports(Path(given.directory), findings, requests)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
