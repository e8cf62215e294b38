"""The world's direct controls over HTTP: POST JSON arguments to /_simulator/<name>, GET what can be looked at."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec

from jobs.simulator.reply import Call, Reply
from jobs.simulator.world import World

_ACTIONS = (
    "add_account",
    "add_authorization",
    "add_customer",
    "add_key",
    "add_other_mode_id",
    "advance",
    "advance_to",
    "answer",
    "break_account",
    "break_authorization",
    "break_institution",
    "delete_customer",
    "disconnect_account",
    "disconnect_authorization",
    "expect_deactivation",
    "expire_number",
    "heal_account",
    "heal_authorization",
    "link_afresh",
    "override",
    "remove_account",
    "revoke_key",
    "set_email",
    "set_holder",
    "set_permissions",
    "set_unavailable",
    "withdraw_expectation",
)
_TIMES = ("at", "created_at", "expected_deactivation_at")


def respond(world: World, call: Call) -> Reply:
    """Carry out one control; a fault in its arguments is a 400 that says what is wrong."""
    name = call.path.removeprefix("/_simulator/")
    world.settle()
    try:
        if call.method == "GET":
            return _reply(200, _look(world, name))
        if call.method != "POST":
            raise ValueError("use GET or POST")
        arguments = msgspec.json.decode(call.body or b"{}")
        if not isinstance(arguments, dict):
            raise ValueError("send a JSON object with the arguments' names")
        return _reply(200, {"result": _act(world, name, arguments)})
    except (KeyError, TypeError, ValueError, msgspec.DecodeError) as fault:
        text = f"no such object: {fault.args[0]}" if isinstance(fault, KeyError) else str(fault)
        return _reply(400, {"error": {"type": "simulator", "message": text}})


def _act(world: World, name: str, arguments: dict[str, Any]) -> Any:
    if name == "script_fault":
        world.faults.script(**arguments)
        return None
    if name == "random_faults":
        world.faults.at_random(**arguments)
        return None
    if name == "clear_faults":
        world.faults.clear()
        return None
    if name not in _ACTIONS:
        raise ValueError(f"unknown control {name!r}; known are {', '.join(_ACTIONS)}, *_fault(s)")
    action: Callable[..., Any] = getattr(world, name)
    for key in _TIMES:
        if isinstance(arguments.get(key), str):
            arguments[key] = datetime.fromisoformat(arguments[key])
    inspect.signature(action).bind(**arguments)
    made = action(**arguments)
    if isinstance(made, int):
        return made
    return getattr(made, "id", None)


def _look(world: World, name: str) -> Any:
    with world.lock:
        if name == "stats":
            return world.stats()
        if name == "log":
            return {"calls": [asdict(each) for each in world.log]}
        if name == "effects":
            return {"effects": [asdict(each) for each in world.effects]}
        if name == "digest":
            return {"digest": world.digest()}
    raise ValueError("known are stats, log, effects, digest")


def _reply(status: int, body: Any) -> Reply:
    return Reply(status, msgspec.json.encode(body), {"Content-Type": "application/json"})
