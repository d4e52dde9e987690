"""A batch while what it is made of changes: who falls out, falls out once."""

from __future__ import annotations

from typing import Any

from beads import inbox
from refinery.models import Candidate, ReviewEntry
from refinery.store import entries
from tests.db.conftest import SHA, Place


def answer(place: Place, entry: ReviewEntry, result: str, on: Candidate | None, **more: Any) -> None:
    """The answer to its present build, which no tick has taken in yet."""
    entry.refresh_from_db()
    told = {"build_no": entry.build_no, "result": result, "head": entry.head_sha, "base": on.sha if on else SHA["b"]}
    inbox.record(place.town, "candidate.built", entry.pk, told | {"on": on.pk if on else None} | more)


def built(place: Place, entry: ReviewEntry, on: Candidate | None) -> Candidate:
    """Its build has succeeded."""
    entry.refresh_from_db()
    mark = f"{entry.branch}{entry.build_no}".encode().hex().ljust(40, "0")
    answer(place, entry, "built", on, sha=mark, tree=mark)
    place.tick()
    return Candidate.objects.get(sha=mark)


def test_a_member_that_conflicts_falls_out_though_what_it_stood_on_is_built_anew_in_the_same_moment(db: None) -> None:
    place = Place(batch={"max": 3, "size": 3})
    a, b, c = (place.entry(name, SHA[name]) for name in "abc")
    place.tick()
    first = built(place, a, None)
    second = built(place, b, first)
    entries.rebuild(b.pk, ReviewEntry.objects.get(pk=b.pk).build_no, counts=False)  # whatever for
    answer(place, c, "conflict", second, files=["signs.txt"])
    built(place, b, first)
    for entry in (a, b, c):
        entry.refresh_from_db()
    assert a.batch == b.batch != c.batch
    assert (c.admitted_at is not None, (c.slot or 0) > (b.slot or 0)) == (True, True)
