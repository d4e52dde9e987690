"""The review page of a 2,000-line change on the server: at most 400 ms, colours not yet known; and of 5,000 files."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from agents.runtime.gitcmd import run_git
from beads.actors import Actor
from bench.django_town import installation

FILES, LINES, MANY, ROUNDS, TARGET = 20, 50, 5000, 15, 400


def _source(seed: int, count: int) -> str:
    """A page of Python as people write it."""
    rows = []
    for n in range(count // 5):
        rows += [
            f"def handler_{n}(request: Request, limit: int = {seed}) -> Response:",
            f'    """Answer number {n}, of kind {seed}."""',
            f"    found = [row for row in table.select({n}, order={seed}) if row.size > limit]  # the large ones",
            f'    return Response(found[:{n}], status=200, headers={{"X-Kind": "{seed}"}})',
            "",
        ]
    return "\n".join(rows) + "\n"


def _repository(path: Path) -> None:
    """main, `change` (FILES files with LINES lines replaced each: 2 × FILES × LINES = 2,000), and `many` files."""
    run_git(["init", "--quiet", "--bare", "-b", "main", str(path)], cwd=path.parent)
    lines = ["commit refs/heads/main", "committer A <a@x.org> 1700000000 +0000", "data 4", "init"]
    for name in range(FILES):
        text = _source(1, LINES * 2)
        lines += [f"M 100644 inline src/f{name}.py", f"data {len(text)}", text]
    lines += ["commit refs/heads/change", "committer B <b@x.org> 1700000100 +0000", "data 6", "change"]
    lines += ["from refs/heads/main"]
    for name in range(FILES):
        old = _source(1, LINES * 2).split("\n")
        new = "\n".join([*_source(2, LINES + 10).split("\n")[:LINES], *old[LINES:]])
        lines += [f"M 100644 inline src/f{name}.py", f"data {len(new)}", new]
    lines += ["commit refs/heads/many", "committer B <b@x.org> 1700000100 +0000", "data 4", "many"]
    lines += ["from refs/heads/main"]
    for n in range(MANY):
        lines += [f"M 100644 inline d{n % 100}/f{n}.txt", "data 2", f"{n % 10}\n"]
    run_git(["fast-import", "--quiet", "--force"], cwd=path, input="\n".join([*lines, ""]).encode(), timeout=600)


def main() -> None:
    """Print what each view costs."""
    with installation() as home:
        from django.contrib.auth.models import User
        from django.db import connection
        from django.test import Client
        from django.test.utils import CaptureQueriesContext
        from django.utils import timezone

        from beads import ledger
        from beads.models import Effect
        from refinery.decisions import merge_queue, towns
        from refinery.executor import perform
        from refinery.models import ReviewEntry
        from refinery.review import highlight
        from refinery.tick import reconciler

        remote = home / "remote.git"
        _repository(remote)
        settings = {"refinery": {"code_review": False, "allow_no_gates": True, "merge_strategy": "pr"}}
        town = ledger.create_town("bench", settings)
        rig = towns.add_rig("bench", "bench", str(remote), None, {})
        client = Client(headers={"host": "localhost"})
        client.force_login(User.objects.create_superuser("bench"))

        def entry_of(branch: str) -> ReviewEntry:
            made, _ = merge_queue.submit(rig, merge_queue.Submission(branch, title=branch), by=Actor("", "bench"))
            for _ in range(4):
                reconciler.settle(town)
                for effect in Effect.objects.filter(state="pending", next_try_at__lte=timezone.now()):
                    perform.run_effect(effect.pk)
            return ReviewEntry.objects.get(pk=made.pk)

        def measure(name: str, address: str, *, forget: bool) -> None:
            times, busy, size = [], [], 0
            for _ in range(ROUNDS):
                if forget:
                    highlight.forget()
                began, worked = time.perf_counter(), time.process_time()
                answer = client.get(address)
                times.append((time.perf_counter() - began) * 1000)
                busy.append((time.process_time() - worked) * 1000)
                assert answer.status_code == 200, answer.status_code
                size = len(answer.content)
            with CaptureQueriesContext(connection) as caught:
                client.get(address)
            p95 = sorted(times)[int(len(times) * 0.95)]
            row = f"{statistics.median(times):>6.0f} {p95:>6.0f} {statistics.median(busy):>6.0f}"
            print(f"{name:<44} {row} {size // 1024:>6} {len(caught):>8}")

        print(f"{'':<44} {'median':>6} {'p95':>6} {'cpu':>6} {'KiB':>6} {'queries':>8}   (ms; target ≤ {TARGET})")
        change = f"/reviews/{entry_of('change').pk}/"
        many = f"/reviews/{entry_of('many').pk}/"
        client.get(change)
        measure("2,000 lines, unified, colours not known", change + "?view=unified", forget=True)
        measure("2,000 lines, side by side, not known", change + "?view=split", forget=True)
        measure("2,000 lines, unified, seen before", change + "?view=unified", forget=False)
        measure(f"{MANY} files, page 1", many, forget=False)
        measure(f"{MANY} files, page 50", many + "?page=50", forget=False)
