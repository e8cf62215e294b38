from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.simulator.model import Authorization
from jobs.simulator.server import SimulatorServer
from jobs.simulator.world import World
from tests.jobs.simulator.client import Client


@pytest.fixture
def world() -> World:
    """One customer with an authorization of three accounts, nothing happening by itself."""
    world = World.empty(seed=5)
    world.add_authorization(
        ("customer", "cus_1"),
        accounts=[
            {"account_id": "fca_1", "subcategory": "checking"},
            {"account_id": "fca_2", "subcategory": "savings"},
            {"account_id": "fca_3", "subcategory": "credit_card"},
        ],
        authorization_id="fcauth_1",
    )
    world.add_customer(("customer", "cus_2"))
    world.set_email("cus_1", "kim.doe@customer.example")
    return world


@pytest.fixture
def authorization(world: World) -> Authorization:
    return world.authorizations["fcauth_1"]


@pytest.fixture
def server(world: World) -> Iterator[SimulatorServer]:
    with SimulatorServer(world) as server:
        yield server


@pytest.fixture
def client(server: SimulatorServer) -> Client:
    return Client(server.port)
