"""A person's verb is declared once: what the console, pages and a shell offer follows from that, and cannot differ."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

import pytest
from django.core.management import call_command, load_command_class

from beads.actors import Actor
from beads.errors import Conflict, Invalid, NotFound
from beads.models import Bead, Fact
from refinery.console.actions import ACTIONS
from refinery.decisions import verbs
from refinery.decisions.forms import form_of
from refinery.decisions.subjects import SUBJECTS
from refinery.models import ReviewEntry
from tests.db.conftest import Place

EVERY = {verb.name: verb for verb in verbs.every()}


def typed(name: str, **fields: str) -> dict[str, Any]:
    """What a verb's form makes of what somebody typed."""
    return form_of(EVERY[name])(fields).values()


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_verb_says_what_it_does_and_is_offered_somewhere(name: str) -> None:
    verb = EVERY[name]
    assert (verb.run.__doc__ or "").strip()
    assert verb.offer or verb.shell or verb.page
    assert set(form_of(verb).base_fields) == {field.name for field in verb.fields}
    assert (name in ACTIONS) is bool(verb.offer and verb.offer.console)


def test_every_verb_with_words_for_a_shell_is_a_subcommand_there() -> None:
    there: set[tuple[str, str]] = set()
    for name in {subject.command for subject in SUBJECTS.values()}:
        parser = ArgumentParser()
        command: Any = load_command_class("refinery", name)
        command.arguments(parser)
        (actions,) = [action for action in parser._actions if action.dest == "verb"]
        there |= {(name, word) for word in actions.choices or ()}
    for verb in EVERY.values():
        if verb.shell is not None:
            name = verb.shell.command or SUBJECTS[verb.subject].command
            assert (name, verb.shell.word or verb.word) in there


def test_a_form_names_the_field_that_is_wrong_in_one_clear_error() -> None:
    for name, field, text, said in (
        ("reject_entry", "reason", "  ", "reason is empty"),
        ("reject_entry", "reason", "x" * 4001, "reason is longer than 4000 characters"),
        ("cancel_bead", "reason", "a\x00b", "reason contains a NUL byte"),
        ("promote_entry", "priority", "first", "priority is not a number"),
        ("freeze_lane", "until", "soon", "until: 'soon' is not a time"),
        ("request_changes_entry", "items", "a.py: no line", "items: 'a.py: no line' is not file:line: what to do"),
    ):
        with pytest.raises(Invalid) as refused:
            typed(name, **{"reason": "r", field: text})
        assert said in refused.value.message
        assert refused.value.details["field"] == field


@pytest.mark.django_db
def test_a_bead_that_is_not_there_is_not_found_whoever_asks(place: Place) -> None:
    with pytest.raises(NotFound, match="no bead gt-none"):
        typed("block_bead", on="gt-none")


def test_what_was_left_out_is_left_to_the_defaults() -> None:
    assert typed("promote_entry", priority="") == {}
    assert typed("land_now_entry", reason="fire", skip_gates="on") == {"reason": "fire", "skip_gates": True}
    assert typed("land_now_entry", reason="fire") == {"reason": "fire"}


@pytest.mark.django_db
def test_a_shell_and_the_registry_say_the_same_of_one_verb(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    entry, bead = place.entry(), place.bead("Fence")
    call_command("mq", "promote", entry.pk, "--priority", "1", "--json")
    assert json.loads(capsys.readouterr().out) == {"ok": True, "data": {"id": entry.pk, "priority": 1}}
    call_command("mq", "freeze", "proj", "--reason", "release")
    assert capsys.readouterr().out == "lane proj main is frozen\n"
    call_command("mq", "thaw", "proj", "--json")
    assert json.loads(capsys.readouterr().out)["data"] == {"rig": "proj", "target": "main", "frozen": False}
    call_command("mq", "land-now", entry.pk, "--reason", "fire", "--skip-gates")
    assert f"without its gates, at exactly {entry.head_sha[:12]}" in capsys.readouterr().out
    call_command("bead", "block", place.bead("Gate").pk, "--on", bead.pk, "--json")
    assert json.loads(capsys.readouterr().out)["data"]["on"] == bead.pk
    with pytest.raises(SystemExit):
        call_command("mq", "reject", entry.pk, "--reason", " ")
    assert capsys.readouterr().err == "error: reason is empty\n"


@pytest.mark.django_db
def test_who_decides_is_stored_with_their_channel(place: Place) -> None:
    ann = Actor("web", "ann", mail="ann@example.org")
    bead = place.bead("Fence")
    EVERY["cancel_bead"].carry_out(Bead.objects.get(pk=bead.pk), ann, {"reason": "sold"})
    assert Fact.objects.get(kind="bead.cancel").actor == "web:ann"
    assert (str(Actor("", "Rust")), ann) == ("Rust", Actor("web", "ann"))


@pytest.mark.django_db
def test_a_verb_that_is_refused_records_nothing(place: Place) -> None:
    entry = place.entry()
    with pytest.raises(Conflict, match="not held"):
        EVERY["retry_entry"].carry_out(ReviewEntry.objects.get(pk=entry.pk), Actor("cli", "ann"), {})
    assert not Fact.objects.filter(kind="entry.retry").exists()
