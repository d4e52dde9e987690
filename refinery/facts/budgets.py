"""What people say about budgets."""

from __future__ import annotations

from agents import usage
from beads import ledger
from beads.budget import CapScope, parse_amount
from beads.errors import Invalid
from beads.models import Bead
from refinery.core.rules import budgets as rules
from refinery.facts.payloads import BudgetTold
from refinery.facts.registry import Taken, fact


@fact("budget.set", says=BudgetTold)
def budget_set(it: Taken[BudgetTold]) -> None:
    """A cap is another one from now on; who was asked about the old one is asked no more."""
    said = it.said
    try:
        amount = parse_amount(said.amount)
    except ValueError as error:
        raise Invalid(f"amount: {error}", field="amount") from None
    if amount is None:
        raise Invalid("amount: it is empty", field="amount")
    usage.allow(it.town, usage.Said(said.scope, said.subject, amount, said.reason), by=it.actor, now=it.now)
    why = f"the cap is {amount} now, says {it.actor}"
    bead = Bead.objects.filter(pk=said.subject, town=it.town).first()
    subjects = [said.subject]
    if said.scope == CapScope.RUN and bead is not None:
        subjects = usage.runs_of(bead)
    for near in ("", "near:"):
        for subject in subjects:
            ledger.settle_keys(it.town, f"{rules.PREFIX}{near}{said.scope}:{subject}:", "gastown", it.now, why)
    if bead is not None:
        ledger.note(bead, "budget_set", it.actor, it.said.reason, scope=said.scope, amount=str(amount))
