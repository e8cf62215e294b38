"""Send stored requests in order, several at once where Stripe answers, and stop where going on can only make things worse."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from jobs.adapters import records
from jobs.crew import AT_ONCE, FAILURES_IN_A_ROW, Crew
from jobs.key_age import KeyAge
from jobs.send import MaySend, begin, conclude, post
from jobs.wiring import Merchant, Wiring
from reconcile.delivery import UNAVAILABLE_LIMIT
from reconcile.errors import KeyRefused, ModeMismatch, StripeUnavailable
from reconcile.model import State, StoredRequest
from reconcile.records import CallFailure, SessionCreated

logger = logging.getLogger(__name__)

STRIPES_TROUBLE = ("server", "connection", "cut_body", "unparsable", "rate", "lock")
LAST_ANSWERS_SECONDS = 1.0
"""So long an interrupted run still waits for answers to what is under way."""


class Sender:
    """Sends stored requests in order, and stops where going on can only make things worse. A context: leaving it waits for what is under way.

    The first ones are sent one after the other. How many may be under way at once is earned: as many answers in a row as failures
    would end the sending, then one more with each further answer; a failure that is Stripe's takes it back to one. So an outage that was there from
    the start costs no more calls than it would one after the other, and one that begins midway those under way.

    Why several at once are as safe as one: only the thread that calls this object writes to the records. It commits each request as
    `attempting`, under the fence, before it hands its POST to another thread, and records each answer itself. What the other threads do is the
    call to Stripe with its own key and body, and before each try on the wire they ask the lock, the key's age, and whether the sending has
    been stopped. Whatever they are doing when this process ends is `attempting` in the records, as one alone would be, and is settled in the same
    way. No two requests of a run have the same contact, so which of them reaches Stripe first is of no account.
    """

    def __init__(self, wiring: Wiring, merchant: Merchant) -> None:
        self._wiring = wiring
        self._merchant = merchant
        self._failures = 0
        self._answers = 0
        self._crew: Crew[_Sent] = Crew("send")
        self._under_way = 0
        self._stopping = threading.Event()
        self._under_way_of: Counter[str] = Counter()
        self._answers_of: Counter[str] = Counter()
        self.created = 0
        self.unavailable: Counter[str] = Counter()

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                while self._under_way:
                    self._take_in()
        except BaseException as failed:
            self._leave(failed)
            raise
        else:
            if error is not None:
                self._leave(error)
        finally:
            self._stopping.set()
            self._crew.dismiss()

    def send(self, stored: StoredRequest, *, replay: KeyAge | None = None) -> None:
        """Send one request and record its result.

        Args:
            replay: how old its key is, where an earlier run was attempting it.

        Raises:
            KeyRefused: Stripe refused the key; nothing more would be let through.
            StripeUnavailable: too many failures in a row.
            ModeMismatch: the session made is of the other mode.
            LeaseLost: another run took over.
            DatabaseError: see `begin`.
        """
        may_send = self._begin(stored, replay)
        if may_send is not None:
            self._conclude(stored, post(self._merchant, stored, may_send), replay=replay is not None)

    def make_room(self, stored: StoredRequest) -> None:
        """Wait until this request may be started; raises as `send` does, for whichever is answered meanwhile.

        Of a bank that has not answered yet no more are under way than may be refused before it is left alone.
        """
        bank = stored.request.institution_name or ""
        while self._under_way >= self._at_once() or (
            self._under_way_of[bank] > 0
            and self._under_way_of[bank] + self.unavailable[bank] >= UNAVAILABLE_LIMIT + self._answers_of[bank]
        ):
            self._take_in()

    def start(self, stored: StoredRequest) -> None:
        """Send one request for which room was made, by itself or while others are under way; raises as `send` does."""
        if self._at_once() == 1:
            self.send(stored)
            return
        may_send = self._begin(stored, None)
        if may_send is None:
            return
        try:
            self._crew.hand(partial(_post_apart, self._merchant, stored, _StoppableLeave(may_send, self._stopping)))
        except RuntimeError as error:
            logger.warning("requests are sent one after the other, since no thread could be started: %s", error)
            self._conclude(stored, post(self._merchant, stored, may_send))
            return
        self._under_way += 1
        self._under_way_of[stored.request.institution_name or ""] += 1

    def _at_once(self) -> int:
        return min(AT_ONCE, max(1, 1 + self._answers - FAILURES_IN_A_ROW))

    def _begin(self, stored: StoredRequest, replay: KeyAge | None) -> MaySend | None:
        try:
            return begin(self._wiring, self._merchant, stored, replay=replay)
        except records.ContactTaken as taken:
            logger.warning("request %s is left alone: %s", stored.request.request_id, taken)
            return None

    def _take_in(self, timeout_seconds: float | None = None) -> None:
        """Record the next answer that comes; raises as `send` does."""
        sent = self._crew.hear(timeout_seconds)
        self._under_way -= 1
        self._under_way_of[sent.stored.request.institution_name or ""] -= 1
        if isinstance(sent.answer, _Stopped):
            self._record_stopped(sent.stored, sent.tries)
        elif isinstance(sent.answer, BaseException):
            raise sent.answer
        else:
            self._conclude(sent.stored, sent.answer)

    def _conclude(self, stored: StoredRequest, answer: SessionCreated | CallFailure, *, replay: bool = False) -> None:
        try:
            failure = conclude(self._wiring, self._merchant, stored, answer, replay=replay)
        except ModeMismatch:
            self.created += 1
            raise
        except records.ContactTaken as taken:
            logger.warning("request %s is left alone: %s", stored.request.request_id, taken)
            return
        if failure is not None and failure.fault in STRIPES_TROUBLE:
            self._failures += 1
            self._answers = 0
        elif failure is None or failure.fault != "key_expired":  # which is no word of Stripe's
            self._failures = 0
            self._answers += 1
        bank = stored.request.institution_name or ""
        if failure is not None and failure.fault == "institution_unavailable":
            self.unavailable[bank] += 1
            self._answers_of[bank] = 0
        elif failure is None:
            self._answers_of[bank] += 1
        if failure is None:
            self.created += 1
            return
        if failure.fault == "key_refused":
            raise KeyRefused(f"Stripe refused the key midway: {failure}. Check the key's permissions, then run again")
        if self._failures >= FAILURES_IN_A_ROW:
            raise StripeUnavailable(
                f"{self._failures} calls in a row failed, the last one: {failure}. Nothing more was sent; run again later"
            )

    def _leave(self, why: BaseException) -> None:
        """Stop further tries, and record what still comes of those under way; after an interruption only what comes at once.

        What is not recorded stays `attempting`: the next run asks again under the same keys.
        """
        self._stopping.set()
        until = time.monotonic() + LAST_ANSWERS_SECONDS
        while self._under_way:
            left_seconds = until - time.monotonic() if isinstance(why, KeyboardInterrupt) else None
            try:
                self._take_in(None if left_seconds is None else max(0.0, left_seconds))
            except queue.Empty:
                return
            except Exception as error:
                logger.warning("while the sending was ended: %s", error)

    def _record_stopped(self, stored: StoredRequest, tries: int) -> None:
        """The sending was stopped before a try. Without one before it nothing left this machine; else the next run asks again."""
        request_id, database = stored.request.request_id, self._wiring.database
        if tries == 0:
            why = "the sending was stopped before it went out"
            records.record_result(
                database,
                request_id,
                State.NOT_SENT,
                self._wiring.clock(),
                error_message=why,
                fence=self._wiring.fence,
            )
        else:
            why = "the sending was stopped between two tries"
            records.record_no_answer(database, request_id, calls=tries, error_type="stopped", error_message=why)


class _Stopped(Exception):
    """No further try, since the sending has been stopped."""


class _StoppableLeave:
    """Asks whether a try may go out, and counts those that were let."""

    def __init__(self, may_send: MaySend, stopping: threading.Event) -> None:
        self._may_send = may_send
        self._stopping = stopping
        self.tries = 0

    def __call__(self) -> bool:
        if self._stopping.is_set():
            raise _Stopped
        allowed = self._may_send()
        self.tries += allowed
        return allowed


@dataclass(frozen=True, slots=True)
class _Sent:
    """What came of a POST that another thread made: an answer, or what was raised."""

    stored: StoredRequest
    answer: SessionCreated | CallFailure | BaseException
    tries: int


def _post_apart(merchant: Merchant, stored: StoredRequest, leave: _StoppableLeave) -> _Sent:
    try:
        return _Sent(stored, post(merchant, stored, leave), leave.tries)
    except BaseException as error:
        return _Sent(stored, error, leave.tries)
