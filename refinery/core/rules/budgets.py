"""Rules for budgets: people are warned at 80 % of a cap, and asked at its end, once for each. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from beads.budget import Cap, CapScope, money, tokens
from refinery.core.actions import Decision, Escalate
from refinery.core.rules.needs import settled
from refinery.core.world import World

PREFIX = "budget:"
SHOWN = 8  # of what it was spent on


def decide(world: World) -> Iterator[Decision]:
    """One decision for each cap that is near its end, and for days that are over."""
    today = set()
    for cap, account in world.budgets.every():
        if not cap.near:
            continue
        key = key_of(cap)
        today.add(key)
        rule = "budget-near"
        if cap.reached:
            rule = "budget-used-up"
        yield Decision(f"budget {cap.scope}:{cap.subject}", rule, str(cap), _told(world, cap, account, key))
    of_days = (f"{PREFIX}day:", f"{PREFIX}near:day:")
    for key in sorted(key for key in world.needs - today if key.startswith(of_days)):
        why = "the day is over, or there is more to spend"
        yield Decision(f"budget {key.removeprefix(PREFIX)}", "budget-day-over", why, settled(world, key, why))


def key_of(cap: Cap) -> str:
    """The need's key: a cap that was raised is another one."""
    which = f"{cap.scope}:{cap.subject}:{cap.limit.value.normalize():f}"
    if cap.reached:
        return f"{PREFIX}{which}"
    return f"{PREFIX}near:{which}"


def _told(world: World, cap: Cap, account: str, key: str) -> tuple[Escalate, ...]:
    if key in world.escalated:
        return ()
    about = {CapScope.DAY: None, CapScope.CONVOY: cap.subject}.get(cap.scope, account)
    parts = [f"- {what}: {money(spent.cost)}, {tokens(spent.tokens)}" for what, spent in cap.parts[:SHOWN]]
    lines = []
    if parts:
        lines = ["On what:", *parts]
    if not cap.reached:
        lines.append("At 100 % the next call of a model is refused, and what runs is stopped with its work kept.")
        return (Escalate(key, f"Budget nearly used up: {cap}"[:300], "\n".join(lines), "low", about),)
    ways = {  # to go on, and not to
        CapScope.DAY: (f"gastown town budget {world.town}", "Else it goes on tomorrow (UTC)."),
        CapScope.CONVOY: (
            f"gastown convoy budget {cap.subject}",
            f"To stop: gastown convoy close {cap.subject}",
        ),
    }
    of_bead = f"gastown bead budget {account}", f"To stop: gastown bead cancel {account}"
    way, end = ways.get(cap.scope, of_bead)
    lines += [
        "What has run under it is stopped, its work is kept, and nothing more is begun.",
        f'To go on with as much again: {way}; to set another: {way} --to "AMOUNT"',
        end,
    ]
    return (Escalate(key, f"Budget used up: {cap}"[:300], "\n".join(lines), "high", about),)
