"""Tries each mutation on a copy of the project: see the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations import MUTATIONS
from tests.mutations.mutation import Mutation

ROOT = Path(__file__).parents[2]


def _mutate(root: Path, mutation: Mutation) -> None:
    path = root / mutation.file
    text = path.read_text()
    if mutation.file.endswith("0001_initial.py"):
        text = _without_constraint(text, mutation.old)
    else:
        assert text.count(mutation.old) >= 1, f"{mutation.what}: {mutation.file} has changed, mend this list"
        text = text.replace(mutation.old, mutation.new, 1)
    path.write_text(text)


def _without_constraint(text: str, name: str) -> str:
    """The migration without the operation that makes this constraint."""
    at = text.index(name)
    begin = text.rindex("        migrations.AddConstraint(", 0, at)
    end = text.index("\n        ),\n", at) + len("\n        ),\n")
    return text[:begin] + text[end:]


def main() -> int:
    """All mutations, or those whose description contains the given words."""
    wanted = " ".join(sys.argv[1:])
    missed, tried, began = [], 0, time.monotonic()
    for mutation in MUTATIONS:
        if wanted not in mutation.what:
            continue
        tried += 1
        with tempfile.TemporaryDirectory(prefix="gastown-mutant-") as scratch:
            os.chmod(scratch, 0o755)
            root = Path(scratch) / "project"
            ignore = shutil.ignore_patterns(
                ".venv", ".uv", ".git", ".agents", ".hosts", "*.pyc", "__pycache__", "screenshots"
            )
            shutil.copytree(ROOT, root, ignore=ignore)
            (root / ".git").symlink_to(ROOT / ".git")  # the last release is read from the history
            _mutate(root, mutation)
            env = {k: v for k, v in os.environ.items() if not k.startswith("GASTOWN_")}
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-m",
                "",
                "-p",
                "no:randomly",
                "-p",
                "no:cacheprovider",
            ]
            done = subprocess.run(
                [*command, *mutation.tests.split()], cwd=root, env=env, capture_output=True, text=True, check=False
            )
        failed = [x.split(" - ")[0] for x in done.stdout.splitlines() if x.startswith(("FAILED tests", "ERROR tests"))]
        noticed = failed[0].removeprefix("FAILED ") if failed else ""
        print(f"{'noticed' if noticed else 'MISSED '}  {mutation.what}: {noticed or done.stdout[-200:]}", flush=True)
        if not noticed:
            missed.append(mutation.what)
    print(f"mutations: {tried}, missed: {len(missed)}, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
