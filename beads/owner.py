"""What only the installation's owner decides, and the file in which the owner lets towns choose some of it.

The owner is whoever sets a config on the server's own command line, or is a superuser in the console. Everybody else
who may set a town's config is a tenant: which programs its agents are, what its runs reach over the network, what makes
up its sandbox and where its notices go must not change but to what `GASTOWN_OWNER_CONFIG` allows:

    [allow]
    commands = ["claude", "/opt/agents/review", ["sh", "-c", "exactly this"]]   # program or preset; a list: all words
    networks = ["open", "registry.example.org:443", "*.example.net:443", "mirror.lan", "10.1.0.0/16"]
    webhooks = ["https://hooks.example.org/gastown", "chat.lan:8065", "chat.example.org"]
    nested = false
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import pydantic
from django.conf import settings
from pydantic import AfterValidator, Field, StringConstraints

from beads import values
from beads.addresses import is_near, is_public
from beads.config import AgentCommand, Config, Gate, NotifyConfig
from beads.errors import Forbidden, Invalid
from beads.values import NONE, OPEN, Section

ASK = "ask the installation's owner to set it, or to name it in [allow] of GASTOWN_OWNER_CONFIG"
_LIMITS = ("memory", "processes", "disk", "tmp", "wall")

_Word = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"^[^\x00]+$")]
_Words = Annotated[tuple[_Word, ...], Field(strict=False, min_length=1, max_length=100)]


def _network(word: str) -> str:
    """`open`, `host`, `host:port`, `*.host:port`, an address or a CIDR."""
    word = word.lower()
    try:
        ipaddress.ip_network(word)
    except ValueError:
        if "/" in word:
            raise ValueError(f"{word[:100]!r} is no network such as 10.1.0.0/16") from None
        if word != OPEN:
            host, _, port = word.partition(":")
            values.parse_network([f"{host}:{port or 1}"])
    return word


class Allow(Section):
    """`[allow]`: what towns may choose by themselves. Nothing unless it is named."""

    commands: Annotated[tuple[_Word | _Words, ...], Field(strict=False, max_length=500)] = ()
    networks: Annotated[tuple[Annotated[_Word, AfterValidator(_network)], ...], Field(strict=False)] = ()
    webhooks: Annotated[tuple[_Word, ...], Field(strict=False, max_length=500)] = ()
    nested: bool = False

    def command(self, words: tuple[str, ...], preset: str = "") -> bool:
        """True when an agent may be this program (or preset), exactly as it is named."""
        if preset:
            return preset in self.commands
        return words in self.commands or any(word in self.commands for word in words[:1])

    def network(self, word: str) -> bool:
        """True when a config may name this `host:port`, or "open"."""
        if word == NONE or OPEN in self.networks:
            return True
        host = word.rpartition(":")[0]
        return any(
            entry in (word, host) or _suffix(entry, word) or _suffix(entry, host) or _inside(entry, host)
            for entry in self.networks
            if word != OPEN
        )

    def place(self, host: str, port: int) -> bool:
        """True when a server of models may be at this host and port, whatever its address: `open` names none."""
        return self.model_copy(update={"networks": tuple(w for w in self.networks if w != OPEN)}).network(
            f"{host}:{port}"
        )

    def webhook(self, url: str) -> bool:
        """True when this URL, or its host (`host` or `host:port`), is named."""
        place = urlsplit(url).netloc.lower()
        return url in self.webhooks or bool(
            {place, place.rpartition(":")[0] or place} & {*map(str.lower, self.webhooks)}
        )


def _suffix(entry: str, word: str) -> bool:
    return entry.startswith("*.") and word.endswith(entry[1:])


def _inside(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry)
    except ValueError:
        return False


class _File(Section):
    allow: Allow = Allow()


def allowed() -> Allow:
    """What the owner's file allows; nothing when there is no such file. Raises Invalid, with one line, when the file
    cannot be read, has an unknown key, or can be written by others than its owner (root, or whom this process is)."""
    name = settings.GASTOWN_OWNER_CONFIG
    if not name:
        return Allow()
    path = Path(name).absolute()
    try:
        _only_the_owners(path)
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return _File.model_validate(data).allow
    except OSError as error:
        raise _bad(f"{name} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(f"{name} is not TOML: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or "[" not in str(part))
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise _bad(f"{name}: {key}: {what}") from None


def _only_the_owners(path: Path) -> None:
    """Nobody else can write the file, nor put another in its place."""
    real = path.resolve(strict=True)
    for part in (real, *real.parents, *path.parents):
        found = part.stat()
        mode = stat.S_IMODE(found.st_mode)
        shared = part != real and mode & stat.S_ISVTX  # as /tmp: only owners can move what is in it
        if found.st_uid not in (0, os.geteuid()) or (mode & 0o022 and not shared):
            raise _bad(f"{path}: others than the owner can write {part}: chown and chmod go-w it")


def _bad(message: str) -> Invalid:
    return Invalid(f"GASTOWN_OWNER_CONFIG: {message}", field="GASTOWN_OWNER_CONFIG")


def private_networks() -> tuple[str, ...]:
    """Networks (CIDR), addresses and hosts (`host`, `host:port`, `*.host`) that the owner has named: the proxy lets
    them pass although their addresses are private."""
    return tuple(entry for entry in allowed().networks if entry != OPEN)


def refused(old: Config, new: Config, allow: Allow) -> list[str]:
    """Why somebody who is not the owner may not make `new` of `old`: one line for each key. Pure.

    Both are whole configs, so that taking an override away counts as what comes to hold instead. What stays is never
    refused; `"none"` and `nested = false` never are.
    """
    found = []
    was = {gate.name: gate for gate in old.refinery.gates}
    for role, agent in dict(new.agents).items():
        if agent is not None:
            before = getattr(old.agents, role)
            key = f"agents.{role}"
            ours = (before.command, _preset(before)) if before else None
            if ours != (agent.command, _preset(agent)) and not allow.command(agent.command or (), _preset(agent)):
                what = "command"
                if _preset(agent):
                    what = "preset"
                found.append(f"{key}.{what}: {_preset(agent) or agent.command[0]!r} is not allowed here")
            found += _reach(key, before, agent, allow) + _limits(key, before, agent, new)
    for gate in new.refinery.gates:
        key, past = f"refinery.gates {gate.name!r}", was.get(gate.name)
        found += _reach(key, past, gate, allow) + _limits(key, past, gate, new)
        if gate.nested and not (past and past.nested) and not allow.nested:
            found.append(f"{key} nested: user namespaces of its own are not allowed here")
    for key, value in dict(new.sandbox).items():
        if value != getattr(old.sandbox, key):
            found.append(f"sandbox.{key}: the sandbox is the owner's")
    hook = new.notify.webhook
    if hook and hook != old.notify.webhook and not allow.webhook(hook):
        found.append(f"notify.webhook: {urlsplit(hook).netloc} is not allowed here")
    found += [f"{key}: {why}" for key, why in _inside_urls(old, new, allow)]
    return [f"{line}; {ASK}" for line in found]


def _preset(agent: Any) -> str:
    return str(getattr(agent, "preset", "") or "")


def _reach(key: str, old: AgentCommand | Gate | None, new: AgentCommand | Gate, allow: Allow) -> list[str]:
    """What it may reach that it could not reach before, and is not allowed."""
    before = set(old.network) if old else set()
    if OPEN in before:
        return []
    more = [word for word in new.network if word not in before and not allow.network(word)]
    if more:
        return [f"{key}.network: {', '.join(more)} is not allowed here"]
    return []


def _limits(key: str, old: AgentCommand | Gate | None, new: AgentCommand | Gate, config: Config) -> list[str]:
    """The limits with which it would go beyond what [sandbox] says."""
    found = []
    for name in _LIMITS:
        value = getattr(new, name, None)
        if value is not None and value != getattr(old, name, None) and value > getattr(config.sandbox, name):
            found.append(f"{key}.{name}: it is more than sandbox.{name} allows")
    return found


def check(old: Config, new: Config, *, by_owner: bool) -> None:
    """The one guard of whatever sets a config for a person. Raises Forbidden with every reason of `refused` for whoever
    is not the owner, and Invalid for a webhook that nobody may set (see `check_webhook`)."""
    if not by_owner:
        found = refused(old, new, allowed())
        if found:
            raise Forbidden("; ".join(found), details={"refused": found})
    if new.notify != old.notify:
        check_webhook(new.notify)
    for key, why in _inside_urls(old, new, allowed()):
        named = "the installation's owner can name it in [allow] networks of GASTOWN_OWNER_CONFIG"
        raise Invalid(f"{key}: {why}; {named}", field=key)


def _inside_urls(old: Config, new: Config, allow: Allow) -> Iterator[tuple[str, str]]:
    """(key, why) for each new URL to which a key would be sent, and may not be."""
    told = {f"providers.{name}.base_url": (one.base_url, getattr(old.providers, name).base_url)
            for name, one in dict(new.providers).items()}  # fmt: skip
    for key, (url, before) in {**told, "pr.url": (new.pr.url, old.pr.url)}.items():
        if url and url != before and (why := inside_url(url, allow)):
            yield key, why


def place_of(url: str) -> tuple[str, int]:
    """The host and the port of a base URL."""
    parts = urlsplit(url)
    return (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def inside_url(url: str, allow: Allow) -> str:
    """Why a key may not be sent to this base URL, or an empty string: it must be https at a public address, unless the
    owner has named the place. What a name stands for is looked at with each call."""
    host, port = place_of(url)
    if allow.place(host, port):
        return ""
    if is_near(host):
        return f"{host} is no public address"
    return "" if url.startswith("https://") else "it must be https, for a key goes there"


def refused_address(host: str, addresses: Iterable[str], key: str) -> str:
    """Why a host that stands for these addresses may not be connected to, though its name may be set: all of them must
    be public, unless the owner names it. Empty: it may. `key`: of `[allow]`, where it can be named."""
    inside = next((one for one in addresses if not is_public(one)), "")
    if not inside:
        return ""
    return (
        f"{host} is at {inside}, which is no public address: the installation's owner can name it in [allow] {key} of "
        "GASTOWN_OWNER_CONFIG"
    )


def check_webhook(notify: NotifyConfig) -> None:
    """Refuses a webhook whose very address is this machine's or a neighbour's, unless the owner names it. What a name
    stands for is looked at when a notice is delivered."""
    host = (urlsplit(notify.webhook).hostname or "").rstrip(".")
    if is_near(host) and not allowed().webhook(notify.webhook):
        raise Invalid(
            f"notify.webhook: {host} is no public address; the installation's owner can name it in [allow] webhooks of "
            "GASTOWN_OWNER_CONFIG",
            field="notify.webhook",
        )
