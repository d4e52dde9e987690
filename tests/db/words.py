"""What people, reviewers and authors do in the tests of their words."""

from __future__ import annotations

from typing import Any

from agents import mail, prompts
from agents.api import tools as registry
from agents.models import Run
from beads.actors import Actor
from beads.models import Bead
from refinery.models import ReviewEntry
from tests.db.conftest import SHA, Place

RITA, OLAF = Actor("cli", "rita"), Actor("web", "olaf")


def now(entry: ReviewEntry) -> ReviewEntry:
    return ReviewEntry.objects.select_related("bead", "rig__town", "source").get(pk=entry.pk)


def prompt(run: Run) -> str:
    """What the run's agent reads when its prompt is written now."""
    letters = mail.for_run(run)
    name = run.agent.name if run.agent else ""
    data = [mail.data(m) for m in letters]
    mail.note_told(letters, run)
    reader = prompts.Reader(str(run.kind), name, run.bead_id, run.branch, run.target)
    return prompts.render(run.brief, reader, mail=data)


def call(place: Place, run: Run, tool: str, **arguments: Any) -> dict[str, Any]:
    return registry.call(tool, run, arguments, place.now)[1]


def hand_in(
    place: Place, head: str = SHA["a"], title: str = "Add a gate", body: str = "Write gate.sh.\nOne line."
) -> ReviewEntry:
    """A polecat has done a bead: its entry is in the queue."""
    bead = place.bead(title)
    Bead.objects.filter(pk=bead.pk).update(body=body)
    place.tick()
    run, _ = place.running(bead=bead)
    place.say(run, "run.done", summary="wrote it")
    place.exit(run, head=head, work="new")
    place.tick()
    return ReviewEntry.objects.get(source=bead, state="active")


def to_review(place: Place, entry: ReviewEntry, tree: str = SHA["c"]) -> Run:
    """Built, gated, and under review."""
    place.built(entry, tree=tree)
    if Run.objects.filter(kind="gates", state="queued").exists():
        place.gated(0)
    return place.running(kind="refinery")[0]


def review(place: Place, run: Run, **changes: Any) -> None:
    """What the refinery says: changes, or (none) its approval."""
    place.say(run, "run.request_changes" if changes else "run.done", **changes or {"summary": "fine"})
    place.exit(run)
    place.tick()


def reworking(place: Place) -> Run:
    """The run of the one open rework."""
    return place.running(purpose="rework")[0]


def reworked(place: Place, run: Run, answer: str, head: str = "") -> None:
    """Its author is done: with a new head, or with nothing but an answer."""
    place.say(run, "run.done", summary=answer)
    place.exit(run, head=head or run.start_sha, work="new" if head else "nothing")
    place.tick()


def held_at_the_limit(place: Place) -> ReviewEntry:
    """Reviewed twice, reworked once, and not right yet."""
    entry = hand_in(place)
    review(place, to_review(place, entry), feedback="no tests")
    reworked(place, reworking(place), "added some", SHA["d"])
    review(place, to_review(place, entry, SHA["e"]), feedback="still too few")
    assert now(entry).held == "rework_limit"
    return now(entry)
