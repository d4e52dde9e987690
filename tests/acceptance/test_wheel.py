"""The wheel, in an empty venv: nothing of the checkout is missing in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.test_installation import ROOT, fresh, postmasters, until
from tests.ports import free_port
from tests.seed import environment

__all__ = ["fresh"]
PACKAGES = ("agents", "beads", "gastown_site", "refinery")
MOVED = ("static", "templates")  # beside the packages in a checkout, inside gastown_site in a wheel


def uv(*words: str, cwd: Path = ROOT) -> None:
    """uv from what `make setup` has fetched, else from the registry."""
    tool = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    for offline in (["--offline"], []):
        done = subprocess.run(
            [tool, *words, *offline], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", str(made), str(ROOT))
    (found,) = made.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_project_and_its_license(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = {name for name in listed.splitlines() if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    kept |= {f"gastown_site/{name}" for name in listed.splitlines() if name.startswith(tuple(f"{m}/" for m in MOVED))}
    with zipfile.ZipFile(wheel) as archive:
        inside = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert kept - set(inside) == set()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in inside)
    runs = {name for name in kept if (ROOT / name).exists() and os.access(ROOT / name, os.X_OK)}
    assert {"agents/runtime/askpass", "agents/runtime/hooks/pre-receive"} <= runs
    assert all(inside[name] & 0o111 for name in runs)


@pytest.mark.slow  # a minute of installing
def test_an_installed_wheel_helps_checks_itself_and_serves_its_log_in_page(wheel: Path, fresh: Path) -> None:
    place = fresh.parent
    place.joinpath("empty").mkdir()
    python = place / "venv" / "bin" / "python"
    uv("export", "--frozen", "--no-dev", "--no-emit-project", "--quiet", "-o", str(place / "needs.txt"))
    uv("venv", "--quiet", str(place / "venv"))
    uv("pip", "install", "--quiet", "--python", str(python), "-r", str(place / "needs.txt"), str(wheel))
    gastown = str(python.with_name("gastown"))
    fresh.mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [gastown, *words], cwd=place / "empty", env=environment(fresh), capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip

    assert run("--help").stdout.startswith("usage: gastown COMMAND")
    checked = run("doctor")
    assert "PostgreSQL 18" in checked.stdout and "manage.py" not in checked.stdout, checked.stdout + checked.stderr
    port = free_port()
    log = place / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(
            [gastown, "up", "--port", str(port)], cwd=place / "empty", env=environment(fresh), stdout=out, stderr=out
        )
    try:
        until(lambda: "ready: " in log.read_text() or up.poll() is not None, 180)
        assert up.poll() is None, log.read_text()
        page = _get(port, "/accounts/login/")
        styles = re.findall(r'href="(/static/[^"]+\.css)"', page)
        assert "password" in page and styles
        assert all("{" in _get(port, style) for style in styles)
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, log.read_text()
    until(lambda: not postmasters(fresh))


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return str(answer.read().decode())
