"""`town create|pause|resume|list|config`"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from beads import ledger
from beads.command import GastownCommand, Said, actor, table, town_of
from beads.models import Town
from refinery import controls, doors
from refinery.files import read_config, read_text


class Command(GastownCommand):
    help = "Towns: tenants with their own rigs, agents and config."

    def arguments(self, parser: ArgumentParser) -> None:
        """Verbs."""
        verbs = self.subcommands(parser)
        create = self.sub(verbs, "create", self.create, "make a town")
        create.add_argument("slug")
        create.add_argument("--config", metavar="FILE.toml")
        config = self.sub(verbs, "config", self.config, "replace a town's config")
        config.add_argument("slug")
        config.add_argument("--config", metavar="FILE.toml", required=True)
        config.add_argument("--reason", default="")
        pause = self.sub(verbs, "pause", self.pause, "stop dispatching; live runs go on")
        pause.add_argument("slug")
        pause.add_argument("--reason", default="")
        resume = self.sub(verbs, "resume", self.resume, "dispatch again")
        resume.add_argument("slug")
        resume.add_argument("--reason", default="")
        self.sub(verbs, "list", self.list, "all towns")

    def create(self, slug: str, config: str | None, **_: Any) -> Any:
        """Make a town."""
        town = ledger.create_town(slug, read_config(config))
        return Said({"id": town.pk, "slug": town.slug}, f"town {town.slug} is made")

    def config(self, slug: str, config: str, reason: str, **_: Any) -> Any:
        """Replace a town's config."""
        made = controls.set_config(town_of(slug), read_text(config, "config"), actor(), reason)
        return Said({"slug": slug, "version": made.number}, f"town {slug} has its new config, version {made.number}")

    def pause(self, slug: str, reason: str, **_: Any) -> Any:
        """Stop dispatching."""
        doors.pause(town_of(slug), reason, actor())
        return Said({"slug": slug, "paused": True}, f"town {slug} is paused")

    def resume(self, slug: str, reason: str, **_: Any) -> Any:
        """Dispatch again."""
        doors.resume(town_of(slug), actor(), reason)
        return Said({"slug": slug, "paused": False}, f"town {slug} goes on")

    def list(self, **_: Any) -> Any:
        """All towns."""
        rows = [
            {"slug": t.slug, "rigs": t.rigs.count(), "paused": t.paused_reason if t.paused_at else ""}
            for t in Town.objects.order_by("slug")
        ]
        return Said(rows, table(rows, ["slug", "rigs", "paused"], "no towns: rig add makes one"))
