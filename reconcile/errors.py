"""The errors that stop a command, one class for each way to recover."""

from __future__ import annotations


class RelinkError(Exception):
    """A fault that a person can mend; its text says what is wrong, where, and how to mend it.

    `exit_code` is what the command ends with. Messages never hold a secret, a URL from Stripe or an e-mail address.
    """

    exit_code = 1


class SettingsError(RelinkError):
    """Usage or settings are wrong; nothing was started."""

    exit_code = 2


class OutsideError(RelinkError):
    """Something outside stopped the job: Stripe, the ledger, the database or the disk."""

    exit_code = 3


class IncompletePull(OutsideError):
    """The list of accounts could not be proved complete, so nothing may be concluded from it."""


class StripeUnavailable(OutsideError):
    """Stripe could not be reached or kept failing."""


class KeyRefused(OutsideError):
    """Stripe refused the API key (401) or what it asked for (403)."""


class ModeMismatch(OutsideError):
    """The key, the settings, the records and Stripe's objects do not agree on live or sandbox."""


class LedgerError(OutsideError):
    """The ledger is unreachable or its rows break the column contract."""


class DatabaseError(OutsideError):
    """The job's own database cannot be used; nothing is sent without a committed intent."""


class SchemaOutdated(DatabaseError):
    """The job's tables are of another version: run `relink db upgrade`."""


class ReportError(OutsideError):
    """The reports cannot be written."""


class LeaseLost(OutsideError):
    """Another run took the lock over, so this one must not contact anybody any more."""


class DecisionNeeded(RelinkError):
    """A brake, a held plan or a refused plan: a person must decide."""

    exit_code = 5


class AlreadyRunning(RelinkError):
    """Another run holds the lock."""

    exit_code = 6
