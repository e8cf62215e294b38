"""Accounts that a complete list leaves out although something is open about them: gone only if Stripe says so when asked for each."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial

import pandas as pd

from jobs.adapters import records
from jobs.crew import FAILURES_IN_A_ROW
from jobs.night import MerchantNight
from jobs.reading import read_in_order
from jobs.wiring import Merchant, Wiring
from reconcile.classify import flags
from reconcile.frames import values_of
from reconcile.normalize import accounts_frame
from reconcile.records import AccountRecord, ReadFailed

logger = logging.getLogger(__name__)


def with_missing(
    wiring: Wiring, night: MerchantNight, previous: pd.DataFrame, missing: Collection[str], accounts: pd.DataFrame
) -> pd.DataFrame:
    """Tonight's accounts (`frames.ACCOUNTS`), with those that the list left out and that Stripe has all the same.

    Without its account an outage would count as over, and begin anew, with attempts of its own, as soon as the list has it again. So each
    that had an outage or an open request is asked for by its id: only a 404 says that it is gone.

    Args:
        previous: the newest recorded state of each account (`frames.HISTORY`).
        missing: ids of the last snapshot that the list does not have.

    Raises:
        ReadFailed: Stripe does not say whether it has one.
        ReadRejected, MalformedAnswer: several in a row cannot be read.
        ModeMismatch: one is of the other mode.
    """
    concerned = _concerned(wiring, night, previous, missing)
    if not concerned:
        return accounts
    found: list[AccountRecord] = []
    for account_id, read in read_in_order(concerned, partial(_account, night.merchant), failures=FAILURES_IN_A_ROW):
        if isinstance(read, ReadFailed):
            raise read
        if isinstance(read, Exception):
            logger.warning("account %s is not in the list and could not be asked for: %s", account_id, read)
        elif read is not None and read.account_id == account_id:
            logger.error("account %s is not in the list of accounts, but Stripe has it: it is taken in", account_id)
            found.append(read)
    return pd.concat([accounts, accounts_frame(found)], ignore_index=True) if found else accounts


def _concerned(wiring: Wiring, night: MerchantNight, previous: pd.DataFrame, missing: Collection[str]) -> list[str]:
    if not missing:
        return []
    scope, database = night.merchant.scope, wiring.database
    authorizations = {one.key.authorization_id for one in records.open_breakages(database, scope)}
    authorizations |= {one.authorization_id for one in records.open_requests(database, scope)}
    of_them = flags(previous["account_id"].isin(list(missing))) & flags(
        previous["authorization_id"].isin(list(authorizations))
    )
    return sorted(values_of(previous.loc[of_them, "account_id"]))


def _account(merchant: Merchant, account_id: str) -> AccountRecord | None:
    return merchant.gateway.retrieve_account(account_id, purpose="missing")
