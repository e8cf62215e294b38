"""The demo does what it says, tells when a night went wrong, and never touches what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.demo import Demo, DemoNight
from jobs.demo_directory import MARKER, prepare
from jobs.simulator.world import DEFAULT_KEY
from reconcile.errors import ReportError, SettingsError
from reports.files import read_table


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, list[DemoNight]]:
    """Three nights, the second one with trouble, over enough accounts for every fault to meet a request."""
    demo = Demo(prepare(tmp_path_factory.mktemp("demo") / "here"), accounts=800)
    return demo, list(demo.play(3))


def test_every_night_does_what_it_should(played: tuple[Demo, list[DemoNight]]) -> None:
    _, nights = played
    assert [night.unexpected for night in nights] == [(), (), ()]
    assert [night.number for night in nights] == [1, 2, 3]
    assert len({night.run_date for night in nights}) == 3
    assert nights[0].affected > 0
    assert nights[0].requests > 0


def test_customers_answer_between_nights(played: tuple[Demo, list[DemoNight]]) -> None:
    _, (first, second, _) = played
    assert first.outcomes["pending"] == first.requests
    assert second.outcomes["relinked"] > 0
    assert sum(second.failed_by_reason.values()) == second.outcomes["failed"]


def test_the_night_of_trouble_shows_retries_and_what_a_person_should_look_at(
    played: tuple[Demo, list[DemoNight]],
) -> None:
    _, nights = played
    troubled = nights[1]
    assert troubled.faults == {"rate_limit": 3, "reset_after": 1, "error_500_before": 1}
    assert troubled.retries > sum(troubled.faults.values())
    assert (troubled.results["rejected"], troubled.results["unknown"]) == (1, 1)
    assert [night.exit_code for night in nights] == [0, 4, 0]


def test_a_dry_run_announces_and_a_second_run_repeats_nothing(played: tuple[Demo, list[DemoNight]]) -> None:
    demo, nights = played
    assert nights[1].would_request == nights[1].requests
    assert nights[0].posts_of_second_run == 0
    assert (demo.directory.reports / "dry_run=true").is_dir()
    assert max(demo.world.contacts_by_authorization().values()) == 1


def test_the_reports_of_every_night_lie_there(played: tuple[Demo, list[DemoNight]]) -> None:
    demo, nights = played
    assert all(night.report_directory is not None for night in nights)
    latest = demo.directory.reports / "latest"
    assert latest.resolve() == nights[-1].report_directory
    # The table is counted apart from the summary that the demo tells from.
    requests = read_table(nights[1].report_directory / "relink_requests.parquet")  # type: ignore[operator]
    results = requests["result"].to_pylist()
    assert {name: results.count(name) for name in nights[1].results} == nights[1].results


def test_no_secret_of_the_stand_in_is_left_behind(played: tuple[Demo, list[DemoNight]]) -> None:
    demo, _ = played
    kept = b"".join(path.read_bytes() for path in demo.directory.path.rglob("*") if path.is_file())
    secrets = demo.world.secrets_issued
    assert len(secrets) > 10
    assert [secret for secret in secrets if secret.encode() in kept] == []


def test_a_night_that_fails_is_told(tmp_path: Path) -> None:
    demo = Demo(prepare(tmp_path / "demo"), accounts=60)
    nights = demo.play(3)
    assert next(nights).unexpected == ()
    demo.world.faults.script("unauthorized", times=10**6)
    failed = next(nights)
    nights.close()
    assert failed.exit_code == 3
    assert any("did not complete" in problem for problem in failed.unexpected)
    assert DEFAULT_KEY not in " ".join(failed.unexpected)


def test_a_session_that_the_job_does_not_know_of_is_told(tmp_path: Path) -> None:
    demo = Demo(prepare(tmp_path / "demo"), accounts=400)
    # Made and lost again and again, so that the job gives up without an answer.
    demo.world.faults.script("reset_after", method="POST", times=6)
    problems = " ".join(next(demo.play(2)).unexpected)
    assert "the stand-in made" in problems


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    earlier = prepare(tmp_path)
    earlier.config.write_text("old")
    earlier.reports.mkdir()
    (earlier.reports / "old.csv").write_text("old")
    again = prepare(tmp_path)
    assert sorted(path.name for path in again.path.iterdir()) == [MARKER, "var"]


@pytest.mark.parametrize("others", [("notes.txt",), (MARKER, "notes.txt"), ("config.yaml", "var")])
def test_what_no_demo_made_is_left_alone(tmp_path: Path, others: tuple[str, ...]) -> None:
    for name in others:
        (tmp_path / name).write_text("mine")
    with pytest.raises(SettingsError, match="--directory") as caught:
        prepare(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(others, "mine")


def test_a_link_out_of_an_earlier_demo_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    inside = tmp_path / "demo"
    prepare(inside)
    (inside / "reports").symlink_to(outside)
    prepare(inside)
    assert (outside / "precious").read_text() == "mine"
    assert not (inside / "reports").exists()


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ReportError, match="choose another --directory"):
        prepare(tmp_path / "file" / "demo")


def test_a_name_that_no_database_address_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\?"):
        prepare(tmp_path / "why?")
    assert list(tmp_path.iterdir()) == []
