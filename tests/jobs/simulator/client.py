"""A bare HTTP client for the simulator: what it says on the wire, without an SDK between."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

PREVIEW = "2026-09-30.preview"
STABLE = "2026-10-28.endive"
ACCOUNTS = "/v1/financial_connections/accounts"
SESSIONS = "/v1/financial_connections/sessions"


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


class Client:
    def __init__(self, port: int, key: str = "rk_test_simulator", version: str | None = PREVIEW) -> None:
        self.port = port
        self.key = key
        self.version = version

    def send(
        self, method: str, path: str, params: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        sent = {"Authorization": f"Bearer {self.key}"}
        if self.version is not None:
            sent["Stripe-Version"] = self.version
        sent |= headers or {}
        body = None
        if params is not None and method == "POST" and not isinstance(params, bytes):
            body = urlencode(params).encode()
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        elif isinstance(params, bytes):
            body = params
        elif params:
            path += "?" + urlencode(params)
        try:
            connection.request(method, path, body, sent, **options)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str, params: Any = None, **headers: str) -> Answer:
        return self.send("GET", path, params, headers)

    def post(self, path: str, params: Any = (), key: str | None = None) -> Answer:
        return self.send("POST", path, params, {} if key is None else {"Idempotency-Key": key})

    def pages(self, path: str, params: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        cursor: dict[str, Any] = {}
        while True:
            page = self.get(path, params | cursor).json
            yield page["data"]
            if not page["has_more"]:
                return
            cursor = {"starting_after": page["data"][-1]["id"]}


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Give another thread its turn until `condition` holds; fail rather than wait for ever."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.001)


def relink_params(authorization: Any, *permissions: str, **more: str) -> dict[str, str]:
    """Form parameters of a relink session for an authorization of the world."""
    holder = authorization.holder
    params = {"account_holder[type]": holder.type, f"account_holder[{holder.kind}]": holder.id}
    for index, permission in enumerate(permissions or ("balances", "transactions")):
        params[f"permissions[{index}]"] = permission
    return params | {"relink_options[authorization]": authorization.id} | more
