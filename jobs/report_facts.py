"""What a published report says and no other record tells, kept with its run so that the report can be rebuilt byte for byte.

Everything else in a report is worked out again from the snapshot, the account history and the dated records. What stays is small: the run in
numbers, the other side of its control totals, one letter an account for what was decided about it, and the names of the reports that its page
looked back on. Packed, a million accounts take about a tenth of a byte each.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from jobs.adapters.records import ReportFacts
from reconcile.errors import DatabaseError
from reconcile.frames import FINDINGS, array_of, arrow_series
from reconcile.masking import mask
from reconcile.model import NextStep, RunStamp, StoredRequest
from reports.control import ControlInputs
from reports.csv_files import end_to_end
from reports.past_nights import LookedBack
from reports.summary import (
    ApiCalls,
    ForeignSession,
    LapsesTold,
    ListedTold,
    MerchantRun,
    Orphans,
    PullTold,
    RefusedTold,
    RunFacts,
)

_LETTERS: Mapping[str, str] = {
    NextStep.NONE: "n",
    NextStep.LEDGER_CLOSED: "l",
    NextStep.REPLACED: "p",
    NextStep.NOT_RELINKABLE: "x",
    NextStep.REVIEW: "v",
    NextStep.DO_NOT_CONTACT: "d",
    NextStep.REASON_OFF: "f",
    NextStep.OPEN_SESSION: "o",
    NextStep.ATTEMPTS_EXHAUSTED: "a",
    NextStep.COOLDOWN: "c",
    NextStep.HELD_BY_BRAKE: "h",
    NextStep.CAPPED: "m",
    NextStep.REQUEST: "r",
}
"""How a next step is kept; a letter once given stays."""

_IDS_AT_ONCE = 50_000

_ANSWER = ("error_type", "error_code", "error_message", "http_status", "stripe_request_id", "calls")


@dataclass(frozen=True, slots=True)
class Decided:
    """The next step of each account in order of account id, as letters, and a hash of those ids."""

    steps: str
    accounts_sha256: str

    @classmethod
    def of(cls, findings: pd.DataFrame) -> Decided:
        """From planned `frames.FINDINGS`."""
        steps = array_of(findings["next_step"]).dictionary_encode()
        letters = pa.array([_LETTERS[step] for step in steps.dictionary.to_pylist()], pa.string())
        return cls(end_to_end(letters.take(steps.indices)).decode(), _ids_sha256(findings))

    def put_on(self, findings: pd.DataFrame) -> pd.DataFrame | None:
        """The findings with these steps; None where they are of other accounts."""
        if len(self.steps) != len(findings) or self.accounts_sha256 != _ids_sha256(findings):
            return None
        step_of = {letter: str(step) for step, letter in _LETTERS.items()}
        planned = findings.copy()
        steps = [step_of[letter] for letter in self.steps]
        planned["next_step"] = arrow_series(steps, FINDINGS["next_step"], planned.index)
        return planned


@dataclass(frozen=True, slots=True)
class MerchantFacts:
    """One merchant that reached its report.

    `settled` are the requests of earlier runs that this one brought to an end, `taken_over` those of the runs that it finished, which it tells
    as its own. `unanswered` are its own requests that had no answer when the
    report was made, with what was known of the failure, since a later run replaces that.
    """

    decided: Decided
    settled: tuple[str, ...]
    unanswered: Mapping[str, Mapping[str, object]]
    control: ControlInputs
    taken_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptFacts:
    """Everything that is kept of one published report.

    `merchants` are those that reached it. `before` are the reports that its page looked back on, `unread` those that could not be read;
    `files` are the SHA-256 of what was published, by name.
    """

    run: RunFacts
    merchants: Mapping[str, MerchantFacts]
    published_at: datetime
    before: tuple[LookedBack, ...] = ()
    unread: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def pack(kept: KeptFacts) -> ReportFacts:
    """The facts as they are stored: compressed JSON, in which nothing is secret."""
    run, stamp = kept.run, kept.run.stamp
    values = {
        "stamp": {
            "run_id": stamp.run_id,
            "command": stamp.command,
            "as_of": stamp.as_of.isoformat(),
            "business_date": stamp.business_date.isoformat(),
            "timezone": stamp.timezone,
            "resumed_from": stamp.resumed_from,
        },
        "complete": run.complete,
        "sent": run.sent,
        "why": None if run.why is None else mask(run.why),
        "api_calls": asdict(run.api_calls),
        "orphans": {
            **asdict(run.orphans),
            "foreign": [
                {**asdict(one), "seen_at": one.seen_at.isoformat(), "why": mask(one.why)} for one in run.orphans.foreign
            ],
        },
        "listed": [asdict(one) for one in run.listed],
        "durations_seconds": {stage: round(seconds, 3) for stage, seconds in run.durations_seconds.items()},
        "runs": [
            {
                **asdict(one),
                "why": None if one.why is None else mask(one.why),
                "refresh_trouble": None if one.refresh_trouble is None else mask(one.refresh_trouble),
                "basis_date": None if one.basis_date is None else one.basis_date.isoformat(),
            }
            for one in run.merchants
        ],
        "merchants": {
            name: {**asdict(one), "control": one.control.as_json()} for name, one in sorted(kept.merchants.items())
        },
        "before": kept.before,
        "unread": kept.unread,
        "files": dict(kept.files),
    }
    packed = zlib.compress(json.dumps(values, separators=(",", ":"), sort_keys=True).encode(), 9)
    return ReportFacts(kept.published_at, packed)


def _merchant_run(values: Mapping[str, Any]) -> MerchantRun:
    pull = values.get("pull")
    told = None if pull is None else PullTold(**pull)
    lapses = tuple(LapsesTold(**one) for one in values.get("expected_lapses", ()))
    more = {"basis_date": _date(values["basis_date"]), "pull": told, "expected_lapses": lapses}
    return MerchantRun(**{**values, **more})


def unpack(stored: ReportFacts) -> KeptFacts:
    """The reverse of `pack`.

    Raises:
        DatabaseError: it is not what `pack` made.
    """
    try:
        values = json.loads(zlib.decompress(stored.facts))
        stamp = values["stamp"]
        run = RunFacts(
            stamp=RunStamp(
                run_id=stamp["run_id"],
                command=stamp["command"],
                as_of=datetime.fromisoformat(stamp["as_of"]),
                business_date=date.fromisoformat(stamp["business_date"]),
                timezone=stamp["timezone"],
                resumed_from=tuple(stamp.get("resumed_from", ())),
            ),
            complete=values["complete"],
            sent=values["sent"],
            merchants=[_merchant_run(one) for one in values["runs"]],
            why=values["why"],
            api_calls=ApiCalls(**values["api_calls"]),
            orphans=_orphans(values.get("orphans", {})),
            listed=[
                ListedTold(**{**one, "refused": [RefusedTold(**each) for each in one["refused"]]})
                for one in values.get("listed", ())
            ],
            durations_seconds=values["durations_seconds"],
        )
        merchants = {
            name: MerchantFacts(
                decided=Decided(**one["decided"]),
                settled=tuple(one["settled"]),
                unanswered=one["unanswered"],
                control=ControlInputs.from_json(one["control"]),
                taken_over=tuple(one.get("taken_over", ())),
            )
            for name, one in values["merchants"].items()
        }
        before = tuple(LookedBack(*one) for one in values["before"])
        return KeptFacts(run, merchants, stored.published_at, before, tuple(values["unread"]), values["files"])
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise DatabaseError(
            f"what is kept of a report cannot be read ({type(error).__name__}): restore the database from a backup"
        ) from None


def answers_wanting(requests: list[StoredRequest]) -> dict[str, dict[str, object]]:
    """What is known of requests that have no answer, by request id."""
    return {
        one.request.request_id: {name: getattr(one, name) for name in _ANSWER}
        for one in requests
        if one.answered_at is None and (one.calls or one.error_type is not None)
    }


def _orphans(kept: Mapping[str, Any]) -> Orphans:
    """Facts that were kept before there were any have none."""
    foreign = [
        ForeignSession(**{**one, "seen_at": datetime.fromisoformat(one["seen_at"])}) for one in kept.get("foreign", ())
    ]
    return Orphans(**{**kept, "foreign": foreign})


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _ids_sha256(findings: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(findings), _IDS_AT_ONCE):
        ids = findings["account_id"].iloc[start : start + _IDS_AT_ONCE]
        lines = end_to_end(pc.binary_join_element_wise("\n", array_of(ids), ""))
        digest.update(lines if start else lines[1:])
    return digest.hexdigest()
