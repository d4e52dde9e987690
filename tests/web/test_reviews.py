"""The review page over real git repositories: what it shows."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from beads import ledger, plans
from refinery.git import ranges
from refinery.store import entries, verdicts
from tests.web.ground import Ground, page, person, post


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


def test_what_agents_and_git_say_is_sanitized(ground: Ground, viewer: Client) -> None:
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
        ledger.move(bead, "open", ledger.Transition("closed", resolution="merged", merge_sha=sha), actor="test")
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
