"""Queries that are prepared once give what the querysets give that they are made from."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from beads import ledger
from beads.models import Bead, Town
from beads.prepared import Prepared


@pytest.fixture
def town(db: None) -> Town:
    town = ledger.create_town("main", {})
    rig = ledger.create_rig(town, "proj", "/nowhere.git", "main")
    for title in ("one", "two", "three"):
        ledger.create_bead(town, rig, ledger.Draft(title), actor="test")
    return town


def test_each_run_has_its_own_parameters(town: Town) -> None:
    of = Prepared(lambda town, title: Bead.objects.select_related("rig").filter(town=town, title=title))
    for title in ("two", "one", "none", "two"):
        with CaptureQueriesContext(
            connection,
        ) as asked:
            found = of(town.pk, title)
            assert [(b.title, b.rig.slug if b.rig else "") for b in found] == [(title, "proj")] * (title != "none")
        assert len(asked) == 1


def test_many_at_once_dates_and_columns(town: Town) -> None:
    since = Prepared(
        lambda at, keys: Bead.objects.filter(created_at__gt=at, pk__any=keys).order_by("title").values_list("title")
    )
    keys = [b.pk for b in Bead.objects.filter(title__in=["one", "three"])]
    now = timezone.now()
    assert since(now - dt.timedelta(hours=1), keys) == [("one",), ("three",)]
    assert since(now - dt.timedelta(hours=1), []) == since(now + dt.timedelta(hours=1), keys) == []
    assert since(now - dt.timedelta(hours=1), keys[:1]) != since(now - dt.timedelta(hours=1), keys[1:])


def test_a_parameter_that_is_not_in_the_query_is_found_out_at_once(town: Town) -> None:
    with pytest.raises(TypeError, match="not to be found"):
        Prepared(lambda town, _title: Bead.objects.filter(town=town))(town.pk, "two")
    with pytest.raises(TypeError, match="NoneType can be no parameter"):
        Prepared(lambda convoy: Bead.objects.filter(convoy=convoy))(None)
