"""`relink simulator`: the stand-in for Stripe alone, for people who build against it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from jobs.cli.common import print_json
from reconcile.errors import ReportError, SettingsError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=12111, show_default=True, help="0: any free one.")
@click.option(
    "--accounts", type=click.IntRange(min=0), default=2000, show_default=True, help="Bank accounts to begin with."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed and start give the same world.")
@click.option(
    "--ledger", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.csv", help="Also write a ledger of them."
)
@click.option("--start", metavar="TIME", help="Where simulated time begins, ISO 8601 with its offset; else now.")
@click.option(
    "--live-time", is_flag=True, help="Let simulated time pass by itself; else it stands still until it is advanced."
)
@click.option(
    "--rate-limits/--no-rate-limits",
    default=True,
    show_default=True,
    help="Refuse calls above Stripe's limits for a sandbox.",
)
@click.option("--json", "as_json", is_flag=True, help="Say where it is, or the behaviours, as JSON.")
@click.option(
    "--behaviours", is_flag=True, help="Only list what of Stripe it imitates, the sources, and what was seen at Stripe."
)
def simulator(
    port: int,
    accounts: int,
    seed: int,
    ledger: Path | None,
    start: str | None,
    live_time: bool,
    rate_limits: bool,
    as_json: bool,
    behaviours: bool,
) -> int:
    """Serve a stand-in for Stripe Financial Connections on 127.0.0.1 until Ctrl-C or SIGTERM.

    Only this machine can reach it. Everything in it is made up, its API key too.
    """
    if behaviours:
        _list_behaviours(as_json)
        return 0
    from jobs.simulator.clock import SimulatedClock
    from jobs.simulator.ledger import make_ledger, write_ledger_csv
    from jobs.simulator.limits import RateLimits
    from jobs.simulator.server import SimulatorServer
    from jobs.simulator.world import DEFAULT_KEY, World

    begins_at = _start(start)
    clock = SimulatedClock(begins_at, rate=1.0) if live_time else None
    world = World.generate(accounts, seed=seed, start=begins_at, clock=clock)
    try:
        limits = RateLimits.of_mode(False) if rate_limits else None
        server = SimulatorServer(world, port, rate_limits=limits, browser_pages=True)
    except OSError as fault:
        raise SettingsError(f"port {port} cannot be had: {fault.strerror or fault}; choose another --port") from fault
    try:
        if ledger is not None:
            try:
                write_ledger_csv(ledger, make_ledger(world, seed=seed))
            except OSError as fault:
                raise ReportError(f"{ledger}: {fault.strerror or fault}; choose another file") from fault
        _tell(
            server.base_url, DEFAULT_KEY, world.now_at, ledger, live_time=live_time, accounts=accounts, as_json=as_json
        )
        server.serve_forever()
    except KeyboardInterrupt:  # SIGTERM too: being stopped is how this command ends well
        click.echo("stopped", err=True)
    finally:
        server.close()
    return 0


def _list_behaviours(as_json: bool) -> None:
    from jobs.simulator.stripe_behaviours import as_plain, stripe_behaviours

    found = stripe_behaviours()
    if as_json:
        print_json([as_plain(one) for one in found])
        return
    for one in found:
        click.echo(f"{one.name}\n  Stripe:     {one.stripe}\n  source:     {one.source}\n  stand-in:   {one.stand_in}")
        for test in one.either:
            click.echo(f"  either way: tests/{test}")
        click.echo(f"  seen live:  {one.seen_live}\n")
    documented = sum(one.is_documented for one in found)
    seen = sum(one.seen is not None for one in found)
    click.echo(f"{len(found)} behaviours, {len(found) - documented} of them not documented; seen at Stripe: {seen}")


def _start(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise SettingsError("--start: write a time with its offset, such as 2026-11-02T03:00:00Z")
    return found.astimezone(UTC)


def _tell(
    base_url: str, api_key: str, now_at: datetime, ledger: Path | None, *, live_time: bool, accounts: int, as_json: bool
) -> None:
    if as_json:
        told = {
            "base_url": base_url,
            "api_key": api_key,
            "now_at": now_at.isoformat(),
            "ledger": ledger and str(ledger),
        }
        click.echo(json.dumps(told))
        return
    time_is = "runs" if live_time else "stands still"
    click.echo(
        f"A stand-in for Stripe with {accounts:,} bank accounts: {base_url}  (only on this machine; Ctrl-C stops it)"
    )
    click.echo(f"API key: {api_key}   simulated time: {now_at:%Y-%m-%d %H:%M} UTC, {time_is}\n")
    click.echo("To run the job against it, put into config.yaml:")
    click.echo(f"  stripe:\n    api_base: {base_url}\nand then:")
    click.echo(f"  export STRIPE_API_KEY={api_key}")
    if ledger is not None:
        click.echo(f"  relink ledger load {ledger}")
    click.echo("  relink run\n")
    advance = """-d '{"days": 1}'"""
    click.echo(f"Let a day pass:   curl {advance} {base_url}/_simulator/advance")
    click.echo(f"See what is there: curl {base_url}/_simulator/stats")
