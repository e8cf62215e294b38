"""Spans of a run reach a collector and hold no secret; without one, or with one that hangs, the run is as ever."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.jobs.listeners import Listener, listeners
from tests.jobs.nights import KEY, Nights
from tests.jobs.test_secrets import forms


@pytest.fixture
def collector() -> Iterator[Listener]:
    with listeners() as make:
        yield make()


def traced(nights: Nights, monkeypatch: pytest.MonkeyPatch, address: str, **more: str) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}", **more}.items():
        monkeypatch.setenv(name, value)
        nights.environment[name] = value


def spans(collector: Listener) -> list[Any]:
    """Every span that came, in order of their beginning."""
    import gzip

    found = []
    for one in collector.received:
        assert one.path == "/v1/traces"
        body = gzip.decompress(one.body) if one.headers.get("Content-Encoding") == "gzip" else one.body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert names["service.name"] == "relink"
            found += [one for scope in resource.scope_spans for one in scope.spans]
    return sorted(found, key=lambda one: one.start_time_unix_nano)


def attributes(one: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in one.attributes}


def test_a_run_its_stages_and_its_calls_are_one_trace(
    nights: Nights, collector: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(nights, monkeypatch, collector.address)
    nights.world.faults.script("rate_limit", method="GET")
    nights.world.faults.script("error_500_after", method="POST")
    result = nights.run()
    found = spans(collector)
    by_id = {one.span_id: one for one in found}
    assert len({one.trace_id for one in found}) == 1

    def way(one: Any) -> list[str]:
        return ([*way(by_id[one.parent_span_id])] if one.parent_span_id else []) + [one.name]

    ways = [way(one) for one in found]
    assert ways[0] == ["relink run"]
    assert ["relink run", "merchant main", "stage pull", "GET /v1/financial_connections/accounts"] in ways
    assert ways.count(["relink run", "merchant main", "stage relink", "POST /v1/financial_connections/sessions"]) == 3
    assert ["relink run", "stage report"] in ways
    run = attributes(found[0])
    assert (run["relink.run_id"], run["relink.exit_code"], run["relink.command"]) == (result.run_id, 4, "run")
    calls = [attributes(one) for one in found if one.name.startswith(("GET ", "POST "))]
    assert [one["relink.attempts"] for one in calls if one["relink.purpose"] == "pull"] == [2]
    assert [one["http.response.status_code"] for one in calls if "error.type" in one] == [500]


def test_no_span_holds_a_secret_or_a_text_of_an_error(
    nights: Nights, collector: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(nights, monkeypatch, collector.address, OTEL_EXPORTER_OTLP_COMPRESSION="none")
    nights.world.faults.script("forbidden", method="POST")
    nights.run()
    sent = b"".join(one.body for one in collector.received)
    assert b"/v1/financial_connections/sessions" in sent
    for secret in (KEY, *nights.world.secrets_issued):
        assert [form for form in forms(secret) if form in sent] == []
    assert KEY.encode() not in repr([one.headers for one in collector.received]).encode()
    assert b"customer.example" not in sent


@pytest.mark.parametrize("status", ["hangs", "answers 400"])
def test_a_collector_that_fails_changes_nothing(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobs.traces.SHUTDOWN_SECONDS", 0.5)
    with listeners() as make:
        broken = make(hangs=True) if status == "hangs" else make(400)
        traced(nights, monkeypatch, broken.address)
        result = nights.run()
        assert (result.exit_code, result.complete, nights.posts()) == (0, True, 3)
        assert len(broken.received) >= 1
    if status == "hangs":
        assert "the last traces were not delivered" in caplog.text


@pytest.mark.parametrize(
    "more", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}]
)
def test_nothing_is_sent_where_the_variables_say_so(
    nights: Nights, collector: Listener, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    traced(nights, monkeypatch, collector.address, **more)
    assert nights.run().exit_code == 0
    assert collector.received == []


def test_without_the_extra_a_run_says_so_and_goes_on(
    nights: Nights, collector: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    traced(nights, monkeypatch, collector.address)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert nights.run().exit_code == 0
    assert "OpenTelemetry is not installed; install fc-relink[traces]" in caplog.text
    assert collector.received == []
