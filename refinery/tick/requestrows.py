"""Rows → live requests as the rules see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from agents.lifecycle import RunKind
from beads.lifecycle import LIVE, BeadType
from beads.models import Bead, BeadEvent, Town
from beads.prepared import Prepared
from refinery.core.beadviews import RunView
from refinery.core.requestviews import Product, RequestView
from refinery.store.requests import ANSWERED, ASKED, REPLIED

_COLUMNS = ("pk", "status", "created_at", "rig_id", "title", "priority", "cancel_requested_at", "hold")
_LIVE = Prepared(
    lambda town: Bead.objects.filter(
        town=town, type=BeadType.MESSAGE, status__in=sorted(LIVE), rig__isnull=False
    ).values_list(*_COLUMNS, named=True)
)
_SAID = Prepared(
    lambda beads: (
        BeadEvent.objects.filter(bead__any=beads, kind__in=[ASKED, ANSWERED, REPLIED])
        .order_by("id")
        .values_list("bead_id", "kind", "reason", "data")
    )
)
_MADE = Prepared(
    lambda runs: (
        Bead.objects.filter(filed_by__any=runs, convoy=None, type__in=[BeadType.CONVOY, BeadType.ISSUE])
        .order_by("created_at", "id")
        .values_list("filed_by", "pk", "type")
    )
)


def of_town(town: Town, runs: Mapping[str, Sequence[RunView]]) -> tuple[RequestView, ...]:
    """The live requests of a town; one query where there are none. `runs`: by bead."""
    live = _LIVE(town.pk)
    if not live:
        return ()
    questions: dict[str, str] = {}
    asked, replied = set(), set()
    for bead, kind, text, data in _SAID([row.pk for row in live]):
        if kind == ANSWERED:
            questions.pop(bead, None)
        elif kind == ASKED:
            questions[bead] = text
            asked.add(data.get("run"))
        else:
            replied.add(data.get("run"))
    of_mayor = [run.id for row in live for run in runs.get(row.pk, ()) if run.kind == RunKind.MAYOR]
    made: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run, key, type_ in _MADE(of_mayor) if of_mayor else ():
        made[run, type_].append(key)
    return tuple(
        RequestView(
            id=row.pk,
            status=row.status,
            created_at=row.created_at,
            rig=row.rig_id or 0,
            title=row.title,
            priority=row.priority,
            cancel_requested=row.cancel_requested_at is not None,
            hold=row.hold,
            runs=tuple(runs.get(row.pk, ())),
            question=questions.get(row.pk, ""),
            products={
                run.id: Product(
                    convoys=tuple(made[run.id, BeadType.CONVOY]),
                    beads=tuple(made[run.id, BeadType.ISSUE]),
                    asked=run.id in asked,
                    replied=run.id in replied,
                )
                for run in runs.get(row.pk, ())
            },
        )
        for row in live
    )
