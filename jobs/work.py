"""What a command wants of a run; light to import, so that a command can look at the lock before anything heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.selection import Selection
    from reconcile.model import RelinkRequest


@dataclass(frozen=True, slots=True)
class Work:
    """What a command wants of a run.

    `full` lists all accounts whatever `pull.mode` says. `from_stored` takes the newest stored snapshot, where there is one, in place of a pull. `collect_everything` looks up every open session,
    `collect_between` of these only the ones that were asked for on business dates from the first to the last. `sends` is False for commands that only
    look. `selection` names what may be asked about, `agreed` the very requests of a plan file, by merchant,
    `adopts` sessions that something else created. `unknowns_resolved_by` is who decided that the selection's unknown requests no longer stand
    in the way. `business_date` is that of the scheduled time which the run serves, where that may not be the date of its start.
    `resumes` are the ids of the runs that this one finishes, the newest first; `retries` the requests to try again, authorization by request id.
    """

    command: str
    dry_run: bool = False
    full: bool = False
    from_stored: bool = False
    collect_everything: bool = False
    collect_between: tuple[date, date] | None = None
    sends: bool = True
    selection: Selection | None = None
    agreed: Mapping[str, Sequence[RelinkRequest]] | None = None
    ignore_cooldown: bool = False
    released_brake: str | None = None
    unknowns_resolved_by: str | None = None
    adopts: tuple[str, ...] = ()
    requested_at: datetime | None = None
    business_date: date | None = None
    resumes: tuple[str, ...] = ()
    retries: Mapping[str, str] | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
