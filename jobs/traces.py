"""OpenTelemetry spans of a run, its stages and its calls to Stripe, where the extra `traces` is installed and an endpoint is set.

The standard OTEL_ variables say where they go. Without them nothing is imported and a span costs nothing. A span holds names, counts and
ids of ours, never a body, an address or a secret; a collector that hangs loses its spans and delays nobody beyond `SHUTDOWN_SECONDS`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reconcile.masking import mask

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 5.0
INTERRUPTED_SHUTDOWN_SECONDS = 1.0
"""Whoever stops a run waits for it to be gone."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

Value = str | int | float | bool
_tracers: list[Tracer] = []
"""The tracer of the run that is traced now; there is one run in a process at a time."""


class Span:
    """What is going on; attributes may be added until it ends."""

    def set(self, name: str, value: Value | None) -> None:
        """Nobody keeps it."""


class _Recorded(Span):
    def __init__(self, inner: object) -> None:
        self._inner = inner

    def set(self, name: str, value: Value | None) -> None:
        """Add an attribute, masked; None is left out."""
        if value is not None:
            self._inner.set_attribute(name, mask(value) if isinstance(value, str) else value)  # type: ignore[attr-defined]


@contextmanager
def span(name: str, attributes: Mapping[str, Value | None] | None = None) -> Iterator[Span]:
    """A span around the block, within the one that is open; an error leaves its class there, not its text."""
    if not _tracers:
        yield Span()
        return
    from opentelemetry.trace import Status, StatusCode

    with _tracers[-1].start_as_current_span(name, record_exception=False, set_status_on_exception=False) as inner:
        told = _Recorded(inner)
        for key, value in (attributes or {}).items():
            told.set(key, value)
        try:
            yield told
        except BaseException as error:
            inner.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


@contextmanager
def tracing(environment: Mapping[str, str]) -> Iterator[None]:
    """Trace the block if the environment asks for it."""
    provider = _provider(environment) if _is_wanted(environment) else None
    if provider is None:
        yield
        return
    _tracers.append(provider.get_tracer("relink"))
    seconds = SHUTDOWN_SECONDS
    try:
        yield
    except KeyboardInterrupt:
        seconds = INTERRUPTED_SHUTDOWN_SECONDS
        raise
    finally:
        _tracers.pop()
        # In a thread of its own, which is left behind if the collector hangs: the package's own limits do not cover a name server.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            logger.warning("the last traces were not delivered within %.0f s", seconds)


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("", "otlp"):
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


def _provider(environment: Mapping[str, str]) -> TracerProvider | None:
    protocol = next((environment[name].strip() for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        logger.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf")
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("no traces: an endpoint is set, but OpenTelemetry is not installed; install fc-relink[traces]")
        return None
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    try:
        resource = Resource.create({} if named else {"service.name": "relink"})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except Exception as error:
        # Not its text, which may hold the endpoint or a header.
        logger.warning("no traces: the OTEL_ variables cannot be used (%s)", type(error).__name__)
        return None
    return provider
