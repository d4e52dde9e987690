"""What sessions, questions, stops and hints promise."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

UNIT, STEERING, STORY = "tests/unit/test_sessions.py", "tests/db/test_steering.py", "tests/acceptance/test_sessions.py"

MUTATIONS = (
    Mutation(
        "an agent's checkout is at a path of its run",
        "agents/runtime/box.py",
        "                return TREE + path.removeprefix(root)\n",
        "                return path\n",
        f"{STORY} -k a_retry_goes_on",
    ),
    Mutation(
        "a session is copied by a link",
        "agents/runtime/sessions.py",
        "_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW |",
        "_NO_LINK = os.O_RDONLY |",
        f"{UNIT} -k reached_by_a_link",
    ),
    Mutation(
        "a session may have as many files as it likes",
        "agents/runtime/sessions.py",
        "        if self.entries < 0:\n",
        "        if self.entries < -200_000:\n",
        f"{UNIT} -k too_much",
    ),
    Mutation(
        "a bead's sessions go with another's",
        "agents/runtime/sessions.py",
        '    if subject and "/" not in subject and subject not in (".", ".."):\n',
        "    if True:\n",
        f"{UNIT} -k own_folder",
    ),
    Mutation(
        "a refinery's review goes on with its triage",
        "agents/sessions.py",
        '        return f"{kind}-{purpose}"\n',
        "        return str(kind)\n",
        "tests/db/test_sessions.py -k parts",
    ),
    Mutation(
        "a session goes on with another model",
        "agents/sessions.py",
        "    if _step(latest[0]) != step:\n",
        "    if False:\n",
        "tests/db/test_sessions.py -k another_model",
    ),
    Mutation(
        "whatever a run has named becomes an argument",
        "agents/sessions.py",
        "if _step(one) == step and _NAME.fullmatch(one.session)",
        "if _step(one) == step and one.session",
        "tests/db/test_sessions.py -k no_name",
    ),
    Mutation(
        "a session that fails is gone on with for ever",
        "agents/sessions.py",
        "        if one.resumed and one.outcome == RunOutcome.FAILED:\n",
        "        if False:\n",
        "tests/db/test_sessions.py -k fails_going_on",
    ),
    Mutation(
        "what a session has used is booked for each of its runs",
        "agents/api/views.py",
        "adds_up = preset is not None and preset.adds_up and same",
        "adds_up = False",
        "tests/web/test_transcript.py -k all_of_its_session",
    ),
    Mutation(
        "a session that is lost costs an attempt",
        "agents/runtime/steps.py",
        "            if is_lost(step, result) and not self.orders.stopped():\n",
        "            if False:\n",
        f"{STORY} -k is_lost",
    ),
    Mutation(
        "who asks and exits has failed",
        "refinery/core/questions.py",
        "    if asked.open:\n        return f",
        "    if False:\n        return f",
        f"{STEERING} -k who_asks_and_exits",
    ),
    Mutation(
        "nothing waits for an answer",
        "refinery/core/rules/beads.py",
        "    if asked := waits_for_answer(world.asked.get(bead.id), bead.runs):\n",
        "    if asked := '':\n",
        f"{STEERING} -k who_asks_and_exits",
    ),
    Mutation(
        "what a person has stopped starts by itself",
        "refinery/core/rules/beads.py",
        '    if bead.hold:\n        return HELD, f"',
        '    if False:\n        return HELD, f"',
        f"{STEERING} -k stop_and_save",
    ),
    Mutation(
        "who was done when a person said stop is reviewed",
        "refinery/core/rules/beads.py",
        "    if bead.hold and bead.status == BeadStatus.IN_PROGRESS:\n",
        "    if False:\n",
        f"{STEERING} -k was_done_when",
    ),
    Mutation(
        "a hint waits until the run has ended by itself",
        "refinery/facts/beads.py",
        '    _stop(bead, f"stopped by {it.actor}, to go on with a hint", it.now)\n',
        "",
        f"{STEERING} -k a_hint_stops",
    ),
)
