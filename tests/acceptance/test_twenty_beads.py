"""Twenty beads by a real agent through the model door, of whose models some lie, crash and overspend.

What is to land does; what does not has a reason that a person sees; and the books of the door are the model's own.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from agents import launches, usage
from agents.models import Run, Usage
from agents.presets import PRESETS
from agents.runtime import sandbox
from beads import config as configs
from beads import ledger, secrets
from beads.models import Bead, Escalation
from gastown_site.rehearsal import PLAYS, ModelServer, Turn
from gastown_site.rehearsal.talk import Asked
from refinery.pages import boards
from tests.acceptance import modeldesk
from tests.acceptance.conftest import WHO, Stage

pytestmark = pytest.mark.agents
site, door_stage = modeldesk.site, modeldesk.door_stage
BAD = {3: "lies", 9: "crashes", 15: "overspends"}  # 15 % of them, for good
ODD = {6: "forgets"}  # and one that does better when it is told
REASONS = {"lies": "nothing", "crashes": "exit code 137|signal 9|killed", "overspends": "budget"}


def by_title(asked: Asked) -> Turn:
    """The play that the bead's title names."""
    found = re.search(r"Task \d\d: (\S+)", asked.prompt)
    return PLAYS[found[1] if found else "work"](asked)


@pytest.fixture
def model(tmp_path: Path, settings: Any) -> Any:
    with ModelServer(by_title, name="scripted") as served:
        owner = tmp_path / "owner.toml"
        owner.write_text(f'[allow]\nnetworks = ["127.0.0.1:{served.port}"]\n')
        settings.GASTOWN_OWNER_CONFIG = str(owner)
        yield served


def test_seventeen_of_twenty_land_and_the_books_agree(
    model: ModelServer, door_stage: Stage, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    if launches.found(configs.Config(), PRESETS["claude"]) is None or sandbox.available() == sandbox.UNSANDBOXED:
        pytest.skip("claude is not installed, or there is no sandbox: make agents, gastown doctor")
    stage = door_stage
    stage.open(agents=False)
    secrets.set_secret(stage.town, "ANTHROPIC_API_KEY", "sk-1", str(WHO))
    told = {
        "agents": {"polecat": {"preset": "claude", "model": "sonnet", "network": "none"}},
        "providers": {"anthropic": {"base_url": model.url}},
        "prices": {"scripted": {"input": 3.0, "cached": 0.3, "output": 15.0}},
        "budget": {"bead": "1 USD"},
        "dispatch": {"max_attempts": 2, "max_polecats": 4},
    }
    ledger.set_config(stage.rig, configs.validate(told))
    stage.rig.refresh_from_db()
    began = time.monotonic()
    plays = [BAD.get(n) or ODD.get(n) or "work" for n in range(1, 21)]
    beads = [stage.sling(f"Task {n:02}: {play}", "Write a file of your own.") for n, play in enumerate(plays, 1)]

    stage.until(lambda: _quiet(beads), 900)
    seconds = time.monotonic() - began
    found = {bead.title: Bead.objects.get(pk=bead.pk) for bead in beads}
    landed = [bead for bead in found.values() if bead.resolution == "merged"]
    named = stage.git("ls-tree", "-r", "--name-only", "main", cwd=stage.remote).splitlines()
    assert len(landed) >= 17 and {Path(name).stem for name in named if name.startswith("work/")} == _keys(landed)

    client.force_login(User.objects.create_superuser("root"))
    page = " ".join(client.get("/towns/main/").content.decode().split())
    board = boards.Board(stage.town)
    for title, bead in found.items():
        if bead not in landed:
            why = f"{bead.reason} {board.bead(bead)}"
            assert re.search(REASONS[title.split()[-1]], why, re.I), f"{title}: {why}"
            assert title in page, f"{title} is not on the town's page"

    charged = [one.tokens for one in model.books if one.status == 200]
    booked = usage.total(Usage.objects.filter(town=stage.town))
    assert (booked.calls, booked.uncounted) == (len(charged), 0)
    assert (booked.input, booked.cached, booked.output) == (
        sum(t.fresh for t in charged), sum(t.cached for t in charged), sum(t.output for t in charged),
    )  # fmt: skip
    assert len({one.key for one in model.books}) == 1 and booked.unpriced == 0
    with capsys.disabled():
        runs = Run.objects.filter(kind="polecat").count()
        print(f"\n{len(landed)} of 20 landed in {seconds:.0f} s: {runs} runs of claude, {booked.calls} calls, "
              f"{booked.tokens} tokens, {booked.cost:.2f} USD")  # fmt: skip


def _keys(beads: list[Bead]) -> set[str]:
    return {bead.pk for bead in beads}


def _quiet(beads: list[Bead]) -> bool:
    """Every bead has ended, or waits for a person's word on its budget; and no run is left."""
    capped = set(Escalation.objects.filter(key__startswith="budget:bead:").values_list("about", flat=True))
    live = Bead.objects.filter(pk__in=_keys(beads)).exclude(status__in=("closed", "failed")).exclude(pk__in=capped)
    return not live.exists() and not Run.objects.exclude(state="ended").exists()
