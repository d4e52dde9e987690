"""`person create|grant|revoke|notify|password|unlock|list`: accounts and their roles in towns."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model

from beads import ledger, people
from beads.command import GastownCommand, Said, actor, table
from beads.errors import Invalid
from beads.finders import town_of
from beads.models import Membership, Town, TownRole
from gastown_site import lockout

ROLES = [str(role) for role in TownRole]


class Command(GastownCommand):
    help = "People: accounts and their roles in towns (viewer, reviewer, operator)."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        create = self.sub(
            verbs, "create", self.create, "make an account; its password is asked for, or is stdin's first line"
        )
        create.add_argument("name")
        create.add_argument("--role", choices=ROLES, help="its role in the town")
        create.add_argument("--town", help="default: the only town, or main")
        create.add_argument("--superuser", action="store_true", help="may do everything in every town")
        grant = self.sub(verbs, "grant", self.grant, "give a person a role in a town, in place of the one they had")
        grant.add_argument("name")
        grant.add_argument("--role", choices=ROLES, required=True)
        grant.add_argument("--town")
        revoke = self.sub(verbs, "revoke", self.revoke, "take a person's role in a town away")
        revoke.add_argument("name")
        revoke.add_argument("--town")
        notify = self.sub(verbs, "notify", self.notify, "choose what a person hears by mail")
        notify.add_argument("name")
        notify.add_argument("--town")
        notify.add_argument("--on", help="kinds, comma-separated: needs_you, landed, failed; empty: nothing")
        notify.add_argument("--mail", metavar="ADDRESS")
        self.sub(verbs, "password", self.password, "set a new password").add_argument("name")
        unlock = self.sub(
            verbs, "unlock", self.unlock, "let a person log in again who was locked out after wrong passwords"
        )
        unlock.add_argument("name", nargs="?")
        unlock.add_argument("--all", action="store_true", help="everybody, from everywhere")
        self.sub(verbs, "list", self.list, "all people and their roles")

    def create(self, name: str, role: str | None, town: str | None, superuser: bool, **_: Any) -> Any:
        """Make an account, with a role."""
        if role is None and not superuser:
            raise Invalid("give --role (viewer, reviewer or operator), or --superuser", field="role")
        if role is None:
            people.create(name, _password(name), superuser=superuser)
            data = {"name": name, "role": None, "town": None, "superuser": superuser}
            return Said(data, f"{name} is superuser")
        found = _town(town)
        user = people.create(name, _password(name), superuser=superuser)
        people.grant(user, found, people.role_named(role), str(actor()))
        data = {"name": name, "role": role, "town": found.slug, "superuser": superuser}
        return Said(data, f"{name} is {role} of town {found.slug}")

    def grant(self, name: str, role: str, town: str | None, **_: Any) -> Any:
        """Give a role."""
        found = town_of(town)
        people.grant(people.person(name), found, people.role_named(role), str(actor()))
        return Said({"name": name, "role": role, "town": found.slug}, f"{name} is {role} of town {found.slug}")

    def revoke(self, name: str, town: str | None, **_: Any) -> Any:
        """Take a role away."""
        found = town_of(town)
        people.revoke(people.person(name), found)
        return Said({"name": name, "town": found.slug}, f"{name} has no role in town {found.slug} any more")

    def notify(self, name: str, town: str | None, on: str | None, mail: str | None, **_: Any) -> Any:
        """Choose notices."""
        user = people.person(name)
        if mail is not None:
            people.set_mail(user, mail)
        if on is not None:
            people.set_notices(user, town_of(town), [part.strip() for part in on.split(",") if part.strip()])
        return Said({"name": name, "mail": user.email}, f"{name}, {user.email or 'without a mail address'}")

    def password(self, name: str, **_: Any) -> Any:
        """Set a new password; every session of the person ends."""
        people.set_password(people.person(name), _password(name))
        return Said({"name": name}, f"{name} has a new password")

    def unlock(self, name: str | None, all: bool, **_: Any) -> Any:
        """Forget wrong passwords."""
        if (name is None) is not all:
            raise Invalid("give the NAME of a person, or --all", field="name")
        user = None if name is None else people.person(name).get_username()
        count = lockout.unlock(user)
        told = "there was nothing to forget"
        if count:
            told = f"{count} wrong passwords are forgotten"
        return Said({"name": user, "forgotten": count}, f"{user or 'everybody'} may log in: {told}")

    def list(self, **_: Any) -> Any:
        """All people, and who is locked out for now."""
        roles: dict[int, list[str]] = {}
        for one in Membership.objects.select_related("town").order_by("town__slug"):
            roles.setdefault(one.user_id, []).append(f"{one.role} of {one.town.slug}")
        users = list(get_user_model().objects.order_by("username"))
        locked = lockout.locked(user.get_username() for user in users)
        rows: Any = [
            {
                "name": user.get_username(),
                "roles": "superuser" if user.is_superuser else ", ".join(roles.get(user.pk, [])),
                "active": user.is_active,
            }
            for user in users
        ]
        for row in rows:
            if end := locked.get(row["name"]):
                row["locked_until"] = end.isoformat(timespec="seconds")
        columns = ["name", "roles", "active"]
        if locked:
            columns.append("locked_until")
        return Said(rows, table([{"locked_until": "", **row} for row in rows], columns, "nobody yet: person create"))


def _town(slug: str | None) -> Town:
    """The named town; on an empty installation the default one is made."""
    if slug in (None, "main") and not Town.objects.exists():
        return ledger.create_town("main")
    return town_of(slug)


def _password(name: str) -> str:
    """Asked twice on a terminal; else the first line of stdin."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != first:
        raise Invalid("password: the two are not the same", field="password")
    return first
