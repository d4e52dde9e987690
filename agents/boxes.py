"""What a run's box is: config and environment → the `box` of its spec, which `agents.runtime.sandbox` makes true.

Of the server's environment inside are only the variables of `PASSED`, and the files that they name. A URL among them
loses its credentials: whoever needs them inside gets them as a secret of that role.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings

from agents.lifecycle import RunKind
from agents.models import Run
from agents.runtime import sandbox
from beads import config as configs
from beads.config import AgentCommand, Config, Preset, SandboxMode
from beads.errors import Invalid

VARIABLE = "GASTOWN_SANDBOX"
_CERTIFICATES = (
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO PIP_CERT "
    "CARGO_HTTP_CAINFO AWS_CA_BUNDLE npm_config_cafile NPM_CONFIG_CAFILE"
)
_REGISTRIES = (
    "PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_CONFIG_FILE PIP_DEFAULT_TIMEOUT "
    "PIP_DISABLE_PIP_VERSION_CHECK UV_INDEX UV_INDEX_URL UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS "
    "npm_config_registry NPM_CONFIG_REGISTRY YARN_REGISTRY YARN_NPM_REGISTRY_SERVER COREPACK_NPM_REGISTRY "
    "GOPROXY GONOSUMDB GONOSUMCHECK GOSUMDB GOFLAGS GOTOOLCHAIN CARGO_REGISTRIES_CRATES_IO_PROTOCOL RUSTUP_DIST_SERVER"
)
PASSED = (*_CERTIFICATES.split(), *_REGISTRIES.split(), "TZ", "LC_ALL")
_PIP_CONFIGS = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf")
_PIP_KEYS = re.compile(r"^\s*(find-links|index-url|extra-index-url|cert)\s*=(.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)


def mode(config: Config) -> SandboxMode:
    """Whether a sandbox is required: `GASTOWN_SANDBOX` says it, else the config. Raises Invalid for another word."""
    told = os.environ.get(VARIABLE, "")
    if told and told not in list(SandboxMode):
        raise Invalid(f"{VARIABLE}: {told[:40]!r} is neither required nor off", field=VARIABLE)
    if told:
        return SandboxMode(told)
    return config.sandbox.mode


def is_off(config: Config) -> bool:
    """True when commands run without a sandbox here."""
    return mode(config) is SandboxMode.OFF


@dataclass(frozen=True)
class Places:
    """What a command is to find in its box. `workspace`: where it runs, writable; an agent sees it at `box.TREE`.
    `home`: an empty directory that is HOME; None: one in memory. `read_only`: what else is to be seen. `secrets`:
    values by their names, which the log must not show. `allow`: the owner's exceptions for addresses that are not
    public (networks, hosts, `host:port`)."""

    workspace: Path
    home: Path | None = None
    read_only: Iterable[Path] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    allow: Sequence[str] = ()


def box_for(run: Run, places: Places) -> dict[str, Any]:
    """The box of a run; see `box_of`."""
    config = configs.effective(run.rig.town.config, run.rig.config)
    return box_of(config, agent_of(config, run), str(run.kind), places)


def box_of(config: Config, agent: AgentCommand | None, role: str, places: Places) -> dict[str, Any]:
    """The box of a role's runs, JSON-able; `agent` None: of gates. Raises NoSandbox (none can be started) or Invalid
    (it would show too much, or the agent's program would not be visible)."""
    if is_off(config):
        found = sandbox.Status(sandbox.UNSANDBOXED)
    else:
        found = sandbox.required()
    env, named, notes = passed_on(os.environ)
    shown, path = _named(config)
    missing = [given for given in config.sandbox.read_only if not os.path.exists(os.path.expanduser(given))]
    notes += [f"sandbox.read_only: {given} does not exist, so it is not shown" for given in missing]
    box = {
        "kind": found.kind,
        "bwrap": found.bwrap,
        "read_only": real([*map(str, places.read_only), *shown, *named]),
        "writable": [] if agent else real([str(places.workspace)]),
        "tree": str(places.workspace) if agent else "",
        "home": str(places.home) if places.home is not None else "",
        "path": path,
        "env": env,
        "network": list(agent.network) if agent else ["none"],
        "allow": list(places.allow),
        "tools": settings.GASTOWN_URL if agent else "",
        "limits": _limits(config, agent, gates=role == RunKind.GATES),
        "nested": False,
        "secrets": sorted(set(places.secrets.values())),
        "notes": notes if found.kind == sandbox.BUBBLEWRAP else [],
    }
    if agent is not None and agent.command:
        made = sandbox.Box.of(box)
        env = {"PATH": made.search_path(os.environ.get("PATH", ""))}
        why = made.unseen(list(agent.command), env, str(places.workspace))
        if why:
            raise Invalid(why, field=f"agents.{role}.command")
    return box


def notes(config: Config) -> list[str]:
    """What to tell whoever sets `config`: what it names that is not there or must not be shown, and agents' programs
    that the sandbox does not show. Their runs would not start."""
    if is_off(config):
        return []
    found = []
    for key, paths in (("read_only", config.sandbox.read_only), ("path", config.sandbox.path)):
        for given in paths:
            if not os.path.exists(os.path.expanduser(given)):
                found.append(f"sandbox.{key}: {given} does not exist here, so it is not shown")
    try:
        shown, path = _named(config)
    except Invalid as error:
        return [*found, f"{error.message}: no run starts"]
    box = sandbox.Box(sandbox.BUBBLEWRAP, read_only=tuple(real(shown)), path=tuple(path))
    env = {"PATH": box.search_path(os.environ.get("PATH", ""))}
    for role, agent in dict(config.agents).items():
        program = agent.command[0] if agent is not None and agent.command else ""
        if program and (program.startswith("/") or "/" not in program):
            why = box.unseen([program], env, "/")
            found += [f"agents.{role}.command: {why}; its runs do not start until then"] if why else []
    return found


def real(paths: Sequence[str]) -> list[str]:
    """These paths, and what they are without links: git writes down the latter."""
    return list(dict.fromkeys(one for path in paths for one in (path, os.path.realpath(path))))


def agent_of(config: Config, run: Run) -> AgentCommand | None:
    """The agent's part of the config; None for gates. A run that was queued keeps the command, or the preset, of its
    step."""
    if run.kind == RunKind.GATES:
        return None
    agent: AgentCommand | None = getattr(config.agents, str(run.kind))
    step: dict[str, Any] = next((s for s in run.steps if s.get("argv") or s.get("preset")), {})
    if not step and agent is not None:
        return agent
    preset = Preset(step["preset"]) if step.get("preset") else None
    told: dict[str, Any] = {"preset": preset, "command": tuple(step.get("argv") or ([] if preset else ["false"]))}
    if agent is None:
        return AgentCommand(**told, network=("none",))
    return agent.model_copy(update=told)


def _limits(config: Config, agent: AgentCommand | None, *, gates: bool) -> dict[str, Any]:
    """Bytes, tasks and seconds; an agent's own over [sandbox]'s. Gates have time-outs in place of `wall`."""
    box = config.sandbox
    limits: dict[str, Any] = {name: getattr(box, name) for name in ("memory", "processes", "disk", "tmp")}
    wall = box.wall
    if agent is not None:
        limits |= {name: getattr(agent, name) for name in limits if getattr(agent, name) is not None}
        wall = agent.wall or wall
    if gates:
        return limits
    return {**limits, "wall": wall.total_seconds()}


def _named(config: Config) -> tuple[list[str], list[str]]:
    """What [sandbox] shows, and what it puts first in PATH. Raises Invalid for a path that would show too much.

    A link's target is shown with it; of a directory in `path` also the programs that its links point to.
    """
    shown: list[str] = []
    for key, paths in (("read_only", config.sandbox.read_only), ("path", config.sandbox.path)):
        for given in paths:
            place = os.path.expanduser(given)
            if why := sandbox.refused(place, settings.GASTOWN_HOME, os.path.expanduser("~")):
                raise Invalid(f"sandbox.{key}: {given} cannot be shown inside: {why}", field=f"sandbox.{key}")
            shown += [one for one in (place, os.path.realpath(place)) if os.path.exists(one)]
            if key == "path":
                shown += _targets(place)
    return list(dict.fromkeys(shown)), [os.path.expanduser(given) for given in config.sandbox.path]


def _targets(directory: str) -> Iterator[str]:
    """The files outside a directory of programs that its links point to."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)[:1000]
    except OSError:
        return
    for entry in entries:
        real = os.path.realpath(entry.path)
        inside = f"{real}/".startswith(f"{os.path.realpath(directory)}/")
        if entry.is_symlink() and not inside and os.path.isfile(real) and _harmless(real):
            yield real


def passed_on(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Of the server's environment: the variables that go inside, the paths that they name, and what to say of it."""
    env: dict[str, str] = {}
    notes: list[str] = []
    for name in PASSED:
        if not (value := environ.get(name, "")):
            continue
        env[name] = _without_credentials(value)
        if env[name] != value:
            notes.append(f"{name}: its credentials stay outside; what needs them is to get them as a secret")
    words = [word for name in PASSED[:-2] for word in re.split(r"[\s,|:]+(?=/)|\s+", env.get(name, ""))]
    for file in _PIP_CONFIGS:
        if os.access(file, os.R_OK):
            text = Path(file).read_text("utf-8", "replace")
            words += [word for _, value in _PIP_KEYS.findall(text) for word in value.split()]
    paths = [word.removeprefix("file://") for word in words]
    return env, [p for p in dict.fromkeys(paths) if p.startswith("/") and _harmless(p)], notes


def _harmless(path: str) -> bool:
    """True for a file or directory that may be shown: no home of anybody, nothing that holds our own."""
    if not os.path.exists(path) or sandbox.refused(path, settings.GASTOWN_HOME, os.path.expanduser("~")):
        return False
    real = os.path.realpath(path)
    if os.path.isdir(real):
        return real not in ("/etc", "/root", "/home", "/var", "/srv", "/opt", "/tmp", "/mnt") and not any(  # noqa: S108
            os.path.dirname(one) == "/home" or os.path.exists(os.path.join(one, ".ssh")) for one in (real, path)
        )
    return True


def _without_credentials(value: str) -> str:
    """The same without `user:password@` in any URL of it."""

    def bare(found: re.Match[str]) -> str:
        """One URL."""
        try:
            parts = urlsplit(found[0])
        except ValueError:
            return ""
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,|]+", bare, value)
