"""`rig add|list|park|unpark|config`"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from agents.runtime.gitcmd import redact
from beads.command import GastownCommand, Said, actor, rig_of, table, town_of
from beads.models import Rig
from refinery import controls, doors
from refinery.files import read_config, read_text
from refinery.git import contents


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
        listing = self.sub(verbs, "list", self.list, "all rigs")
        listing.add_argument("--town")
        self.sub(verbs, "park", self.park, "stop dispatching in a rig").add_argument("slug")
        self.sub(verbs, "unpark", self.unpark, "dispatch again").add_argument("slug")

    def add(
        self, slug: str, remote_url: str, town: str | None, default_branch: str | None, config: str | None, **_: Any
    ) -> Any:
        """Add a repository."""
        rig = doors.add_rig(town, slug, remote_url, default_branch, read_config(config))
        has, notes = contents.look(rig)
        data = {"slug": rig.slug, "town": rig.town.slug, "default_branch": rig.default_branch}
        lines = [f"rig {rig.slug} of town {rig.town.slug}, default branch {rig.default_branch}", *notes]
        return Said(data | has | {"notes": notes}, "\n".join(lines))

    def config(self, slug: str, config: str, reason: str, **_: Any) -> Any:
        """Replace a rig's config."""
        made = controls.set_config(rig_of(slug), read_text(config, "config"), actor(), reason)
        return Said({"slug": slug, "version": made.number}, f"rig {slug} has its new config, version {made.number}")

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

    def park(self, slug: str, **_: Any) -> Any:
        """Stop dispatching in a rig."""
        doors.park(rig_of(slug), actor())
        return Said({"slug": slug, "parked": True}, f"rig {slug} is parked")

    def unpark(self, slug: str, **_: Any) -> Any:
        """Dispatch again."""
        doors.unpark(rig_of(slug), actor())
        return Said({"slug": slug, "parked": False}, f"rig {slug} is back")
