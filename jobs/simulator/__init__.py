"""A local stand-in for Stripe Financial Connections: a seeded world of bank accounts behind real HTTP on loopback.

In a test or a program::

    from jobs.simulator.server import SimulatorServer
    from jobs.simulator.world import World

    world = World.generate(2000, seed=7)              # or World.empty() and world.add_authorization(...)
    with SimulatorServer(world) as server:            # key rk_test_simulator, API address server.base_url
        ...                                           # let the unchanged `stripe` package call it
        world.advance(days=1)                         # a night passes: breaks, expiry, answers to sessions
        world.answer("fcsess_...", "partial", accounts=["fca_..."])
        world.faults.script("reset_after", method="POST", path="*/sessions")
        world.effects, world.contacts_by_authorization(), world.log, world.calls, world.secrets_issued, world.digest()

As a process: ``SimulatorServer(world, port=12111, rate_limits=RateLimits.of_mode(False)).serve_forever()``; give the world
``clock=SimulatedClock.real()`` for time that passes by itself. The same controls answer over HTTP:
``POST /_simulator/advance {"days": 1}``, ``GET /_simulator/stats`` (see `controls`).

Where things are: `world` (controls), `population` (generated customers), `timeline` and `changes` (what happens), `answers`
(customers), `render` (JSON by API version), `api`, `endpoints`, `session_create`, `parameters` (HTTP API), `idempotency`,
`limits`, `faults`, `server`, `stripe_behaviours` (what is imitated, and how sure that is), `ledger` (a merchant's own list of the same accounts).
Frozen time and equal calls give equal nights: every draw depends on the seed and what it is for, never on the order of calls.
"""
