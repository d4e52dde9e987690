"""The model door for real: the ASGI app on a socket, a scripted provider with its own books, an agent in its box."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agents import runs, usage
from agents.models import Run, Usage
from beads import config as configs
from beads import ledger, secrets
from beads.budget import Spent
from beads.models import Bead, Escalation
from refinery.decisions import budgets
from refinery.tick import reconciler
from tests.acceptance import modeldesk
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.modeldesk import COST, WAYS, Desk, config_for, name_place, until
from tests.acceptance.provider import CACHED, INPUT, KEY, OUTPUT, Provider
from tests.acceptance.test_runs import play

desk, provider, site, door_stage = modeldesk.desk, modeldesk.provider, modeldesk.site, modeldesk.door_stage


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_api_is_passed_on_with_the_real_key_and_what_it_used_is_booked(desk: Desk, way: str, stream: bool) -> None:
    key = {"messages": "x-api-key", "google": "x-goog-api-key"}.get(way, "authorization")
    status, headers, body = desk.ask(way, stream=stream, key=key)
    assert status == 200 and "set-cookie" not in headers
    assert (b"data: " in body) == stream
    if stream and way == "chat":  # we have asked for the usage, and the caller had not
        assert b'"choices": []' not in body and body.endswith(b"data: [DONE]\n\n")
    spent = desk.settled(1)
    books = desk.provider.books
    assert (spent.input, spent.cached, spent.output) == (INPUT, CACHED, OUTPUT) == (
        books.input, books.cached, books.output,
    )  # fmt: skip
    assert (spent.cost, spent.unpriced, spent.uncounted) == (COST, 0, 0)
    assert books.keys == [KEY]
    assert not [v for head in books.headers for v in head.values() if desk.token in v]
    assert desk.token not in books.paths[0]
    row = Usage.objects.get()
    assert (row.model, row.source, row.channel, row.bead_id) == ("good", "priced", "door", desk.bead.pk)


def test_a_stream_comes_as_it_is_made_and_who_hangs_up_ends_the_providers_work(desk: Desk) -> None:
    desk.provider.pause = 0.02
    answer = desk.opened("messages", "slow", stream=True)
    begun = time.monotonic()
    first = answer.readline()
    assert first == b"event: message_start\n" and time.monotonic() - begun < 2
    for _ in range(20):
        answer.readline()
    answer.close()
    until(lambda: desk.provider.books.hung_up == 1)
    spent = desk.settled(1)
    assert (spent.input, spent.cached, spent.uncounted) == (INPUT, CACHED, 1)  # as far as it was told; and said so


def test_many_at_once_are_booked_as_the_provider_has_them(desk: Desk) -> None:
    desk.provider.pause = 0.01

    def one(n: int) -> None:
        if n % 8 == 7:
            with desk.opened("chat", "slow", stream=True) as answer:
                answer.readline()
            return
        desk.ask(sorted(WAYS)[n % 4], stream=n % 3 == 0, scale=n + 1)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(48)))
    books = desk.provider.books
    until(lambda: books.hung_up == 6)
    spent = desk.settled(48)
    assert (spent.input, spent.cached, spent.output) == (books.input, books.cached, books.output)
    assert (spent.calls - spent.uncounted, spent.uncounted) == (books.calls, books.hung_up) == (42, 6)


def test_lists_of_models_and_counts_of_tokens_cost_nothing(desk: Desk) -> None:
    request = urllib.request.Request(
        f"{desk.site}/model/openai/v1/models", headers={"authorization": f"Bearer {desk.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["data"] == [{"id": "good"}]
    told = json.dumps({"model": "good", "messages": []}).encode()
    url = f"{desk.site}/model/anthropic/v1/messages/count_tokens"
    with urllib.request.urlopen(urllib.request.Request(url, told, {"x-api-key": desk.token})) as answer:
        assert json.load(answer) == {"input_tokens": INPUT}
    assert not Usage.objects.exists()


def test_a_server_that_refuses_to_tell_a_streams_usage_is_asked_without_and_nothing_is_made_up(desk: Desk) -> None:
    status, _, body = desk.ask("chat", "silent-usage", stream=True)
    assert status == 200 and body.endswith(b"data: [DONE]\n\n")
    assert desk.settled(1) == Spent(1, uncounted=1)


@pytest.mark.parametrize("status", [429, 500, 529])
def test_a_providers_error_comes_in_its_own_words(desk: Desk, status: int) -> None:
    code, told, headers = desk.refused("messages", f"status-{status}")
    assert code == status and told["error"]["message"] == f"scripted {status} for ***"
    assert headers.get("retry-after") == ("7" if status == 429 else None)
    assert not Usage.objects.exists() and not Escalation.objects.exists()


def needs(desk: Desk) -> list[str]:
    reconciler.settle(desk.town)
    return sorted(Escalation.objects.filter(key__startswith="model:").values_list("bead__title", flat=True))


def test_a_wrong_key_is_one_sentence_inside_and_one_need_outside(desk: Desk) -> None:
    secrets.set_secret(desk.town, "ANTHROPIC_API_KEY", "sk-wrong-key", "test")
    for _ in range(3):
        code, told, headers = desk.refused("messages")
        assert code == 401 and "gastown secret set ANTHROPIC_API_KEY" in told["error"]["message"]
        assert "sk-wrong" not in json.dumps(told) and headers["x-should-retry"] == "false"
    until(lambda: needs(desk) == ["Rig proj: the key for anthropic does not work"])


def test_no_key_at_all_is_said_as_well(desk: Desk) -> None:
    secrets.remove(desk.town, "OPENAI_API_KEY", "test")
    code, told, _ = desk.refused("chat")
    assert code == 401 and told["error"]["message"].startswith("Gastown: Town main has no key for openai")
    assert needs(desk) == ["Rig proj: the key for openai does not work"]


def test_an_unknown_model_is_the_providers_answer_and_a_need(desk: Desk) -> None:
    assert desk.refused("responses", "status-404")[0] == 404
    until(lambda: needs(desk) == ["Rig proj: the model status-404 for openai does not work"])


def test_no_redirect_is_followed(desk: Desk) -> None:
    code, told, _ = desk.refused("chat", "elsewhere")
    assert code == 502 and "asked elsewhere" in told["error"]["message"]
    assert len(desk.provider.books.keys) == 1


def test_a_provider_that_is_not_there(desk: Desk) -> None:
    desk.provider.close()
    code, told, headers = desk.refused("messages")
    assert code == 502 and "cannot be reached" in told["error"]["message"] and headers["retry-after"] == "5"
    until(lambda: needs(desk) == ["Rig proj: the address for anthropic does not work"])


def test_an_address_that_is_not_public_wants_the_owners_word(desk: Desk, settings: Any) -> None:
    settings.GASTOWN_OWNER_CONFIG = ""
    code, told, _ = desk.refused("messages")
    assert code == 403 and "plain http" in told["error"]["message"]
    ledger.set_config(desk.town, configs.validate({"providers": {"anthropic": {"base_url": "https://localhost:1"}}}))
    code, told, _ = desk.refused("messages")
    assert code == 403 and "no public address" in told["error"]["message"]
    assert desk.provider.books.keys == []


def test_only_a_live_runs_token_opens_it(desk: Desk) -> None:
    good = desk.token
    for token in ("", "nonsense", KEY):
        desk.token = token
        assert desk.refused("messages")[0] == 401
    request = urllib.request.Request(f"{desk.site}/model/openai/v1/files", headers={"authorization": "Bearer x"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)
    desk.token = good
    run = Run.objects.get()
    runs.record_exit(run.pk, {"exit_code": 0}, timezone.now())
    assert desk.refused("messages")[0] == 403
    reconciler.settle(desk.town)
    assert Run.objects.get().state == "ended"
    assert desk.refused("messages")[0] == 403
    assert desk.provider.books.keys == []


def test_a_body_is_bounded(desk: Desk) -> None:
    code, _, _ = desk.refused("messages", messages="x" * (32 << 20))
    assert code == 413
    assert desk.ask("messages", messages="x" * (5 << 20))[0] == 200


AGENT = """
import json, urllib.request
url, token = os.environ["GASTOWN_URL"], os.environ["GASTOWN_TOKEN"]
def ask(way, path, **told):
    request = urllib.request.Request(url + path, json.dumps(told).encode(), {"x-api-key": token})
    return urllib.request.urlopen(request, timeout=30)
ask("m", "/model/anthropic/v1/messages", model="good").read()
with ask("m", "/model/openai/v1/responses", model="good", stream=True) as answer:
    assert answer.readline().startswith(b"data: ")
    answer.read()
seen = dict(os.environ)
for root, _, names in os.walk("/"):
    if root.startswith(("/proc", "/sys", "/dev", "/usr", "/lib")):
        continue
    for name in names:
        try:
            with open(os.path.join(root, name), "rb") as file:
                if SECRET.encode() in file.read(1 << 20):
                    seen["file"] = os.path.join(root, name) + SECRET
        except OSError:
            pass
open("found.txt", "w").write("key inside" if any(SECRET in v for v in seen.values()) else "no key")
subprocess.run("git add -A && git commit -qm work", shell=True, check=True)
from tool import call
call("gt_done", summary="asked")
"""


def test_an_agent_in_its_box_asks_and_has_no_key(
    door_stage: Stage, provider: Provider, tmp_path: Path, settings: Any
) -> None:
    stage = door_stage
    name_place(tmp_path, settings, provider)
    half = len(KEY) // 2
    bead = play(stage, f"SECRET = {KEY[:half]!r} + {KEY[half:]!r}\n{AGENT}")
    told = dict(stage.rig.config)
    ledger.set_config(stage.rig, {**told, **configs.validate(config_for(provider))})
    stage.rig.refresh_from_db()
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        secrets.set_secret(stage.town, name, KEY, "test")
    bead = stage.await_bead(bead, "closed", "failed")
    assert bead.resolution == "merged", Run.objects.get(bead=bead).reason
    assert stage.file("found.txt") == "no key"
    spent = usage.total(usage.of_bead(bead))
    books = provider.books
    assert (spent.calls, spent.input, spent.cached, spent.output) == (2, books.input, books.cached, books.output)
    assert books.keys == [KEY, KEY] and spent.cost == 2 * COST


HUNGRY = """
import json, urllib.error, urllib.request
url, token = os.environ["GASTOWN_URL"], os.environ["GASTOWN_TOKEN"]
said = ""
for n in range(50):
    request = urllib.request.Request(
        url + "/model/anthropic/v1/messages", json.dumps({"model": "good"}).encode(), {"x-api-key": token}
    )
    try:
        urllib.request.urlopen(request, timeout=30).read()
    except urllib.error.HTTPError as error:
        said = json.load(error)["error"]["message"]
        break
    if n == 6 and os.path.exists("tried.txt"):
        break
open("tried.txt", "a").write("once\\n")
subprocess.run("git add -A && git commit -qm work", shell=True, check=True)
if said:
    print(said)
    sys.exit(3)
from tool import call
call("gt_done", summary="enough")
"""


def test_a_cap_that_is_reached_stops_the_run_keeps_its_work_and_asks_a_person_who_raises_it(
    door_stage: Stage, provider: Provider, tmp_path: Path, settings: Any
) -> None:
    """Money for four calls: a fifth is refused in words that the CLI shows; no attempt is used; with more it lands."""
    stage = door_stage
    name_place(tmp_path, settings, provider)
    bead = play(stage, HUNGRY, max_attempts=1)
    cap = f"{4 * COST} USD"
    budget = {"budget": {"bead": cap}}
    ledger.set_config(stage.rig, {**stage.rig.config, **configs.validate(config_for(provider, **budget))})
    stage.rig.refresh_from_db()
    secrets.set_secret(stage.town, "ANTHROPIC_API_KEY", KEY, "test")
    need = stage.until(lambda: Escalation.objects.filter(key__startswith="budget:bead:").first())
    run = stage.until(lambda: Run.objects.filter(state="ended").first())
    assert run.outcome == "stopped" and "the budget is used up" in run.reason
    assert "Gastown: The budget is used up: bead" in Path(run.log_path).read_text()
    assert run.published and provider.books.calls == 4 == usage.total(usage.of_bead(bead)).calls
    assert need.bead.title.startswith(f"Budget used up: bead {bead.pk} has used")
    budgets.bead_budget(Bead.objects.get(pk=bead.pk), by=WHO, to="1 USD")
    bead = stage.await_bead(bead, "closed", "failed")
    assert bead.resolution == "merged", bead.reason
    assert stage.file("tried.txt") == "once\nonce"  # it went on from what the first run had saved
    whole = usage.total(usage.of_bead(bead))
    assert (whole.calls, whole.input) == (provider.books.calls, provider.books.input) == (11, 11 * INPUT)
    assert not Escalation.objects.filter(closed_at=None, key__startswith="budget:bead:").exists()


CLAUDE = """#!/usr/bin/python3
import json, os, subprocess, sys, urllib.request
url, key = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_API_KEY"]
assert key == os.environ["GASTOWN_TOKEN"]
request = urllib.request.Request(url + "/v1/messages", json.dumps({"model": "good"}).encode(), {"x-api-key": key})
json.load(urllib.request.urlopen(request, timeout=30))
open("done.txt", "w").write("asked")
subprocess.run("git add -A && git commit -qm work", shell=True, check=True)
body, head = b"{}", {"authorization": "Bearer " + key, "content-type": "application/json"}
urllib.request.urlopen(urllib.request.Request(os.environ["GASTOWN_URL"] + "/api/tools/gt_done", body, head)).read()
"""


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a Python in /usr/bin")
def test_a_preset_without_a_key_of_its_own_asks_through_the_door_where_its_town_has_one(
    door_stage: Stage, provider: Provider, tmp_path: Path, settings: Any
) -> None:
    stage = door_stage
    name_place(tmp_path, settings, provider)
    bin_ = tmp_path / "signals" / "bin"
    bin_.mkdir()
    (bin_ / "claude").write_text(CLAUDE)
    (bin_ / "claude").chmod(0o755)
    stage.open(agents=False)
    told = {
        **config_for(provider),
        "agents": {"polecat": {"preset": "claude", "network": "none"}},
        "sandbox": {**stage.town.config["sandbox"], "path": [str(bin_)]},
    }
    ledger.set_config(stage.rig, configs.validate(told))
    stage.rig.refresh_from_db()
    secrets.set_secret(stage.town, "ANTHROPIC_API_KEY", KEY, "test")
    bead = stage.await_bead(stage.sling("Task", ""), "closed", "failed")
    assert bead.resolution == "merged", Run.objects.filter(bead=bead).values_list("reason", "exit_error")
    assert provider.books.keys == [KEY] and usage.total(usage.of_bead(bead)).calls == 1
