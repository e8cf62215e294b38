"""What is installed is the three packages, it runs from anywhere, and the lock can be trusted whatever index serves it."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("jobs", "reconcile", "reports")
HEAVY = ("alembic", "pandas", "pyarrow", "requests", "sqlalchemy", "stripe")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory), where=ROOT)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment that has the wheel, and the dependencies of this one."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment), where=ROOT)
    python = environment / "bin" / "python"
    # Installed before the dependencies become visible: among them is the editable installation that must not be touched.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel), where=ROOT)
    purelib = run(
        str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", where=ROOT
    ).stdout.strip()
    # A path that a .pth file adds is searched last, and the .pth files in it are not followed to the checkout.
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def run(*command: str, where: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_wheel_holds_the_three_packages_whole_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if not name.startswith("fc_relink-")}
    on_disk = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for suffix in ("*.py", "*.j2", "*.toml", "*.json")
        for path in (ROOT / package).rglob(suffix)
    }
    assert inside == on_disk
    assert "reports/templates/page.html.j2" in inside
    assert any(name.startswith("jobs/migrations/versions/v0001") for name in inside)
    assert {Path(name).name for name in names - inside} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "LICENSE",
    }


def test_the_wheel_cannot_be_uploaded_by_mistake(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    assert "Classifier: Private :: Do Not Upload" in archive.read(metadata).decode().splitlines()


def test_the_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    # Other packages of the same names in the working directory must not be taken for ours.
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong package')")
    relink = str(installed / "relink")
    assert "simulator" in run(relink, "--help", where=tmp_path).stdout
    assert "simulator" in run(str(installed / "python"), "-P", "-m", "jobs", "--help", where=tmp_path).stdout
    told = run(relink, "demo", "--accounts", "50", "--nights", "1", where=tmp_path).stdout
    assert "Every night did what it should." in told
    assert (tmp_path / "demo" / "reports" / "latest" / "manifest.json").is_file()
    assert "Broken now" in (tmp_path / "demo" / "reports" / "latest" / "index.html").read_text(encoding="utf-8")


def test_what_runs_is_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import jobs, reconcile, reports; print(jobs.__file__, reconcile.__file__, reports.__file__)"
    files = run(str(installed / "python"), "-c", code, where=tmp_path).stdout.split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files), files


def lock_entries() -> dict[str, list[str]]:
    """The lock's logical lines by package name; a package may stand there once for each system."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            entries.setdefault(canonicalize_name(line.split("==")[0].strip()), []).append(line)
    return entries


def test_every_locked_package_is_pinned_with_hashes_and_without_a_host() -> None:
    line_shape = re.compile(
        r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][^\s;]*( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*"
    )
    entries = lock_entries()
    assert len(entries) > 30
    assert [line for lines in entries.values() for line in lines if not line_shape.fullmatch(line)] == []
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_the_lock_has_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    entries = lock_entries()
    for requirement in map(Requirement, asked):
        lines = entries.get(canonicalize_name(requirement.name), [])
        versions = [line.split("==")[1].split()[0] for line in lines]
        assert versions, f"{requirement.name} is not locked; run make lock"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), requirement


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from jobs.cli import COMMANDS, main
for arguments in ([], *([name] for name in COMMANDS)):
    assert main([*arguments, "--help"]) == 0, arguments
    heavy = sorted(set(sys.modules) & set({HEAVY!r}))
    assert not heavy, (arguments, heavy)
"""
    assert "Usage: relink run" in run(sys.executable, "-c", code, where=ROOT).stdout
