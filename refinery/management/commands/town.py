"""`town create|list|config|webhook-secret`, and the verbs of towns"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from beads import config as configs
from beads import ledger, secrets
from beads import owner as reserved
from beads.command import GastownCommand, Said, actor, noted, table
from beads.errors import Refused
from beads.finders import town_of
from beads.models import Town
from refinery.decisions import towns
from refinery.files import read_config, read_text
from refinery.management.verbs import add_verbs


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
        self.sub(verbs, "list", self.list, "all towns")
        hook = self.sub(verbs, "webhook-secret", self.webhook_secret, "show what signs its webhooks: once, then never")
        hook.add_argument("slug")
        hook.add_argument("--renew", action="store_true", help="make a new one")
        add_verbs(self, verbs, "town")

    def create(self, slug: str, config: str | None, **_: Any) -> Any:
        """Make a town."""
        overrides = read_config(config)
        reserved.check(configs.Config(), configs.effective(overrides, {}), by_owner=True)
        town = ledger.create_town(slug, overrides)
        return noted({"id": town.pk, "slug": town.slug}, f"town {town.slug} is made", secrets.notes(town))

    def config(self, slug: str, config: str, reason: str, **_: Any) -> Any:
        """Replace a town's config."""
        made = towns.set_config(
            town_of(slug), by=actor(), text=read_text(config, "config"), reason=reason, by_owner=True
        )
        said = f"town {slug} has its new config, version {made.number}"
        return noted({"slug": slug, "version": made.number}, said, secrets.notes(town_of(slug)))

    def webhook_secret(self, slug: str, renew: bool, **_: Any) -> Any:
        """Show what signs the town's webhooks, once."""
        if settings.GASTOWN_WEBHOOK_SECRET:
            raise Refused("GASTOWN_WEBHOOK_SECRET is set on the server and signs the webhooks of all towns")
        key = secrets.show_webhook_key(town_of(slug), str(actor()), renew=renew)
        return Said({"slug": slug, "webhook_secret": key}, key)

    def list(self, **_: Any) -> Any:
        """All towns."""
        rows = [
            {"slug": t.slug, "rigs": t.rigs.count(), "paused": t.paused_reason if t.paused_at else ""}
            for t in Town.objects.order_by("slug")
        ]
        return Said(rows, table(rows, ["slug", "rigs", "paused"], "no towns: rig add makes one"))
