"""Where each subject's sentence is said: `tick --explain`, its page, its command and its console page."""

from __future__ import annotations

import html
import json
import re
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.test import Client

from beads.models import Bead
from refinery.core.rules import Decision
from refinery.tick import reconciler
from tests.db.conftest import Place


def text(fragment: str) -> str:
    """HTML as it is read."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", fragment)).split())


def flat(sentence: str) -> str:
    """A sentence as a page can show it."""
    return " ".join(sentence.split())


class Reader:
    """Somebody who reads pages, commands and the console."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def page(self, path: str) -> str:
        """A page's HTML."""
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.content.decode()

    def lead(self, path: str, mark: str = 'id="lead"') -> str:
        """The paragraph of a page that says how its subject stands."""
        found = re.search(rf"<p[^>]*{mark}[^>]*>(.*?)</p>", self.page(path), re.DOTALL)
        assert found is not None, path
        return text(found[1])

    def console(self, model: str, key: str) -> list[str]:
        """What a change page of the console says, a line for each sentence."""
        found = re.search(r'<ol class="gt-why">(.*?)</ol>', self.page(f"/admin/{model}/{key}/change/"), re.DOTALL)
        assert found is not None, key
        return [text(line) for line in re.findall(r"<li>(.*?)</li>", found[1], re.DOTALL)]

    def command(self, *words: str) -> dict[str, Any]:
        """A command's data."""
        out = StringIO()
        call_command(*words, "--json", stdout=out)
        data: dict[str, Any] = json.loads(out.getvalue())["data"]
        return data


_SUBJECTS = {  # kind → page, where on it, command, its key there, console
    "bead": ("/beads/{}/", 'id="lead"', ("bead", "show"), "reason", "beads/bead"),
    "entry": ("/reviews/{}/", 'class="rv-why"', ("mq", "show"), "detail", "refinery/reviewentry"),
    "convoy": ("/convoys/{}/", 'id="lead"', ("convoy", "status"), "reason", "beads/convoy"),
    "run": ("/runs/{}/", 'id="lead"', ("runs", "show"), "reason", "agents/run"),
}


def said(place: Place) -> dict[str, Decision]:
    """What the plan says, by subject."""
    return {d.subject: d for d in reconciler.explain(place.town, place.now)}


def agree(place: Place, reader: Reader, *only: str) -> dict[str, Decision]:
    """Everybody says of each subject (or of these ones) what the plan says."""
    told = said(place)
    for subject in only or told:
        decision = told[subject]
        kind, _, key = subject.partition(" ")
        why = flat(decision.why)
        if kind in _SUBJECTS:
            path, mark, words, name, model = _SUBJECTS[kind]
            shown = reader.lead(path.format(key), mark)
            assert shown == why or (kind == "convoy" and shown.startswith(f"{why}. Lands")), subject
            assert flat(reader.command(*words, key)[name]) == why, subject
            assert reader.console(model, key)[0] == f"{subject}: {why} {decision.rule}", subject
        elif kind == "lane":
            name = key.replace(" ", "-")
            for path in ("/queue/?town=main", "/towns/main/"):
                lane = re.search(rf'<section id="lane-{name}">(.*?)</section>', reader.page(path), re.DOTALL)
                assert lane is not None and why in text(lane[1]), (path, subject)
            assert why in text(reader.page("/admin/")), subject
        elif kind not in ("forecast", "agent"):  # these two only the plan itself speaks of
            assert f"{why}." in text(reader.page("/towns/main/")), subject
            some = Bead.objects.filter(type="issue").first()
            if some is not None:
                assert f"{subject}: {why} {decision.rule}" in reader.console("beads/bead", some.pk), subject
    return told
