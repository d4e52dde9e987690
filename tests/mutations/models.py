"""Safeguards of the model door, of what was used, and of caps."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

DOOR = "tests/acceptance/test_model_door.py"
PROXY = "tests/acceptance/test_model_proxy.py"
MODELS = "tests/db/test_models.py"
KEYS = "tests/db/test_model_keys.py"
APIS = "tests/unit/test_model_apis.py"
USAGE = "tests/db/test_usage.py"
BUDGETS = "tests/unit/test_budgets.py"

MUTATIONS = (
    Mutation(
        "the caller's token goes on to the provider",
        "agents/model_door/apis.py",
        """    (*_KEYS, "authorization", "cookie",""",
        """    (*_KEYS[1:], "cookie",""",
        APIS,
    ),
    Mutation(
        "a stream that was cut short counts as whole",
        "agents/model_door/meters.py",
        "uncounted=0 if known and self.ended else 1",
        "uncounted=0 if known else 1",
        APIS,
    ),
    Mutation(
        "a provider at a private address is asked",
        "agents/model_door/upstream.py",
        '    if not named and (why := refused_address(host, found, "networks")):',
        '    if not named and (why := refused_address(host, [], "networks")):',
        DOOR,
    ),
    Mutation(
        "a host that only a town names is left to the proxy",
        "agents/model_door/upstream.py",
        "    if not (may.named or may.own):",
        "    if may.named and may.own:",
        PROXY,
    ),
    Mutation(
        "a neighbour's address is asked of the proxy",
        "agents/model_door/upstream.py",
        "if not found or spared or is_near(host):",
        "if not found or spared:",
        PROXY,
    ),
    Mutation(
        "a secret of another name opens the door, and presets do not know it",
        "agents/keys.py",
        "    if named := _provider(config, api).secret:",
        "    if (named := _provider(config, api).secret) and not api.opened_by:",
        KEYS,
    ),
    Mutation(
        "a bead's own model does not win",
        "beads/config/agents.py",
        "        return own or self.models.get(",
        "        return self.models.get(",
        MODELS,
    ),
    Mutation(
        "a bead's model is its judge's, too",
        "refinery/tick/briefs.py",
        "    if purpose not in REFINERY:\n        own = work.model",
        "    if purpose:\n        own = work.model",
        MODELS,
    ),
    Mutation(
        "a model that the rig's agent cannot take is found out by its run",
        "refinery/decisions/work.py",
        "    launches.check_model(rig, draft.model)",
        "    launches.check_model(rig, '')",
        MODELS,
    ),
    Mutation(
        "a cap does not refuse the next call",
        "agents/model_door/desk.py",
        "if cap.reached and where.kind is not Kind.FREE:",
        "if cap.reached and where.kind is Kind.FREE:",
        DOOR,
    ),
    Mutation(
        "what an agent says is counted beside the door's books",
        "agents/usage.py",
        "| Q(channel=Channel.TOOL) & ~Exists(door) & ~Exists(stream)",
        "| Q(channel=Channel.TOOL)",
        USAGE,
    ),
    Mutation(
        "a late report lowers what was said before",
        "agents/usage.py",
        "is None or known < value}",
        "is None or known != value}",
        USAGE,
    ),
    Mutation(
        "a run that could not go on for its budget uses up an attempt",
        "refinery/core/rules/runs.py",
        "        excuse = over or ended_asking(",
        "        excuse = ended_asking(",
        BUDGETS,
    ),
    Mutation(
        "a person's word on a budget lets nothing go on",
        "refinery/core/budgets.py",
        "r.account == account and r.stopped and not r.released",
        "r.account == account and r.stopped",
        BUDGETS,
    ),
    Mutation(
        "a review is begun although nothing is left for it",
        "refinery/core/rules/lanestate.py",
        "        if cap := self._budgets.held(entry.account):",
        "        if (cap := self._budgets.held(entry.account)) and not cap.reached:",
        USAGE,
    ),
)
