"""Which of a town's secrets opens an API of models for the server, and where that API is.

One definition for all who ask: the model door (may it pass a call on?), a preset's start (does it go by the door?), and
whoever says what is missing.
"""

from __future__ import annotations

from collections.abc import Collection

from agents.presets.base import Api
from beads.budget import ProviderConfig
from beads.config import Config


def wanted(config: Config, api: Api) -> tuple[str, ...]:
    """The names of secrets of which the first that a town has opens this API: what `[providers.…] secret` names, else
    the provider's own. Empty for an API that the door does not speak."""
    if not api.provider:
        return ()
    if named := _provider(config, api).secret:
        return (named,)
    return api.opened_by


def secret_of(config: Config, api: Api, have: Collection[str]) -> str:
    """The name of the secret that opens this API for a town that has these; empty: none does."""
    return next((name for name in wanted(config, api) if name in have), "")


def base_url(config: Config, api: Api) -> str:
    """Where this API is for the server, as its CLIs take it: by `[providers.…] base_url`, else the provider's own."""
    if not api.provider:
        return api.url
    return _provider(config, api).base_url.rstrip("/") or api.url


def _provider(config: Config, api: Api) -> ProviderConfig:
    found: ProviderConfig = getattr(config.providers, api.provider)
    return found
