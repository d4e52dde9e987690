"""Where an agent's program is on this machine, and what the sandbox has to show for it to run there.

An npm package is a link into `node_modules`, and needs Node; a Python one has its virtual environment; others are one
file. What lies below `/usr` is shown anyway.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from agents.presets.base import Preset

# where installers put programs that are on a person's PATH, and seldom on a service's
PLACES = ("~/.local/bin", "~/.npm-global/bin", "~/.opencode/bin", "~/.bun/bin", "~/.claude/local")


@dataclass(frozen=True)
class Found:
    """`path`: where it was found; `program`: the words that start it; `shown`: what must be seen inside."""

    path: str
    program: tuple[str, ...]
    shown: tuple[str, ...]


def find(preset: Preset, path: str) -> Found | None:
    """Look for a preset's program in these directories (`a:b`), then in the usual places; None: it is not here."""
    places = ":".join([path, *(os.path.expanduser(place) for place in PLACES)])
    found = shutil.which(preset.program, path=places)
    if found is None:
        return None
    real = os.path.realpath(found)
    program: tuple[str, ...] = (real,)
    shown = [_root(real)]
    interpreter, by_name = _interpreter(real)
    if interpreter and by_name and os.path.basename(interpreter) in ("node", "bun"):
        engine = shutil.which(interpreter, path=places)
        if engine is None:
            return Found(found, (interpreter, real), tuple(shown))  # it says so when it is started
        engine = os.path.realpath(engine)
        program, shown = (engine, real), [*shown, _engine_root(engine)]
    elif interpreter and not by_name:
        shown += [_root(interpreter), _engine_root(os.path.realpath(interpreter))]
    return Found(found, program, tuple(dict.fromkeys(one for one in shown if not _of_the_system(one))))


def _of_the_system(path: str) -> bool:
    """True for what every box shows."""
    return path.startswith(("/usr/", "/bin/", "/sbin/", "/lib", "/nix/store/", "/gnu/store/")) or path == "/usr"


def _root(path: str) -> str:
    """The outermost `node_modules` that a program is in, or its virtual environment, or the program itself."""
    parts = path.split("/")
    if "node_modules" in parts:
        return "/".join(parts[: parts.index("node_modules") + 1])
    environment = os.path.dirname(os.path.dirname(path))
    return environment if os.path.isfile(os.path.join(environment, "pyvenv.cfg")) else path


def _engine_root(path: str) -> str:
    """A distribution of Node or Python as a whole (npm, the standard library); else the program alone."""
    root = os.path.dirname(os.path.dirname(path))
    whole = any(os.path.isdir(os.path.join(root, part)) for part in ("include/node", "lib/node_modules"))
    python = os.path.basename(path).startswith("python") and os.path.isdir(os.path.join(root, "lib"))
    ours = os.path.realpath(os.path.expanduser("~"))
    return root if (whole or python) and root not in (ours, os.path.join(ours, ".local")) else path


def _interpreter(program: str) -> tuple[str, bool]:
    """What a script's first line names, and whether it is looked for in PATH; ("", False) for anything else."""
    try:
        with open(program, "rb") as handle:
            first = handle.readline(512)
    except OSError:
        return "", False
    words = os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []
    if not words:
        return "", False
    if os.path.basename(words[0]) != "env":
        return words[0], False
    named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return (named[0], True) if named else ("", False)
