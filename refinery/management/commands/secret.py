"""`secret set|list|remove|rotate`"""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from beads import ledger, secrets
from beads.command import GastownCommand, Said, actor, table
from beads.errors import Invalid
from beads.finders import town_of
from beads.models import Town


class Command(GastownCommand):
    help = "Secrets of a town: for its runs, and for the server's own git. Values are never shown again."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        for name, run, text in (
            ("set", self.set, "set or replace a secret: its value is read from standard input"),
            ("remove", self.remove, "remove a secret"),
        ):
            verb = self.sub(verbs, name, run, text)
            verb.add_argument("name", metavar="NAME")
            verb.add_argument("--town")
        self.sub(verbs, "list", self.list, "the names of a town's secrets").add_argument("--town")
        self.sub(verbs, "rotate", self.rotate, "make a new key, and seal the secrets of all towns with it")

    def set(self, name: str, town: str | None, **_: Any) -> Any:
        """Set a secret."""
        secrets.check_name(name)
        found = _town(town)
        secrets.set_secret(found, name, _value(name), str(actor()))
        return Said({"name": name, "town": found.slug}, f"secret {name} of town {found.slug} is set")

    def remove(self, name: str, town: str | None, **_: Any) -> Any:
        """Remove a secret, and say who still names it."""
        found = town_of(town)
        named = secrets.remove(found, name, str(actor()))
        lines = [f"secret {name} of town {found.slug} is removed", *(f"note: {line}" for line in named)]
        return Said({"name": name, "town": found.slug, "notes": named}, "\n".join(lines))

    def list(self, town: str | None, **_: Any) -> Any:
        """Names, and who set them when."""
        rows = [dict(row) for row in secrets.rows(town_of(town))]
        return Said(rows, table(rows, ["name", "updated_at", "updated_by"], "no secrets: secret set NAME"))

    def rotate(self, **_: Any) -> Any:
        """A new key."""
        count = secrets.reseal()
        return Said({"secrets": count}, f"there is a new key; {count} secrets are sealed with it")


def _town(slug: str | None) -> Town:
    """The named town; on an empty installation the default one is made, as `rig add` does: its key may come first."""
    if slug in (None, "main") and not Town.objects.exists():
        return ledger.create_town("main")
    return town_of(slug)


def _value(name: str) -> str:
    """All of standard input, but one line end at its end; on a terminal one line, without an echo."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Value of {name}: ")
    data = sys.stdin.buffer.read(secrets.LIMIT + 3)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        if len(data) > secrets.LIMIT:
            raise Invalid(f"value: it is longer than {secrets.LIMIT // 1024} KiB", field="value") from None
        raise Invalid("value: it is not UTF-8 text", field="value") from None
    if text.endswith("\r\n"):
        return text.removesuffix("\n").removesuffix("\r")
    return text.removesuffix("\n")
