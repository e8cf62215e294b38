"""What people are told when a run ends."""

from __future__ import annotations

from reports.notice import RunEnd, notice


def test_sessions_that_nobody_follows_are_told_by_number_and_never_by_id() -> None:
    seen = [{"session_id": "fcsess_secretive"}, {"session_id": "fcsess_other"}]
    text = notice(RunEnd("run", 0, ["main"], summary={"orphans": {"foreign_sessions": seen}})).text
    assert "sessions seen that this job does not follow: 2; see `relink status`, then `relink adopt`" in text
    assert "fcsess_" not in text
    assert "follow" not in notice(RunEnd("run", 0, ["main"], summary={"orphans": {"foreign_sessions": []}})).text
