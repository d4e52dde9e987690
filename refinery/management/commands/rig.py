"""`rig add|list|config|check|host-key|set-default-branch`, and the verbs of rigs"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from agents import access, boxes, launches
from agents.runtime.gitcmd import redact
from beads import config as configs
from beads import secrets
from beads.command import ExitWith, GastownCommand, Said, actor, noted, table
from beads.errors import Unavailable
from beads.finders import rig_of, town_of
from beads.models import Rig
from refinery.decisions import gatechecks, towns
from refinery.files import read_config, read_text
from refinery.git import contents
from refinery.hosts import checks
from refinery.management.verbs import add_verbs


def sandboxed(rig: Rig) -> list[str]:
    """What the rig's config leaves outside the sandbox, what its presets and its host's credential lack."""
    found = checks.look(rig)
    reviewed = list(filter(None, [found.says]))
    hosted = [f"pull requests: {line}" for line in found.wrong]
    return [*boxes.notes(configs.usable(rig.town.config, rig.config)[0]), *launches.notes(rig), *reviewed, *hosted]


PATIENCE = 120.0  # seconds that `add` and `config` wait for the gates


def checked(rig: Rig) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """Put the rig's gates to the test on its default branch's own head: data, lines of text, warnings.

    A config is not refused for gates that do not pass: that may be mended in the repository.
    """
    asked = gatechecks.ask(rig, by=actor())
    if asked is None:
        return None, [], []
    if not gatechecks.runner_up():
        return (
            gatechecks.outcome(asked) | {"reason": gatechecks.NO_RUNNER},
            [],
            [f"{gatechecks.NO_RUNNER}: then they are"],
        )
    told = gatechecks.wait(asked, PATIENCE)
    lines = gatechecks.lines(told)
    if told["ok"] or told["ok"] is None:
        return (told, lines, [])
    return (told, lines[1:], lines[:1])


class Command(GastownCommand):
    help = "Rigs: git repositories under a town."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        add = self.sub(verbs, "add", self.add, "add a repository by its remote URL")
        add.add_argument("slug")
        add.add_argument("remote_url")
        add.add_argument("--town")
        add.add_argument("--default-branch")
        add.add_argument("--config", metavar="FILE.toml")
        config = self.sub(verbs, "config", self.config, "replace a rig's config")
        config.add_argument("slug")
        config.add_argument("--config", metavar="FILE.toml", required=True)
        config.add_argument("--reason", default="")
        check = self.sub(verbs, "check", self.gates, "do the gates pass on the default branch's own head? 0 all, 1 not")
        check.add_argument("slug", metavar="RIG")
        pinned = self.sub(verbs, "host-key", self.host_key, "the ssh host keys that are pinned for git.credential")
        pinned.add_argument("slug")
        pinned.add_argument("--renew", action="store_true", help="trust the key that the remote shows now")
        renamed = self.sub(verbs, "set-default-branch", self.set_default_branch, "let changes be for another branch")
        renamed.add_argument("slug")
        renamed.add_argument("branch")
        renamed.add_argument("--reason", default="")
        listing = self.sub(verbs, "list", self.list, "all rigs")
        listing.add_argument("--town")
        add_verbs(self, verbs, "rig")

    def add(
        self, slug: str, remote_url: str, town: str | None, default_branch: str | None, config: str | None, **_: Any
    ) -> Any:
        """Add a repository."""
        rig = towns.add_rig(town, slug, remote_url, default_branch, read_config(config), by_owner=True)
        pinned = access.host_keys(rig)
        has, notes = contents.look(rig)
        data = {"slug": rig.slug, "town": rig.town.slug, "default_branch": rig.default_branch, "host_keys": pinned}
        said = [f"rig {rig.slug} of town {rig.town.slug}, default branch {rig.default_branch}"]
        said += [f"the remote's host key from now on: {key}" for key in pinned]
        told, lines, warnings = checked(rig)
        data |= has | {"check": told}
        return noted(data, "\n".join([*said, *lines]), [*secrets.notes(rig), *sandboxed(rig), *notes], warnings)

    def config(self, slug: str, config: str, reason: str, **_: Any) -> Any:
        """Replace a rig's config."""
        made = towns.set_config(
            rig_of(slug), by=actor(), text=read_text(config, "config"), reason=reason, by_owner=True
        )
        rig = rig_of(slug)
        told, lines, warnings = checked(rig)
        said = "\n".join([f"rig {slug} has its new config, version {made.number}", *lines])
        data = {"slug": slug, "version": made.number, "check": told}
        return noted(data, said, [*secrets.notes(rig), *sandboxed(rig)], warnings)

    def gates(self, slug: str, **_: Any) -> Any:
        """Check the gates on the target itself, and wait for the answer."""
        rig = rig_of(slug)
        if configs.effective(rig.town.config, rig.config).refinery.gates and not gatechecks.runner_up():
            raise Unavailable(gatechecks.NO_RUNNER)
        asked = gatechecks.ask(rig, by=actor())
        if asked is None:
            return Said({"rig": slug, "ok": True, "gates": [], "reason": gatechecks.NO_GATES}, gatechecks.NO_GATES)
        told = gatechecks.wait(asked)
        said = Said(told, "\n".join(gatechecks.lines(told)))
        if told["ok"]:
            return said
        return ExitWith(said, 1)

    def host_key(self, slug: str, renew: bool, **_: Any) -> Any:
        """Show the pinned host keys, or pin what the remote shows now."""
        rig = rig_of(slug)
        if renew:
            towns.renew_host_key(rig, by=actor())
        keys = access.host_keys(rig)
        text = "\n".join(keys) or "none is pinned: git.credential is no ssh key, or the remote was not asked yet"
        return Said({"slug": slug, "host_keys": keys}, text)

    def set_default_branch(self, slug: str, branch: str, reason: str, **_: Any) -> Any:
        """Let a rig's changes be for another branch."""
        moved = towns.set_default_branch(rig_of(slug), by=actor(), branch=branch, reason=reason)
        said = f"changes of rig {slug} are for {branch} from now on; {moved} that were queued for another are, too"
        return Said({"slug": slug, "default_branch": branch, "moved": moved}, said)

    def list(self, town: str | None, **_: Any) -> Any:
        """All rigs."""
        found = Rig.objects.select_related("town").order_by("slug")
        if town:
            found = found.filter(town=town_of(town))
        rows = [
            {
                "slug": r.slug,
                "town": r.town.slug,
                "remote_url": redact(r.remote_url),
                "default_branch": r.default_branch,
                "parked": r.parked_at is not None,
            }
            for r in found
        ]
        return Said(rows, table(rows, ["slug", "town", "default_branch", "parked", "remote_url"], "no rigs: rig add"))
