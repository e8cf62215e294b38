"""A join by columns gives each account id once, with the cells of both frames, and refuses ids that repeat."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.frames import arrow_series, values_of
from reconcile.joining import outer_join, rows_of, taken

IDS = st.sampled_from(["fca_1", "fca_2", "fca_3", "fca_10", "fca_é", "fca_\U0001f600", ""])


def frame(rows: dict[str, int] | list[tuple[str | None, int]]) -> pd.DataFrame:
    pairs = list(rows.items()) if isinstance(rows, dict) else rows
    names, numbers = zip(*pairs, strict=True) if pairs else ((), ())
    return pd.DataFrame({"account_id": arrow_series(names, pa.string()), "number": arrow_series(numbers, pa.int64())})


@given(st.dictionaries(IDS, st.integers(0, 9)), st.dictionaries(IDS, st.integers(0, 9)))
def test_each_id_comes_once_in_order_with_the_cells_of_both(left: dict[str, int], right: dict[str, int]) -> None:
    join = outer_join(frame(left), frame(right))
    ids = sorted({*left, *right})
    assert values_of(join.account_ids) == ids
    assert values_of(taken(frame(left)["number"], join.left_rows)) == [left.get(one) for one in ids]
    assert values_of(taken(frame(right)["number"], join.right_rows)) == [right.get(one) for one in ids]
    assert (join.in_left.tolist(), join.in_right.tolist()) == (
        [one in left for one in ids],
        [one in right for one in ids],
    )
    found = rows_of(frame(left)["account_id"], frame(right))
    assert values_of(taken(frame(right)["number"], found)) == [right.get(one) for one in left]


@pytest.mark.parametrize("odd", [[("fca_2", 1), ("fca_1", 2), ("fca_2", 3)], [("fca_9", 1), ("fca_9", 2)], [(None, 1)]])
def test_an_id_that_repeats_or_is_missing_cannot_be_joined(odd: list[tuple[str | None, int]]) -> None:
    other = frame({"fca_1": 1, "fca_2": 2})
    for sides in ((frame(odd), other), (other, frame(odd))):
        with pytest.raises(pd.errors.MergeError):
            outer_join(*sides)
    with pytest.raises(pd.errors.MergeError):
        rows_of(other["account_id"], frame(odd))
