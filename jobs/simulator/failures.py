"""Refusals in the shape of Stripe's errors (Stripe API docs: errors)."""

from __future__ import annotations

from typing import Any


class ApiFailure(Exception):
    """A refusal; `should_retry` becomes the Stripe-Should-Retry header, `reason` Stripe-Rate-Limited-Reason."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        reason: str | None = None,
        should_retry: bool | None = None,
        with_request_id: bool = True,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.reason = reason
        self.should_retry = should_retry
        self.with_request_id = with_request_id
        self.retry_after_seconds = retry_after_seconds

    def body(self, request_id: str, livemode: bool) -> dict[str, Any]:
        """The JSON body."""
        error: dict[str, Any] = {}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        error["message"] = self.message
        if self.param is not None:
            error["param"] = self.param
        if self.with_request_id:
            mode = "" if livemode else "test/"
            error["request_log_url"] = f"https://dashboard.stripe.com/{mode}logs/{request_id}"
        error["type"] = self.kind
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        headers: dict[str, str] = {}
        if self.should_retry is not None:
            headers["Stripe-Should-Retry"] = "true" if self.should_retry else "false"
        if self.reason is not None:
            headers["Stripe-Rate-Limited-Reason"] = self.reason
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        return headers


def missing(object_name: str, object_id: str, param: str, status: int = 404) -> ApiFailure:
    """Stripe's answer to an id that it does not know: 404 in a path, 400 in a parameter."""
    return ApiFailure(status, f"No such {object_name}: '{object_id}'", code="resource_missing", param=param)
