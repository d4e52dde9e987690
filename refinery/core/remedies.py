"""What a gate lacked where it ran, by its exit and its last words, and what mends that. Pure.

A gate can fail for what is missing around it: a network, a program, a module, room on the disk. Some of that is certain
from the run alone, and then its result is an *error*, whoever's change it was. A missing module is not: a change may
just import what nobody has. There the target's own head decides (see `refinery.core.checks`).

Words prove little, for a test may print anything: where a test runner says that tests ran and failed, they failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LAST = 40  # lines of the output that are read
_NETWORK = re.compile(
    r"EAI_AGAIN|ENOTFOUND|ENETUNREACH|[Nn]etwork is unreachable|[Cc]ould ?n[o']t resolve (?:host|proxy)|"
    r"[Nn]ame resolution|[Tt]emporary failure resolving|Name or service not known|nodename nor servname|"
    r"[Ff]ailed to lookup address|[Uu]nable to resolve host|[Cc]ould not resolve hostname|dial tcp: lookup|"
    r"UnknownHostException|[Uu]nknown host|[Nn]o address associated with hostname|dns error|"
    r"ERR_PNPM_META_FETCH_FAIL|ERR_NAME_NOT_RESOLVED|getaddrinfo (?:failed|E[A-Z]+)"
)
_PROXY = re.compile(r"(\S+:\d+) is not among what this run may reach")
_RAN = re.compile(
    r"^=+ .*\b\d+ (?:failed|errors?)\b.* =+$|^FAILED \(.*\)$|^--- FAIL: |^test result: FAILED|^Tests?:? .*\b\d+ failed|"
    r"^\s*\d+ failing$|^FAIL\t|Tests run: \d+, Failures: [1-9]|\d+ examples?, [1-9]\d* failures?",
    re.MULTILINE,
)
_PROGRAM = (
    re.compile(r"env: ['‘\"]?([\w.+-]+)['’\"]?: No such file or directory"),
    re.compile(r"(?:^|[\s:])['\"`‘]?([\w./+-]+)['\"`’]?: (?:command )?not found"),
    re.compile(r"(?:^|: )([\w.+-]+): No such file or directory\n(?:.*\n)*?.*Error 127"),
    re.compile(r"(?:exec|execvp):? ?[^\n]*?([\w./+-]+): No such file or directory"),
    re.compile(r"(?:^|: )([\w./+-]+): No such file or directory"),
)
_OUTSIDE = re.compile(r"^(\S+ is outside the sandbox: add its directory to .*)$", re.MULTILINE)
_ERROR_127 = re.compile(r"Error 127\b|\bexit(?:ed with)? (?:code|status) 127\b|\bcode ELIFECYCLE\b.*\b127\b")
_MODULE = (
    re.compile(r"(?:ModuleNotFoundError|ImportError): No module named ['\"]?([\w.]+)"),
    re.compile(r"^\S*python[\d.]*: No module named ([\w.]+)", re.MULTILINE),
    re.compile(r"Cannot find (?:module|package) ['\"]([^./'\"][^'\"]*)['\"]"),
    re.compile(r"cannot load such file -- (\S+)"),
    re.compile(r"Can't locate (\S+) in @INC"),
    re.compile(r"there is no package called [‘'\"]([\w.]+)"),
)
_TOOLS = frozenset(
    {
        "pytest", "_pytest", "tox", "nox", "nose", "nose2", "coverage", "pytest_cov", "xdist", "pytest_asyncio",
        "hypothesis", "ruff", "mypy", "flake8", "pylint", "black", "isort", "jest", "vitest", "mocha", "ava", "tap",
        "eslint", "prettier", "typescript", "ts-node", "tsx", "karma", "cypress", "playwright", "rspec", "rspec/core",
        "minitest", "Test/More.pm", "testthat",
    }
)  # fmt: skip
_ROOM = re.compile(r"No space left on device|ENOSPC|[Dd]isk quota exceeded")
_READ_ONLY = re.compile(r"(?:['\"`]?(/[^\s'\"`:]+)['\"`]?: )?Read-only file system(?:: ['\"`]?(/[^\s'\"`:]+))?|EROFS")
_DENIED = re.compile(r"(?:['\"`]?(/[^\s'\"`:]+)['\"`]?: )?Permission denied(?:: ['\"`]?(/[^\s'\"`:]+))?|EACCES")


@dataclass(frozen=True, slots=True)
class Remedy:
    """What was missing, with what mends it, in one sentence. `certain`: the run alone proves that it is an *error*."""

    text: str
    certain: bool


def remedy(
    exit_code: int | None, output: str, *, network: Sequence[str] | None, boxed: bool, tests_failed: bool = False
) -> Remedy | None:
    """What a gate that has not passed lacked; None where nothing says so.

    `network`: what the gate may reach, as in its config; None: that is not known. `boxed`: it ran in a sandbox.
    `tests_failed`: a report of its tests names failures.
    """
    if exit_code in (None, 0):
        return None
    lines = output.rstrip().splitlines()[-LAST:]
    said = "\n".join(lines)
    if exit_code in (126, 127) or _ERROR_127.search("\n".join(lines[-12:])):
        return _program(said)
    if tests_failed or _RAN.search(said):
        return None
    if boxed and (found := _no_network(said, network)):
        return found
    if _ROOM.search(said):
        return Remedy("no space is left: raise `disk` or `tmp` of this gate, or of [sandbox]; else see `df`", True)
    if found := _module(said):
        return found
    if boxed:
        return _place(said)
    return None


def _no_network(said: str, network: Sequence[str] | None) -> Remedy | None:
    if network is None:
        return None
    if tuple(network) in ((), ("none",)):
        if not _NETWORK.search(said):
            return None
        text = 'this gate has no network: `network = true` for it, or a list such as ["registry.example.org:443"]'
        return Remedy(text, True)
    if where := _PROXY.search(said):
        return Remedy(f'this gate may not reach {where[1]}: add "{where[1]}" to its `network`', True)
    return None


def _program(said: str) -> Remedy | None:
    if outside := _OUTSIDE.search(said):
        return Remedy(outside[1], True)
    name = next((found[-1] for pattern in _PROGRAM if (found := pattern.findall(said))), "")
    which = "a program that it starts"
    if name:
        which = f"`{name}`"
    return Remedy(f"{which} is not there: install it, or show it with [sandbox] path and read_only", True)


def _module(said: str) -> Remedy | None:
    name = next((found[-1] for pattern in _MODULE if (found := pattern.findall(said))), "")
    if not name:
        return None
    text = (
        f"module {name!r} is not installed where the gate runs: let the gate install it (with `network = true`), "
        f"or show where it is with [sandbox] path and read_only"
    )
    return Remedy(text, name.split(".")[0] in _TOOLS)


def _place(said: str) -> Remedy | None:
    if found := _READ_ONLY.search(said):
        where = found[1] or found[2] or "a place"
        return Remedy(
            f"it writes to {where}, which is read-only here: a gate may write to its tree, HOME and /tmp", False
        )
    if (found := _DENIED.search(said)) and (where := found[1] or found[2]):
        return Remedy(f"{where} may not be used from inside: show it with [sandbox] read_only, or do without", False)
    return None
