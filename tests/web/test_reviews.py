"""The review page over real git repositories: what it shows, what it records, and for which head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from agents.models import Mail
from beads import inbox, ledger, plans
from beads.actors import Actor
from beads.models import Bead, Fact
from refinery.decisions import reviews
from refinery.executor import head_poll
from refinery.git import ranges
from refinery.models import ReviewComment
from refinery.store import entries, verdicts
from tests.db.conftest import Place
from tests.web.ground import Ground, page, person, post


@pytest.fixture
def ground(db: None, tmp_path: Path, settings: Any) -> Ground:
    """Fresh ground."""
    settings.GASTOWN_HOME = str(tmp_path)
    return Ground(tmp_path)


# -- what it shows --


def test_the_diff_is_the_candidate_against_its_base(ground: Ground, viewer: Client) -> None:
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    ground.push("main", {"other.txt": "meanwhile\n"}, "main")
    entry = ground.submit()
    text = page(viewer, entry)
    assert "1 file " in text
    assert "other.txt" not in text
    assert '<span class="k">return</span> <b><span class="mi">2</span></b>' in text
    assert "style=" not in text
    split = page(viewer, entry, "?view=split")
    assert 'class="rv-code split"' in split
    assert 'class="rv-code split"' in page(viewer, entry)  # it is remembered


def test_renames_modes_and_binaries_are_told(ground: Ground, viewer: Client) -> None:
    ground.git("checkout", "-q", "-B", "feature", "main")
    ground.git("mv", "keep.txt", "moved.txt")
    (ground.work / "a.py").chmod(0o755)
    ground.push("feature", {"pic.bin": b"\0\1\2" * 100}, None)
    text = page(viewer, ground.submit())
    assert "renamed from keep.txt, 100 % the same" in text
    assert "mode 100644 → 100755" in text
    assert "binary: not shown" in text


def test_hostile_content_is_harmless_and_visible(ground: Ground, viewer: Client) -> None:
    hostile = "x = '<script>alert(1)</script>' # \u202e\u200b\x1b[31m\n" + "y" * 500_000
    ground.push("feature", {"<img src=x onerror=alert(1)>.py": hostile, "new\nline.txt": "x\n"})
    text = page(viewer, ground.submit())
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "⟨U+202E⟩" in text
    assert "⟨U+200B⟩" in text
    assert "new⟨U+000A⟩line.txt" in text
    assert "no newline at the end" in text
    assert len(text) < 100_000


def test_what_agents_and_git_say_is_tamed(ground: Ground, viewer: Client) -> None:
    ground.git("checkout", "-q", "-B", "feature", "main")
    ground.git("commit", "-q", "--allow-empty", "-m", "\x1b[31mred\x1b[0m <i>\u202e\u200b")
    ground.push("feature", {"a.py": "x\n"}, None)
    entry = ground.submit()
    hostile = "\x1b[31m<script>alert(1)</script>\u202e"
    items = [{"file": "a\u202e.py", "line": 1, "problem": hostile}]
    verdicts.record(
        entry,
        verdicts.Review(head=entry.head_sha, decision="request_changes", by="agent", feedback=hostile, items=items),
    )
    first = ranges.commits(entry)[0]
    for query in ("", f"?commit={first.sha}"):
        text = page(viewer, entry, query).split('id="history"')[0]
        assert "red &lt;i&gt;⟨U+202E⟩⟨U+200B⟩" in text
        for raw in ("\x1b", "\u202e", "\u200b", "<script>alert"):
            assert raw not in text


def test_a_large_and_a_generated_file_are_collapsed_and_can_be_opened(ground: Ground, viewer: Client) -> None:
    files = {"big.txt": "".join(f"line {n}\n" for n in range(3000)), "uv.lock": "a\n" * 900, "z.py": "z = 1\n"}
    ground.push("feature", dict(files))
    entry = ground.submit()
    text = page(viewer, entry)
    assert "large file, 3000 lines" in text
    assert "generated file, 900 lines" in text
    assert "line 2999" not in text
    assert "line 2999" in page(viewer, entry, "?file=0")


def test_five_thousand_files_are_paged(ground: Ground, viewer: Client) -> None:
    ground.push("feature", {f"d{n % 50:02}/f{n:04}.txt": f"{n}\n" for n in range(5000)})
    entry = ground.submit()
    text = page(viewer, entry)
    assert "5000 files" in text
    assert text.count("data-file") == 100
    assert len(text) < 400_000
    last = page(viewer, entry, "?page=50")
    assert "d49/f4999.txt" in last
    assert page(viewer, entry, "?page=999999").count("data-file") == 100


def test_each_commit_can_be_read_on_its_own(ground: Ground, viewer: Client) -> None:
    one = ground.push("feature", {"one.txt": "first\n"})
    two = ground.push("feature", {"two.txt": "second\n"}, None)
    entry = ground.submit()
    text = page(viewer, entry)
    assert one[:12] in text
    assert two[:12] in text
    alone = page(viewer, entry, f"?commit={two}")
    assert "second" in alone
    assert "first" not in alone
    main = ground.git("rev-parse", "main")
    for query in (f"?commit={main}", "?commit=zzz", "?commit=" + "0" * 40, f"?since={main}", "?since=x"):
        answer = viewer.get(f"/reviews/{entry.pk}/{query}")
        assert (answer.status_code, b"Back to the towns" in answer.content) == (404, True)


@pytest.mark.parametrize("query", ["?page=x", "?file=99999", "?at=5.n1", "?at=0.n99999", "?view=none", "?page=-1"])
def test_an_address_that_makes_no_sense_shows_the_page(ground: Ground, query: str) -> None:
    ground.push("feature", {"a.py": "x\n"})
    assert "Title of feature" in page(person("rita"), ground.submit(), query)


def test_how_it_stands_is_told_without_the_diff(ground: Ground, viewer: Client) -> None:
    ground.push("feature", {"a.py": "x\n"})
    entry = ground.submit()

    def standing() -> str:
        answer = viewer.get(f"/reviews/{entry.pk}/", headers={"X-Gastown-Live": "1"})
        assert (answer.status_code, len(answer.content) < 3000) == (200, True)
        return str(answer.content.decode())

    first = standing()
    for part in ("standing", "acts", "judged"):  # each of them as the whole page has it
        assert f'id="{part}"' in first and f'id="{part}"' in page(viewer, entry)
    assert standing() == first
    post(person("rita"), entry, "comment", file="a.py", side="new", line=1, body="hm")
    assert standing() != first


# -- comments --


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


# -- approval --


def test_an_approval_is_of_the_head_that_was_seen(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    seen = entry.head_sha
    head = ground.push("feature", {"a.py": "def f():\n    return 2\n", "more.txt": "added later\n"})
    inbox.record(ground.place.town, "entry.head_seen", entry.pk, {"head": head})
    ground.settle()
    answer = post(rita, entry, "approve")
    assert answer.status_code == 409
    text = answer.content.decode()
    assert "The head moved" in text
    assert "added later" in text
    assert "return" not in text.split("What changed since")[1]
    assert not Fact.objects.filter(kind="entry.verdict").exists()
    entry.refresh_from_db()
    assert "added later" in page(rita, entry, f"?since={seen}")
    kept = rita.post(f"/reviews/{entry.pk}/request-changes/", {"head": seen, "body": "my long text"})
    assert (kept.status_code, b"my long text" in kept.content) == (409, True)


def test_a_push_that_nobody_told_of_is_noticed_at_approval_and_asks_again(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    head = ground.push("feature", {"a.py": "def f():\n    return 3\n"})
    answer = post(rita, entry, "approve")
    assert answer.status_code == 409
    ground.settle()
    entry.refresh_from_db()
    assert entry.head_sha == head
    assert not entry.verdicts.exists()
    assert "return" in page(rita, entry)
    assert post(rita, entry, "approve").status_code == 302
    ground.settle()
    assert entry.verdicts.get().head_sha == head


def test_a_push_while_it_waits_is_seen_and_asked_about(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    post(rita, entry, "approve")
    ground.settle()
    assert head_poll.look(ground.place.now) == 0
    head = ground.push("feature", {"a.py": "def f():\n    return 3\n"})
    assert head_poll.look(ground.place.now) == 1
    ground.settle()
    entry.refresh_from_db()
    assert entry.head_sha == head
    text = page(rita, entry)
    assert "waits for a person" in text
    assert "an older head: does not count" in text
    ground.place.later(hours=1)
    ground.settle()
    entry.refresh_from_db()
    assert entry.state == "active"
    ground.remote.rename(ground.remote.with_suffix(".away"))
    assert head_poll.look(ground.place.now) == 0  # unknown: nothing follows


def test_two_clicks_are_one_approval_and_it_lands_after_the_delay(ground: Ground) -> None:
    rita = person("rita")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    for _ in range(2):
        assert post(rita, entry, "approve").status_code == 302
    ground.settle()
    assert post(rita, entry, "approve").status_code == 302
    ground.settle()
    assert entry.verdicts.count() == 1
    assert "merges by itself" in page(rita, entry)
    ground.place.later(minutes=6)
    ground.settle()
    entry.refresh_from_db()
    assert entry.state == "merged"
    assert ground.git("rev-parse", "main", cwd=ground.remote) == entry.merge_sha
    assert "return" in page(rita, entry)  # a permalink
    assert post(rita, entry, "approve").status_code == 302  # a late second click
    assert post(rita, entry, "reject", reason="no").status_code == 409


def test_waiting_for_a_person_is_free(ground: Ground) -> None:
    ground.push("one", {"one.txt": "1\n"})
    ground.push("two", {"two.txt": "2\n"})
    one, two = ground.submit("one"), ground.submit("two")
    rita = person("rita")
    ground.place.later(days=30)
    ground.settle()
    one.refresh_from_db()
    assert (one.state, one.admitted_at) == ("active", None)
    assert post(rita, two, "merge").status_code == 302
    ground.settle()
    two.refresh_from_db()
    assert two.state == "merged"


def test_so_many_distinct_people_must_approve_this_head(tmp_path: Path, db: None, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    ground = Ground(tmp_path, pr={"required_approvals": 2, "auto_merge_delay": "1s"})
    rita, olaf = person("rita"), person("olaf")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    post(rita, entry, "merge")
    reviews.approve(entry, by=Actor("cli", "rita"))  # the same person by another door
    ground.settle()
    ground.place.later(hours=1)
    ground.settle()
    assert "<strong>1 of 2</strong>" in page(olaf, entry)
    post(olaf, entry, "approve")
    ground.settle()
    entry.refresh_from_db()
    assert entry.state == "merged"


def test_an_objection_stands_until_its_author_approves(tmp_path: Path, db: None, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path)
    ground = Ground(tmp_path)
    rita, olaf = person("rita"), person("olaf")
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    verdicts.record(
        entry, verdicts.Review(head=entry.head_sha, decision="request_changes", by="web:rita", feedback="no")
    )
    verdicts.record(entry, verdicts.Review(head=entry.head_sha, decision="approve", by="web:olaf"))
    assert "web:rita asked for changes" in page(olaf, entry)
    post(rita, entry, "approve")
    ground.settle()
    assert "merges by itself" in page(olaf, entry)


def test_the_author_may_not_approve(ground: Ground) -> None:
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit(by=Actor("web", "ann"))
    ann = person("ann")
    assert "your own change" in page(ann, entry)
    for verb in ("approve", "merge"):
        answer = post(ann, entry, verb)
        assert (answer.status_code, b"your own change" in answer.content) == (403, True)
    by_commit = person("annie", "Ann@Example.org")
    assert post(by_commit, entry, "approve").status_code == 403
    assert not Fact.objects.filter(kind="entry.verdict").exists()
    assert post(person("rita", "rita@example.org"), entry, "approve").status_code == 302


def test_who_wrote_it_cannot_be_read_so_nobody_known_by_mail_may_approve(place: Place) -> None:
    entry = place.entry()
    rita = person("rita", "rita@example.org")
    answer = rita.post(f"/reviews/{entry.pk}/approve/", {"head": entry.head_sha}, follow=True)
    assert "cannot be read" in str(next(iter(answer.context["messages"])))
    assert not Fact.objects.exists()


def test_a_viewer_may_not_act(ground: Ground, viewer: Client) -> None:
    ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    text = page(viewer, entry, "?at=0.n2")
    assert "<form" not in text.split("<main")[1]
    for verb in ("approve", "merge", "request-changes", "comment", "resolve", "reopen", "reject", "retry"):
        assert post(viewer, entry, verb).status_code == 403
    assert post(person("rita"), entry, "explode").status_code == 404


# -- a convoy's landing --


def test_a_landing_shows_each_beads_change_on_its_own(ground: Ground, viewer: Client) -> None:
    rows: list[dict[str, Any]] = [{"key": k, "title": f"Bead {k}", "after": []} for k in ("north", "south")]
    plan = plans.parse(rows, "plan", ground.rig, lambda slug: ground.rig)
    convoy = ledger.create_convoy(ground.rig, "Square", "review-then-land", plan, actor="test")
    branch = convoy.branches.get().name
    shas = [
        ground.push(branch, {"north.txt": "text of north\n"}),
        ground.push(branch, {"south.txt": "text of south\n"}, None),
    ]
    for bead, sha in zip(convoy.beads.order_by("plan_key"), shas, strict=True):
        ledger.move(bead, "open", "closed", actor="test", resolution="merged", merge_sha=sha)
    entry, _ = entries.submit(
        ground.rig,
        entries.NewEntry(
            branch=branch,
            head=shas[1],
            target="main",
            title="Land convoy",
            author="gastown",
            convoy=convoy,
            kind="landing",
        ),
    )
    ground.settle()
    text = page(viewer, entry)
    assert "Bead north" in text
    assert "text of north" in text
    assert "text of south" in text
    alone = page(viewer, entry, f"?commit={shas[1]}")
    assert "text of south" in alone
    assert "text of north" not in alone
