"""The review page over real git repositories: remarks on lines, and requests for changes."""

from __future__ import annotations

import pytest

from agents.models import Mail
from beads.models import Bead, Fact
from refinery.models import ReviewComment
from tests.web.ground import Ground, page, person, post


def test_a_comment_on_a_line_is_carried_to_the_rework_mail_and_bead(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    assert "?at=0.n2#at" in page(rita, entry)
    form = page(rita, entry, "?at=0.n2")
    assert 'name="line" value="2"' in form
    for _ in range(2):  # a double click
        assert post(rita, entry, "comment", file="a.py", side="new", line=2, body="name <b>it</b>").status_code == 302
    comment = ReviewComment.objects.get()
    assert (comment.quote, comment.by, comment.head_sha) == ("    return 2", "web:rita", entry.head_sha)
    text = page(rita, entry)
    assert "name &lt;b&gt;it&lt;/b&gt;" in text
    assert text.index('class="rv-code') < text.index(f'id="c{comment.pk}"')
    assert post(rita, entry, "request-changes").status_code == 302
    ground.settle()
    assert entry.verdicts.get().items == [
        {"file": "a.py", "line": 2, "problem": "name <b>it</b>", "by": "web:rita", "quote": "    return 2"}
    ]
    assert "a.py:2: name <b>it</b>" in Mail.objects.get(kind="REWORK_REQUEST").body
    rework = Bead.objects.get(purpose="rework")
    assert rework.context["rework"]["items"][0]["file"] == "a.py"


def test_changes_are_requested_once_however_late_the_second_click(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    for _ in range(2):
        post(rita, entry, "request-changes", body="not yet", items="a.py:1: name it")
    ground.settle()
    post(rita, entry, "request-changes", body="not yet", items="a.py:1: name it")
    ground.settle()
    assert entry.verdicts.count() == 1
    assert Bead.objects.filter(purpose="rework").count() == 1


def test_a_resolved_comment_is_not_sent_and_can_be_opened_again(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    post(rita, entry, "comment", file="a.py", side="old", line=2, body="why not?")
    comment = ReviewComment.objects.get()
    for _ in range(2):
        assert post(rita, entry, "resolve", comment=comment.pk).status_code == 302
    comment.refresh_from_db()
    assert (comment.resolved, comment.resolved_by) == (True, "web:rita")
    assert entry.bead.events.filter(kind="comment_resolved").count() == 1
    assert post(rita, entry, "request-changes").status_code == 302
    assert not Fact.objects.filter(kind="entry.verdict").exists()  # nothing was said
    post(rita, entry, "reopen", comment=comment.pk)
    post(rita, entry, "request-changes", body="see below")
    ground.settle()
    (item,) = entry.verdicts.get().items
    assert item["problem"] == "on the removed line `    return 1`: why not?"
    assert post(rita, entry, "resolve", comment=999999).status_code == 404


def test_a_comment_in_a_collapsed_file_is_not_lost(ground: Ground) -> None:
    rita = person("rita")
    files = {"big.txt": "".join(f"line {n}\n" for n in range(3000)), "uv.lock": "a = 1\n"}
    ground.push("feature", dict(files))
    entry = ground.submit()
    assert 'name="line" value="2500"' in page(rita, entry, "?at=0.n2500")
    for file, line in (("big.txt", 2500), ("uv.lock", 1)):
        post(rita, entry, "comment", file=file, side="new", line=line, body=f"about {file}")
    text = page(rita, entry)
    assert "large file, 3000 lines" in text
    for comment in ReviewComment.objects.all():
        assert text.count(f'id="c{comment.pk}"') == 1
        assert f'href="?#c{comment.pk}"' in text or f'href="#c{comment.pk}"' in text
    assert '<details class="rv-closed" open>' in text
    alone = page(rita, entry, "?file=0")
    assert alone.index("line 2499") < alone.rindex("about big.txt")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"file": "none.py"}, "file"),
        ({"line": "99"}, "line"),
        ({"line": "x"}, "line"),
        ({"side": "left"}, "side"),
        ({"body": " "}, "body"),
        ({"body": "a\x00b"}, "body"),
        ({"body": "x" * 20_000}, "body"),
    ],
)
def test_a_comment_that_fits_nowhere_is_refused_by_name(ground: Ground, form: dict[str, str], said: str) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    given = {"file": "a.py", "side": "new", "line": "2", "body": "hm", **form}
    answer = rita.post(f"/reviews/{entry.pk}/comment/", {"head": entry.head_sha, **given}, follow=True)
    assert [said in str(m) for m in answer.context["messages"]] == [True]
    assert not ReviewComment.objects.exists()


def test_comments_on_an_older_head_are_outdated(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    post(rita, entry, "comment", file="a.py", side="new", line=2, body="rather three")
    ground.push("feature", {"a.py": "def f():\n    return 3\n"})
    newer = ground.submit()  # supersedes
    text = page(rita, newer)
    assert "rather three" in text
    assert "outdated" in text
    assert "return 2" in text  # its line is quoted
    assert post(rita, newer, "request-changes").status_code == 302
    assert not Fact.objects.filter(kind="entry.verdict").exists()
