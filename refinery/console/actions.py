"""Every action of the console, by name: each carries out one verb, with who does it and why. There are no others."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from beads.consoles import door_action
from refinery.decisions import verbs


def _action(verb: verbs.Verb, offer: verbs.Offer) -> Any:
    return door_action(verb.name, offer.label, verb.run, warning=offer.warning, when=offer.when)


_OFFERED = [(verb, verb.offer) for verb in verbs.every() if verb.offer is not None and verb.offer.console]
ACTIONS: dict[str, Any] = {verb.name: _action(verb, offer) for verb, offer in _OFFERED}


def actions_of(subject: type[Model]) -> list[Any]:
    """The actions on one kind of row."""
    return [ACTIONS[verb.name] for verb, _ in _OFFERED if verb.subject is subject]
