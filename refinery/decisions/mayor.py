"""What people ask of the mayor, and answer. A request is a bead of type `message`: work for one agent, and none that
lands. The tick takes requests up in order, one at a time in a town."""

from __future__ import annotations

from typing import Annotated

from django.db import transaction

from beads import config as configs
from beads import inbox, ledger
from beads.actors import Actor
from beads.errors import Conflict, Invalid
from beads.finders import rig_of
from beads.ledger import check_text
from beads.lifecycle import LIVE, BeadType
from beads.models import Bead, Rig, Town
from refinery.core.rules.mayor import no_mayor
from refinery.core.telling import short
from refinery.decisions.verbs import Hint, Offer, Page, Shell, verb
from refinery.store.requests import open_question

LONGEST = 64 * 1024  # characters of a request or an answer
MOST = 20  # live requests in a town


def home_of(town: Town, slug: str | None) -> Rig:
    """The rig whose repository the mayor is shown: the one named, else the town's only one. Raises NotFound, or Invalid
    that names the rigs."""
    if slug:
        rig = rig_of(slug)
        if rig.town_id != town.pk:
            raise Invalid(f"rig {slug} belongs to town {rig.town.slug}, not to {town.slug}", field="rig")
        return rig
    rigs = list(Rig.objects.select_related("town").filter(town=town).order_by("slug"))
    if len(rigs) != 1:
        names = f"say which one it is about: {', '.join(r.slug for r in rigs)}" if rigs else "gastown rig add makes one"
        raise Invalid(f"town {town.slug} has {len(rigs)} rigs: {names}", field="rig")
    return rigs[0]


def ask(rig: Rig, *, by: Actor, text: str, once: str = "") -> Bead:
    """Ask the town's mayor for a plan, or why something is so; returns the request.

    `once`: what a form was given when it was drawn: sent twice, it is one request. Raises Invalid for an empty text,
    Conflict when nobody is configured who could plan, or when too many requests wait.
    """
    text = check_text("text", text, LONGEST, required=True)
    town = rig.town
    if configs.usable(town.config, rig.config)[0].agents.mayor is None:
        raise Conflict(no_mayor(rig.slug))
    with transaction.atomic():
        ledger.lock_town(town)
        key = f"ask:{town.pk}:{once[:100]}" if once else None
        if key and (known := inbox.payload_of(key)):
            return Bead.objects.get(pk=known["request"])
        live = Bead.objects.filter(town=town, type=BeadType.MESSAGE, status__in=sorted(LIVE)).count()
        if live >= MOST:
            raise Conflict(f"{live} requests wait for the mayor of {town.slug}: answer or cancel some first")
        title = short(text.splitlines()[0], 200)
        draft = ledger.Draft(title, text, type=BeadType.MESSAGE)
        request = ledger.create_bead(town, rig, draft, actor=str(by))
        inbox.record(town, "mayor.request", request.pk, {"request": request.pk}, actor=by, dedupe_key=key)
    return request


def _is_asked(bead: Bead) -> bool:
    return bead.type == BeadType.MESSAGE and open_question(bead) is not None


@verb(
    Bead,
    "answer",
    offer=Offer("Answer the mayor", when=_is_asked, console=False, page=True),
    shell=Shell("answer what the mayor asks about a request", "{id} is answered: the mayor goes on"),
    page=Page(done="The mayor goes on with your answer.", again="It had this answer before."),
)
def answer(bead: Bead, *, by: Actor, text: Annotated[str, Hint(longest=LONGEST, lines=4, positional=True)]) -> bool:
    """Answer what the mayor asks; it is started again with that. False when this question was answered before."""
    if bead.type != BeadType.MESSAGE:
        raise Conflict(f"{bead.pk} is a {bead.type}: only a request to the mayor is answered so")
    question = open_question(bead)
    if question is None:
        raise Conflict(f"the mayor asks nothing about {bead.pk}")
    key = f"answer:{question.pk}"
    return inbox.record(bead.town, "mayor.answer", bead.pk, {"text": text}, actor=by, dedupe_key=key)
