"""PR strategy with the built-in host, over real agents: a convoy has one landing review, and waiting is free."""

from __future__ import annotations

import pytest

from agents.models import Mail
from beads.actors import Actor
from beads.models import Bead, Convoy
from refinery.decisions import reviews
from refinery.models import ReviewEntry
from tests.acceptance.conftest import WHO, Stage
from tests.web.ground import person


@pytest.mark.long
def test_a_convoy_has_one_landing_review_with_every_bead_readable(stage: Stage) -> None:
    stage.open(merge_strategy="pr")
    rita = person("rita")
    convoy = stage.convoy("Signs", {"one": ("echo 1 > one.txt", []), "two": ("echo 2 > two.txt", ["one"])})
    landing = stage.until(lambda: ReviewEntry.objects.filter(kind="landing").first())
    stage.await_phase(landing, "awaiting_human")
    assert ReviewEntry.objects.filter(kind="change", state="merged").count() == 2
    assert not ReviewEntry.objects.filter(verdicts__isnull=False).exists()
    text = rita.get(f"/reviews/{landing.pk}/").content.decode()
    for bead in convoy.beads.all():
        assert f"commit={bead.merge_sha}" in text
        alone = rita.get(f"/reviews/{landing.pk}/?commit={bead.merge_sha}").content.decode()
        assert f"{bead.plan_key}.txt" in alone.split('id="change"')[1]
        assert "1 file " in alone
    # another change goes by while it waits
    stage.commit("feature", {"f.txt": "f\n"})
    other = stage.submit("feature")
    stage.await_phase(other, "awaiting_human")
    reviews.approve(other, by=Actor("cli", "root"))
    stage.await_phase(other, "merged")
    assert "one.txt" not in stage.git("ls-tree", "--name-only", "main", cwd=stage.remote)
    landing.refresh_from_db()
    assert rita.post(f"/reviews/{landing.pk}/merge/", {"head": landing.head_sha}).status_code == 302
    stage.until(lambda: Convoy.objects.get(pk=convoy.pk).landed_sha)
    assert stage.file("two.txt") == "2"
    assert stage.file("f.txt") == "f"


def test_a_remark_becomes_rework_by_the_polecat_and_the_new_head_is_asked_about(stage: Stage) -> None:
    stage.open(merge_strategy="pr")
    rita = person("rita")
    bead = stage.sling("Write it", "echo 'answer = 41' > a.py\n---rework---\necho 'answer = 42' > a.py")
    entry = stage.until(lambda: ReviewEntry.objects.filter(source=bead).first())
    entry = stage.await_phase(entry, "awaiting_human")
    seen = entry.head_sha
    form = {"head": seen, "file": "a.py", "side": "new", "line": 1, "body": "42, surely"}
    assert rita.post(f"/reviews/{entry.pk}/comment/", form).status_code == 302
    assert rita.post(f"/reviews/{entry.pk}/request-changes/", {"head": seen}).status_code == 302
    stage.until(lambda: ReviewEntry.objects.get(pk=entry.pk).head_sha != seen)
    entry = stage.await_phase(entry, "awaiting_human")
    assert "a.py:1: 42, surely" in Mail.objects.get(kind="REWORK_REQUEST").body
    assert "a.py:1: 42, surely" in Bead.objects.get(purpose="rework").body
    stale = rita.post(f"/reviews/{entry.pk}/approve/", {"head": seen})
    assert (stale.status_code, b"The head moved" in stale.content, b"42" in stale.content) == (409, True, True)
    text = rita.get(f"/reviews/{entry.pk}/?since=review").content.decode()
    assert "42, surely" in text
    assert "outdated" in text
    reviews.approve(entry, by=WHO, head=entry.head_sha)
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert stage.file("a.py") == "answer = 42"
