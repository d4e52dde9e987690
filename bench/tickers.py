"""Four tickers on one town against one: the same work, with `fsync` on, in one run. Nothing may be decided twice.

Each ticker is a reconciler process. The work: entries submitted at once, built, gated and pushed by the bench itself,
until all have landed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from django.utils import timezone

from bench.django_town import installation

if TYPE_CHECKING:
    from beads.models import Effect, Town

ENTRIES = 60
ROOT = Path(__file__).parents[1]


def _answer(place: Town, effect: Effect, number: int) -> None:
    """What the executor would have recorded."""
    from beads import inbox, outbox
    from refinery.models import Candidate

    payload = effect.payload
    outbox.succeed(effect, timezone.now())
    if effect.kind == "build":
        below = Candidate.objects.get(pk=payload["on"]).sha if payload["on"] else "1" * 40
        told = {"build_no": payload["build_no"], "result": "built", "head": payload["head"], "on": payload["on"]}
        told |= {"sha": f"{number:040x}", "tree": f"{number:039x}f", "base": below}
        inbox.record(place, "candidate.built", payload["entry"], told)
    elif effect.kind == "land":
        inbox.record(place, "landing.concluded", str(payload["landing"]), {"state": "landed"})


def _work(slug: str, tickers: int) -> tuple[float, int]:
    """Seconds until everything has landed, and how many landings there were."""
    from django.db import transaction

    from agents import runs
    from beads import config, inbox, ledger
    from beads.models import Effect
    from refinery.models import Landing, ReviewEntry
    from refinery.store import entries

    settings = {"refinery": {"code_review": False, "gates": ["true"], "train": {"window": 8}}}
    place = ledger.create_town(slug, config.validate(settings))
    rig = ledger.create_rig(place, slug, "/nowhere.git", "main")
    env = {**os.environ, "GASTOWN_LOG_LEVEL": "INFO"}
    command = [sys.executable, str(ROOT / "manage.py"), "reconciler"]
    running = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(tickers)]
    try:
        for process in running:
            assert process.stderr is not None
            while not re.search(r"reconciler\.(ready|standby)", process.stderr.readline()):
                assert process.poll() is None
            threading.Thread(target=process.stderr.read, daemon=True).start()
        began = time.perf_counter()
        for n in range(ENTRIES):
            entries.submit(
                rig,
                entries.NewEntry(branch=f"b{n}", head=f"{n + 1:040x}", target="main", title=f"b{n}", author="bench"),
            )
        inbox.wake(place)
        number = 0
        while ReviewEntry.objects.filter(rig=rig, state="merged").count() < ENTRIES:
            assert time.perf_counter() - began < 110, "it does not come to an end"
            time.sleep(0.005)  # leave the processor to the tickers
            for effect in Effect.objects.filter(town=place, state="pending"):
                with transaction.atomic():
                    number += 1
                    _answer(place, effect, number)
            while picked := runs.pick("bench", timezone.now()):
                run, secret = picked
                runs.claim(run.pk, secret, timezone.now())
                raw = {"exit_code": 0, "signal": None, "timed_out": False}
                steps = [{"name": "true", "outcome_raw": raw, "output": ""}]
                runs.record_exit(run.pk, {"exit_code": 0, "steps": steps}, timezone.now())
        seconds = time.perf_counter() - began
    finally:
        for process in running:
            process.kill()
            process.wait()
    landed = Landing.objects.filter(rig=rig, state="landed")
    assert landed.count() == landed.values("entry").distinct().count() == ENTRIES, "something was decided twice"
    return seconds, landed.count()


def main() -> None:
    """One ticker, four, one, four: medians of two."""
    with installation():
        one, four = [], []
        for turn in range(2):
            one.append(_work(f"one-{turn}", 1)[0])
            four.append(_work(f"four-{turn}", 4)[0])
        a, b = min(one), min(four)
        print(f"1 ticker:  {ENTRIES / a:6.1f} entries/s")
        print(
            f"4 tickers: {ENTRIES / b:6.1f} entries/s   ratio {a / b:.2f} (wanted: at least 1, nothing decided twice)"
        )
