"""Walk the list of accounts by several cursors at once, and prove that together they saw all of it.

A cut point is the id of a known account. A segment begins behind one and is walked, page after page, until it comes upon any other
cut point or to the end of the list; the head begins before the first account. The proof: from the head, follow what each segment came
upon to the segment that begins there. If that chain ends at the end of the list, each piece begins exactly where the one before it
ended, so nothing lies between two and nothing is in both. Whatever is not on the chain was walked in vain and is thrown away. So cut points
need be in no order, may have vanished, and may be wrong; they make a pull faster, and can make none incomplete:

- One that Stripe does not know, or knows nothing behind, begins no segment; who came upon it earlier walks on.
- One that vanishes after its segment began is never come upon, and the segment before it walks on to the next. So what was walked in vain was
  seen on the chain as well, unless it vanished; where the chain has none of it, the list was said to end too early.
- An account linked meanwhile stands before all others, where the head has been already, and is tomorrow's. One that vanishes meanwhile
  was seen or not, as in a list that is walked by one cursor; where it was itself the cursor, the account before it takes its place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from jobs.crew import AT_ONCE, Crew
from jobs.pages import ListPage, check_page
from reconcile.errors import IncompletePull
from reconcile.frames import ACCOUNTS, from_columns
from reconcile.model import Scope
from reconcile.normalize import pages_table
from reconcile.records import AccountColumns, ReadRejected

logger = logging.getLogger(__name__)

STEPS_BACK = 5
"""So many accounts in a row may vanish from under a cursor."""

_PAGES_PER_TABLE = 20
_ENDING_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class _Segment:
    """What lies behind `start` (None: the head), as far as it was walked, up to and with the cut point it came upon (`met`)."""

    start: str | None
    tables: list[pa.Table] = field(default_factory=list)
    loose: list[AccountColumns] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    tail: list[str] = field(default_factory=list)
    pages: int = 0
    met: str | None = None
    ended: bool = False
    refused: bool = False
    rest: AccountColumns | None = None
    server_at: datetime | None = None

    def keep(self, page: AccountColumns) -> None:
        """Add a page's accounts; several pages at a time become Arrow's columns, which take a tenth of the memory."""
        self.loose.append(page)
        if len(self.loose) >= _PAGES_PER_TABLE or self.is_done:
            self.tables.append(pages_table(self.loose))
            self.loose = []

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be asked for, as far as is known."""
        return self.met is not None or self.ended or self.refused


@dataclass(frozen=True, slots=True)
class Walked:
    """All accounts (`frames.ACCOUNTS`) in the order of the list, and Stripe's time when the first of all pages was answered."""

    accounts: pd.DataFrame
    server_at: datetime | None


def walk(
    list_page: ListPage,
    scope: Scope,
    cuts: Sequence[str] = (),
    advance: Callable[[int], None] = lambda _: None,
    workers: int = AT_ONCE,
) -> Walked:
    """Walk the whole list, by as many cursors as the cut points allow; without any by one, in this thread.

    Args:
        advance: told, in this thread, how many accounts a page brought.

    Raises:
        IncompletePull: a page is not what a complete list can consist of, or the pieces do not join.
        ModeMismatch: an account is of the other mode.
        OutsideError: Stripe cannot be reached, or refuses.
    """
    walker = _Walker(list_page, scope, cuts)
    if cuts:
        _walk_together(walker, advance, workers)
    else:
        for count in walker.pages_of(walker.head):
            advance(count)
    chain = walker.chain()
    accounts = pa.concat_tables([table for segment in chain for table in segment.tables])
    _refuse_an_early_end(scope, accounts["account_id"], [one for one in walker.segments if one not in chain])
    _refuse_repeats(scope, accounts["account_id"])
    # Under several cursors the head's answer need not be the first.
    server_at = min((one.server_at for one in chain if one.server_at is not None), default=None)
    whole = accounts.combine_chunks()
    return Walked(from_columns({name: whole[name] for name in ACCOUNTS}, ACCOUNTS), server_at)


def _refuse_repeats(scope: Scope, account_ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(account_ids).as_py() == len(account_ids):
        return
    counted = pc.value_counts(account_ids)
    first = counted.filter(pc.greater(counted.field("counts"), 1))[0]["values"]
    raise IncompletePull(f"merchant {scope.merchant}: the list of accounts repeats account {first}; run again later")


def _refuse_an_early_end(scope: Scope, account_ids: pa.ChunkedArray, in_vain: Sequence[_Segment]) -> None:
    """Refuse a list said to end before accounts that another cursor saw; so few that they may have vanished meanwhile are no proof.

    Raises:
        IncompletePull: a segment off the chain saw accounts, and the chain none of them.
    """
    for segment in in_vain:
        seen = [account_id for table in segment.tables for account_id in table["account_id"].to_pylist()]
        if len(seen) >= STEPS_BACK and not pc.any(pc.is_in(account_ids, pa.array(seen, pa.string()))).as_py():
            raise IncompletePull(
                f"merchant {scope.merchant}: the list of accounts is said to end before account {seen[0]}, which another read "
                "showed; run again later"
            )


class _Walker:
    """The segments and the cut points between them. A segment is walked by one thread at a time."""

    def __init__(self, list_page: ListPage, scope: Scope, cuts: Sequence[str]) -> None:
        self._list_page = list_page
        self._scope = scope
        self._cuts = frozenset(cuts)
        self.head = _Segment(None)
        self.segments = [self.head, *(_Segment(cut, seen={cut}, tail=[cut]) for cut in dict.fromkeys(cuts))]
        self._by_start = {segment.start: segment for segment in self.segments}
        self.stopping = threading.Event()

    def pages_of(self, segment: _Segment) -> Iterator[int]:
        """Walk on until the segment is done, giving each page's number of accounts."""
        while not (segment.is_done or self.stopping.is_set()):
            page = self._next_page(segment)
            if page is None:
                segment.refused = True
                return
            self._take(segment, page)
            segment.tail = [*segment.tail, *page.account_ids[-STEPS_BACK:]][-STEPS_BACK:]
            segment.pages += 1
            segment.server_at = segment.server_at or page.server_at
            yield len(page.account_ids)
        segment.seen = {*segment.tail}  # the ids of all segments are looked through together at the end

    def walk_on(self, segment: _Segment) -> None:
        """Let a segment that stopped at a cut point behind which no segment begins pass it, as far as its last page goes."""
        while segment.met is not None and self._by_start[segment.met].refused:
            rest, segment.rest, segment.met = segment.rest, None, None
            if rest is not None:
                self._take(segment, rest)

    def chain(self) -> list[_Segment]:
        """The segments from the head to the end of the list, each beginning where the one before it ended.

        Raises:
            IncompletePull: they do not join.
        """
        chain = [self.head]
        while (met := chain[-1].met) is not None:
            following = self._by_start[met]
            if following in chain or not (following.met or following.ended):
                break
            chain.append(following)
        if not chain[-1].ended:
            raise IncompletePull(
                f"merchant {self._scope.merchant}: the parts of the list of accounts do not join at account {chain[-1].met}; "
                "run again later"
            )
        return chain

    def _take(self, segment: _Segment, page: AccountColumns) -> None:
        # Its own start cannot come: `check_page` has it among what was seen.
        for place, account_id in enumerate(page.account_ids):
            if account_id in self._cuts and not self._by_start[account_id].refused:
                segment.met = account_id
                here = [at <= place for at in range(len(page.account_ids))]
                segment.rest = page.chosen([not one for one in here])
                segment.keep(page.chosen(here))
                return
        segment.ended = not page.has_more
        segment.keep(page)

    def _next_page(self, segment: _Segment) -> AccountColumns | None:
        """The page that comes next; None where nothing is behind the cut point at which the segment would begin.

        A cursor whose account vanished may be refused, or answered as if nothing came behind it. So the end of the list is only believed
        from a page that has something on it, or from an empty list.
        """
        if not segment.pages:
            return self._first_page(segment)
        for steps in range(1, len(segment.tail) + 1):
            cursor = segment.tail[-steps]
            found = self._unless_gone(cursor)
            if found is None or (not found.account_ids and not found.has_more):
                continue
            # Behind an earlier account stand those of the last page that came after it, unless they vanished.
            again = set(segment.tail[len(segment.tail) - steps + 1 :])
            page = found.chosen([one not in again for one in found.account_ids]) if again else found
            check_page(page, cursor, segment.seen, self._scope)
            return page
        last = segment.tail[-1] if segment.tail else "the start"
        raise IncompletePull(
            f"merchant {self._scope.merchant}: Stripe gives no page of accounts behind {last}, nor behind those before it; "
            "run again later"
        )

    def _first_page(self, segment: _Segment) -> AccountColumns | None:
        try:
            page = self._list_page(segment.start)
        except ReadRejected as refused:
            if segment.start is None:
                raise
            logger.info("account %s is no cut point: %s", segment.start, refused)
            return None
        if segment.start is not None and not page.account_ids and not page.has_more:
            return None
        check_page(page, segment.start, segment.seen, self._scope)
        return page

    def _unless_gone(self, cursor: str) -> AccountColumns | None:
        try:
            return self._list_page(cursor)
        except ReadRejected as refused:
            if refused.failure.error_code != "resource_missing":
                raise
            logger.info("account %s vanished while the list was read", cursor)
            return None


def _walk_together(walker: _Walker, advance: Callable[[int], None], workers: int) -> None:
    """Have the segments walked by threads; only this one decides what they do next. The first failure of any is this call's."""
    crew: Crew[int | _Segment] = Crew("pull", workers)

    def walked(segment: _Segment) -> _Segment:
        for count in walker.pages_of(segment):
            crew.tell(count)
        return segment

    left: int = 0
    stopped: list[_Segment] = []
    unfinished = walker.segments
    try:
        while True:
            left += len(unfinished)
            for segment in unfinished:
                crew.hand_or_make(partial(walked, segment))
            if not left:
                return
            news = crew.hear()
            unfinished = []
            if isinstance(news, int):
                advance(news)
                continue
            left -= 1
            stopped.append(news)
            # Whoever stopped, or stops later, at a cut point that turned out to begin nothing walks on.
            for segment in stopped:
                walker.walk_on(segment)
            unfinished = [segment for segment in stopped if not segment.is_done]
            stopped = [segment for segment in stopped if segment.is_done]
    except Exception:
        walker.stopping.set()
        crew.dismiss(_ENDING_SECONDS)
        raise
    finally:
        walker.stopping.set()
        crew.dismiss()
