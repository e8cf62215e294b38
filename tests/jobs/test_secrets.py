"""Nights with every kind of fault and all logging on leave no secret anywhere: every byte they wrote is searched."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from jobs.simulator.faults import KINDS
from tests.jobs.conftest import MakeNights
from tests.jobs.nights import Nights, ledger_of, small_world

ROOT = Path(__file__).parents[2]
KEY = "rk_test_CANARYkey8d2f61c0a9b74e55"
E_MAIL = "ada.berg7@customer.example"


def forms(secret: str) -> set[bytes]:
    """A secret plain, URL-encoded, as JSON writes it, and in base64 at any alignment."""
    raw = secret.encode()
    encoded = {raw, quote(secret, safe="").encode(), quote_plus(secret).encode(), secret.replace("/", "\\/").encode()}
    for shift in range(3):
        whole = base64.b64encode(b" " * shift + raw)
        encoded |= {whole[4:-4], whole[4:-4].replace(b"+", b"-").replace(b"/", b"_")}
    return encoded


def found_in(content: bytes, secrets: frozenset[str]) -> set[str]:
    return {secret for secret in secrets if any(form in content for form in forms(secret))}


def leaks(directory: Path, secrets: frozenset[str]) -> dict[str, set[str]]:
    """What is found where, over every file below a directory."""
    found: dict[str, set[str]] = {}
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and (leaked := found_in(path.read_bytes(), secrets)):
            found[str(path.relative_to(directory))] = leaked
    return found


def loud_world(make_nights: MakeNights) -> Nights:
    """Twelve broken customers whose e-mail addresses Stripe names in its errors."""
    world = small_world(customers=12, broken=range(1, 13), api_keys=[KEY])
    for number in range(1, 13):
        world.set_email(f"cus_{number}", f"canary.mail{number}@customer.example")
    nights = make_nights(world)
    nights.environment["STRIPE_API_KEY"] = KEY
    nights.sections["relink"] = {
        "return_url": "https://shop.example/back",
        "delivery_rules": [
            {"customer": f"cus_{number}", "delivery": ("hosted_email", "hosted_url")[number % 2]}
            for number in range(1, 5)
        ],
    }
    # A person wrote secrets where they do not belong.
    nights.load_ledger(
        [row | {"reference": f"canary.mail{number}@customer.example"} for number, row in enumerate(ledger_of(world))]
    )
    return nights


def perform(nights: Nights, tmp_path: Path, what: str) -> subprocess.CompletedProcess[bytes]:
    """Run the nights with a home, a temporary directory and a working directory that are searched afterwards."""
    places = {name: tmp_path / name for name in ("home", "temporary", "work")}
    for place in places.values():
        place.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "tests.jobs.secret_nights", what, nights.server.base_url],
        cwd=places["work"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(places["home"]),
            "TMPDIR": str(places["temporary"]),
            "STRIPE_API_KEY": KEY,
            "STRIPE_LOG": "debug",
        },
        capture_output=True,
        timeout=300,
        check=False,
    )


def test_no_secret_is_written_anywhere(make_nights: MakeNights, tmp_path: Path) -> None:
    nights = loud_world(make_nights)
    config = nights.config_file(log={"level": "debug", "format": "text"})
    done = perform(nights, tmp_path, str(config))
    said = done.stdout + done.stderr
    assert done.returncode == 1, said.decode()[-3000:]
    # The run came where it was to come: every fault was met, secrets were issued, and the crash shows its traceback.
    assert set(KINDS) - set(nights.world.faults.injected) == set()
    secrets = nights.world.secrets_issued | {E_MAIL} | {f"canary.mail{number}@customer.example" for number in range(24)}
    assert any("_secret_" in secret for secret in secrets)
    assert any(secret.startswith("https://relink.simulator.example/") for secret in secrets)
    assert len(nights.world.effects) > 10
    for sign in (b"RuntimeError: a bug near", b"Traceback", b"DEBUG", b"rejected", b"Offer(", b"RunResult("):
        assert sign in said
    assert list((tmp_path / "reports").rglob("*.parquet"))
    # Everything that was printed and everything on disk, the database's own files included.
    assert found_in(said, secrets) == set()
    assert leaks(tmp_path, secrets) == {}
    for place in ("home", "temporary", "work"):
        assert list((tmp_path / place).iterdir()) == []


def test_no_secret_is_inside_compressed_reports_and_snapshots_either(make_nights: MakeNights, tmp_path: Path) -> None:
    """Parquet is compressed, so its columns are read back and searched too."""
    import pyarrow.parquet as parquet

    nights = loud_world(make_nights)
    nights.world.delete_customer("cus_3")
    nights.run()
    nights.next_night()
    secrets = nights.world.secrets_issued | {f"canary.mail{number}@customer.example" for number in range(24)}
    files = list((tmp_path / "reports").rglob("*.parquet"))
    assert any("_snapshots" in str(path) for path in files)
    assert len(files) > 12
    for path in files:
        table = parquet.read_table(path, partitioning=None)
        content = repr(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
        assert (path.name, found_in(content, secrets)) == (path.name, set())


def test_the_search_finds_what_the_bare_package_leaks(make_nights: MakeNights, tmp_path: Path) -> None:
    nights = loud_world(make_nights)
    nights.world.delete_customer("cus_3")
    done = perform(nights, tmp_path, "bare")
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = found_in(done.stdout + done.stderr, nights.world.secrets_issued)
    assert any("_secret_" in secret for secret in found)
    assert any("@" in secret for secret in found)


@pytest.mark.parametrize(
    "encode", [str.encode, lambda text: quote(text, safe="").encode(), lambda text: base64.b64encode(text.encode())]
)
def test_the_search_knows_each_form(tmp_path: Path, encode: object) -> None:
    (tmp_path / "file").write_bytes(b"before " + encode(E_MAIL) + b" after")  # type: ignore[operator]
    assert leaks(tmp_path, frozenset({E_MAIL})) == {"file": {E_MAIL}}
