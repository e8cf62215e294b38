"""The sequences: a Hypothesis state machine whose rules are the steps of `play`."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from jobs.simulator.behaviour import ANSWERS
from tests.model.deployment import Rules
from tests.model.play import LEDGER_CHANGES, POST_FAULTS, Play

LATEST_MOMENT = 330
"""About as many moments a night comes to, so that most fates find theirs."""

which = st.integers(0, 7)
moments = st.integers(0, LATEST_MOMENT)
fates = st.sampled_from(["kill", "kill", "kill", "interrupt"])
rivals = st.sampled_from(["race", "stop", "stop"])


@cache
def directory() -> Path:
    """A place in memory, the same for all sequences of this process."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="relink-model-", dir=memory if os.access(memory, os.W_OK) else None)) / "one"


class Model(RuleBasedStateMachine):
    """One sequence; `counts` sums up what was done in all."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.play: Play | None = None

    @initialize(
        cooldown_days=st.integers(2, 4),
        max_attempts=st.integers(1, 3),
        pending_days=st.integers(1, 7),
        max_requests_per_run=st.sampled_from([1000, 1000, 2]),
        brake_minimum=st.sampled_from([1000, 1000, 3]),
    )
    def begin(self, **rules: int) -> None:
        self.play = Play(directory(), Rules(**rules), type(self).counts)
        self.stack.enter_context(self.play.deployment.installed())
        self.play.step("run")

    def teardown(self) -> None:
        with self.stack:
            if self.play is not None and not self.play.failed:
                self.play.finish()
        type(self).counts["sequences"] += 1

    def do(self, name: str, **arguments: Any) -> None:
        assert self.play is not None
        self.play.step(name, **arguments)

    @rule(account=st.integers(0, 11), cause=which, lasting=st.sampled_from([False, False, False, True]))
    def break_account(self, **arguments: Any) -> None:
        self.do("break_account", **arguments)

    @rule(authorization=which, cause=which)
    def break_authorization(self, **arguments: Any) -> None:
        self.do("break_authorization", **arguments)

    @rule(authorization=which, cause=which)
    def break_another(self, **arguments: Any) -> None:
        self.do("break_authorization", **arguments)

    @rule(bank=st.integers(0, 2))
    def break_bank(self, **arguments: Any) -> None:
        self.do("break_bank", **arguments)

    @rule(account=st.integers(0, 11))
    def heal_account(self, **arguments: Any) -> None:
        self.do("heal_account", **arguments)

    @rule(authorization=which)
    def heal_authorization(self, **arguments: Any) -> None:
        self.do("heal_authorization", **arguments)

    @rule(account=st.integers(0, 11), whole=st.booleans())
    def disconnect(self, **arguments: Any) -> None:
        self.do("disconnect", **arguments)

    @rule(authorization=which, days=st.sampled_from([None, 1, 5, 14, 15, 20]), withdraw=st.booleans())
    def announce(self, authorization: int, days: int | None, withdraw: bool) -> None:
        if withdraw:
            self.do("withdraw", authorization=authorization)
        else:
            self.do("announce", authorization=authorization, days=days)

    @rule(account=which, status=st.sampled_from(["expired", "deactivated", "transactable"]), few=st.booleans())
    def change_account(self, account: int, status: str, few: bool) -> None:
        if account % 2:
            self.do("number", account=account, status=status)
        else:
            self.do("grant", account=account, few=few)

    @rule(
        session=which,
        how=st.sampled_from(ANSWERS),
        chosen=st.integers(0, 3),
        keep=st.booleans(),
        gone=st.booleans(),
        ambiguous=st.booleans(),
        lag_hours=st.sampled_from([0, 0, 0, 5, 30]),
    )
    def answer(self, **arguments: Any) -> None:
        self.do("answer", **arguments)

    @rule(session=which, how=st.sampled_from(["whole", "partial", "new_authorization"]), gone=st.booleans())
    def relink(self, **arguments: Any) -> None:
        self.do("answer", **arguments)

    @rule(hours=st.sampled_from([0.2, 1.5, 5, 19, 20, 23]))
    def wait_hours(self, hours: float) -> None:
        self.do("wait", hours=hours)

    @rule(hours=st.sampled_from([24, 25, 48, 96, 192]))
    def wait_days(self, hours: float) -> None:
        self.do("wait", hours=hours)

    @rule(hours=st.sampled_from([0, 0, -25, 25]))
    def set_clock(self, hours: int) -> None:
        self.do("set_clock", hours=hours)

    @rule(kind=st.integers(0, len(POST_FAULTS) - 1), rate=st.sampled_from([0.3, 0.6, 1.0]), reads=st.booleans())
    def storm(self, **arguments: Any) -> None:
        self.do("storm", **arguments)

    @rule()
    def quiet(self) -> None:
        self.do("quiet")

    @rule(row=st.integers(0, 14), what=st.sampled_from(LEDGER_CHANGES), follow=st.booleans(), close_old=st.booleans())
    def change_ledger(self, row: int, what: str, follow: bool, close_old: bool) -> None:
        if follow and self.play is not None and len(self.play.world.listing) > len(self.play.deployment.ledger):
            self.do("follow_successors", close_old=close_old)
        else:
            self.do("change_ledger", row=row, what=what)

    @rule(customer=which)
    def hand_over(self, **arguments: Any) -> None:
        self.do("hand_over", **arguments)

    @rule()
    def run(self) -> None:
        self.do("run")

    @rule(hours=st.sampled_from([20, 24, 24, 24, 96]))
    def next_night(self, hours: float) -> None:
        self.do("wait", hours=hours)
        self.do("run")

    @rule(fate=fates, at=moments)
    def crash(self, **arguments: Any) -> None:
        self.do("run", **arguments)

    @rule(hours=st.sampled_from([20, 24, 96]), fate=fates, at=moments)
    def crash_next_night(self, hours: float, fate: str, at: int) -> None:
        self.do("wait", hours=hours)
        self.do("run", fate=fate, at=at)

    @rule(fate=rivals, at=moments)
    def race(self, **arguments: Any) -> None:
        self.do("wait", hours=24)
        self.do("run", **arguments)

    @rule(as_plan=st.booleans())
    def look(self, as_plan: bool) -> None:
        self.do("plan_file" if as_plan else "dry_run")

    @precondition(lambda self: self.play is not None and self.play.has_plan)
    @rule(fate=st.none() | fates, at=moments)
    def apply(self, **arguments: Any) -> None:
        self.do("apply", **arguments)

    @rule(
        authorization=which,
        ignore_cooldown=st.booleans(),
        resolve_unknown=st.booleans(),
        fate=st.none() | fates | rivals,
        at=moments,
    )
    def request(self, **arguments: Any) -> None:
        self.do("request", **arguments)

    @rule(fate=st.none() | st.none() | fates, at=moments)
    def collect(self, **arguments: Any) -> None:
        self.do("collect", **arguments)

    @precondition(lambda self: self.play is not None and self.play.has_held)
    @rule(held=st.integers(0, 2), fate=st.none() | fates, at=moments)
    def release(self, **arguments: Any) -> None:
        self.do("release", **arguments)

    @rule(authorization=which)
    def foreign_session(self, **arguments: Any) -> None:
        self.do("foreign_session", **arguments)

    @precondition(lambda self: self.play is not None and self.play.judge.sessions_to_adopt())
    @rule(session=which, fate=st.none() | st.none() | fates, at=moments)
    def adopt(self, **arguments: Any) -> None:
        self.do("adopt", **arguments)
