"""The only writer of Secret: what a town's runs, and the server's own git, need to know and nobody shall read.

A value is written once and never shown again: not by a command, not in the console, not in an event. What is recorded
of a secret is its name, who set it and when. `beads.keyring` seals the values.
"""

from __future__ import annotations

import contextlib
import re
import secrets as random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from beads import inbox, keyring, outages
from beads.config import Config, usable
from beads.errors import Invalid, NotFound, Refused
from beads.models import Rig, Secret, Town

LIMIT = 64 * 1024  # bytes
WEBHOOK = "WEBHOOK_SECRET"  # signs the town's webhooks: for the server alone
OURS = "gastown"  # who has set what nobody has seen


def check_name(name: str) -> str:
    """A legal name of a secret, or Invalid. It becomes the name of an environment variable."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise Invalid(f"name: {name[:60]!r} is no name of a secret: letters, digits and _, at most 100", field="name")
    if name.startswith("GASTOWN_") or name == "CI":
        raise Invalid(f"name: {name} is a variable that Gastown sets itself: choose another name", field="name")
    return name


def check_value(value: str) -> str:
    """A legal value, or Invalid: any text of at most 64 KiB without NUL. No word of it is in the error."""
    if not value:
        raise Invalid("value: it is empty", field="value")
    if "\x00" in value:
        raise Invalid("value: it holds a NUL byte", field="value")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Invalid("value: it is not UTF-8 text", field="value") from None
    if size > LIMIT:
        raise Invalid(f"value: it is longer than {LIMIT // 1024} KiB", field="value")
    return value


def set_secret(town: Town, name: str, value: str, who: str) -> None:
    """Set or replace a secret of a town; wakes it, for a run may have waited for this. Raises Invalid, Refused."""
    check_name(name)
    check_value(value)
    _write(town, name, value, who)


def _write(town: Town, name: str, value: str, who: str) -> None:
    with _one_writer():
        if not Secret.objects.exists():  # a key that is lost while something is sealed with it is told of, not replaced
            keyring.make()
        row = {"ciphertext": keyring.seal(value, _place(town, name)), "updated_by": who[:150]}
        Secret.objects.update_or_create(town=town, name=name, defaults=row)
        outages.look_now(town.rigs.all(), timezone.now())  # perhaps it is what a remote has been waiting for
        inbox.record(town, "secret.set", name, {}, actor=who)


@contextlib.contextmanager
def _one_writer() -> Iterator[None]:
    """A transaction in which nobody else writes secrets: a first key is made once, and none is sealed with the old key
    while the others get the new one."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("lock table beads_secret in share row exclusive mode")
        yield


def remove(town: Town, name: str, who: str) -> list[str]:
    """Remove a secret; returns which keys of which configs still name it. Raises NotFound."""
    with transaction.atomic():
        if not Secret.objects.filter(town=town, name=name).delete()[0]:
            raise NotFound(f"town {town.slug} has no secret {name}", details={"field": "name"})
        inbox.record(town, "secret.remove", name, {}, actor=who)
    for file in keyring.folder().glob(f"*/{name}.key"):  # what `agents.access` has written for ssh
        if file.parent.name in {str(pk) for pk in town.rigs.values_list("pk", flat=True)}:
            file.unlink(missing_ok=True)
    return [f"{whose} names it in {key}" for whose, config in _configs(town) for key in named(config).get(name, ())]


def names(town: Town) -> list[str]:
    """The names of a town's secrets, in order."""
    return list(Secret.objects.filter(town=town).order_by("name").values_list("name", flat=True))


def values(town: Town, names: Iterable[str]) -> dict[str, str]:
    """The values of these secrets of a town. Raises NotFound naming the first that is not set and how to set it;
    Refused when the key cannot be had."""
    wanted = list(dict.fromkeys(names))
    rows = {}
    if wanted:
        rows = {row.name: row for row in Secret.objects.filter(town=town, name__in=wanted)}
    for name in wanted:
        if name not in rows:
            raise NotFound(
                f"town {town.slug} has no secret {name}: set it with `gastown secret set {name} --town {town.slug}`",
                details={"field": "secrets", "name": name},
            )
    return {name: keyring.unseal(rows[name].ciphertext, _place(town, name)) for name in wanted}


def for_run(town: Town, names: Iterable[str]) -> dict[str, str]:
    """The variables that a run gets for the secrets that its role (or its gates) name; as `values`.

    What signs the town's webhooks is never handed to a run.
    """
    wanted = list(names)
    if WEBHOOK in wanted:
        raise Refused(f"the secret {WEBHOOK} signs the town's webhooks and is handed to no run: use another name")
    return values(town, wanted)


def named(config: Config) -> dict[str, list[str]]:
    """Secrets that a config names: by name, the keys that name it. Pure."""
    found: dict[str, list[str]] = {}
    agents = {f"agents.{role}.secrets": agent.secrets for role, agent in dict(config.agents).items() if agent}
    gates = {f"refinery.gates {gate.name!r} secrets": gate.secrets for gate in config.refinery.gates}
    keys = {"git.credential": (config.git.credential,), "git.signing_key": (config.git.signing_key,)}
    keys |= {"pr.credential": (config.pr.credential,), "pr.webhook_secret": (config.pr.webhook_secret,)}
    doors = {f"providers.{name}.secret": (one.secret,) for name, one in dict(config.providers).items()}
    for key, wanted in {**agents, **gates, **keys, **doors}.items():
        for name in filter(None, wanted):
            found.setdefault(name, []).append(key)
    return found


def unset(town: Town | None, config: Config) -> list[str]:
    """What to tell whoever sets `config`: one line for each secret that it names and the town has not."""
    slug = "main"
    if town:
        slug = town.slug
    have = set(names(town)) if town else set()
    return [
        f"secret {name} ({', '.join(keys)}) is not set yet: gastown secret set {name} --town {slug}"
        for name, keys in sorted(named(config).items())
        if name not in have
    ]


def notes(owner: Town | Rig) -> list[str]:
    """As `unset`, for the config that holds for a town or rig now."""
    town, rig = (owner.town, owner.config) if isinstance(owner, Rig) else (owner, {})
    return unset(town, usable(town.config, rig)[0])


def reseal() -> int:
    """Make a new key and seal every secret of every town with it; returns how many there are. The old keys stay in the
    file, for a death in the midst and for backups of the database."""
    with _one_writer():
        rows = list(Secret.objects.select_related("town").order_by("pk"))
        if not rows:
            keyring.make()
        keyring.rotate()
        for row in rows:
            place = _place(row.town, row.name)
            sealed = keyring.seal(keyring.unseal(row.ciphertext, place), place)
            Secret.objects.filter(pk=row.pk).update(ciphertext=sealed)
    return len(rows)


# -- webhooks ---------------------------------------------------------------------------------------------------------


def webhook_key(town: Town) -> str:
    """What signs the town's webhooks; made on first use, then nobody has seen it."""
    if not Secret.objects.filter(town=town, name=WEBHOOK).exists():
        with _one_writer():
            if not Secret.objects.filter(town=town, name=WEBHOOK).exists():
                _write(town, WEBHOOK, random.token_urlsafe(32), OURS)
    return values(town, [WEBHOOK])[WEBHOOK]


def show_webhook_key(town: Town, who: str, *, renew: bool = False) -> str:
    """What signs the town's webhooks, once: to the first who asks, or renewed. Raises Refused when it was shown or
    chosen before."""
    if renew:
        _write(town, WEBHOOK, random.token_urlsafe(32), who)
        return values(town, [WEBHOOK])[WEBHOOK]
    key = webhook_key(town)
    if not Secret.objects.filter(town=town, name=WEBHOOK, updated_by=OURS).update(
        updated_by=who[:150], updated_at=timezone.now()
    ):
        raise Refused(
            f"the webhook secret of town {town.slug} was shown or chosen before, and is not shown again: --renew makes "
            "another, which the receiver must then be told"
        )
    return key


def _configs(town: Town) -> list[tuple[str, Config]]:
    """The config that holds for the town, and for each of its rigs."""
    rigs = [(f"rig {rig.slug}", usable(town.config, rig.config)[0]) for rig in town.rigs.order_by("slug")]
    return [(f"town {town.slug}", usable(town.config, {})[0]), *rigs]


def _place(town: Town, name: str) -> str:
    return f"{town.slug}/{name}"


def rows(town: Town) -> list[Mapping[str, Any]]:
    """What may be told of a town's secrets: names, and who set them when."""
    found = Secret.objects.filter(town=town).order_by("name")
    return [{"name": s.name, "updated_at": s.updated_at, "updated_by": s.updated_by} for s in found]
