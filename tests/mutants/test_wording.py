"""Which changes of the code are of nothing but the wording for people, and so need not be noticed."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import Change, is_wording

SAID = 'raise LeaseLost("another run took over the lock")'


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (SAID, 'raise LeaseLost("XXanother run took over the lockXX")'),
        (SAID, 'raise LeaseLost("ANOTHER RUN TOOK OVER THE LOCK")'),
        (SAID, "raise LeaseLost(None)"),
        ('fail(f"plan {name} was released before", 5)', 'fail(f"XXplan {name} was released beforeXX", 5)'),
        ('told("it was revoked", "make a new key")', 'told("it was revoked", None)'),
        ("why = 'it\\'s of the other mode'", "why = 'XXit\\'s of the other modeXX'"),
    ],
)
def test_a_sentence_in_another_case_between_other_letters_or_left_out_is_wording(was: str, becomes: str) -> None:
    assert is_wording(Change("jobs.any.thing", was, becomes))


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('night.state = "not_sent"', 'night.state = "XXnot_sentXX"'),  # a name
        ('row["run id"]', 'row["RUN ID"]'),  # two words
        ('"another_run_took_over_the_lock"', '"ANOTHER_RUN_TOOK_OVER_THE_LOCK"'),  # a key of many words
        ('"%Y-%m-%d %H:%M:%S"', '"%y-%m-%d %h:%m:%s"'),  # a format
        ('logger.warning("it could not be renewed", error)', 'logger.warning("it could not be renewed", None)'),
        ('logger.warning("it could not be renewed", error)', 'logger.warning("it could not be renewed", )'),
        ('return lost or fail("it was taken over")', 'return lost and fail("it was taken over")'),
        ('fail("it was taken over", 6)', 'fail("XXit was taken overXX", 7)'),  # and the code besides
        ('fail("it was taken over", "state")', 'fail("XXit was taken overXX", "XXstateXX")'),  # and a name besides
        ('fail("it was taken over")', 'fail("nobody was asked twice")'),  # another sentence
        (SAID, SAID),
        (SAID, ""),
    ],
)
def test_no_other_change_is_wording(was: str, becomes: str) -> None:
    assert not is_wording(Change("jobs.any.thing", was, becomes))
