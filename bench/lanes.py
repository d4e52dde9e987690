"""What a tick costs by the number of lanes: the same 200 entries in one lane, in 20 and in 100."""

from __future__ import annotations

import statistics
import time

from bench.django_town import installation

ENTRIES, LANES, ROUNDS = 200, (1, 20, 100), 15


def main() -> None:
    """Print each, and the ratio to one lane."""
    with installation():
        from beads import config, ledger
        from refinery.store import entries
        from refinery.tick import reconciler

        first = 0.0
        for lanes in LANES:
            settings = {"refinery": {"gates": ["true"], "code_review": False}}
            town = ledger.create_town(f"bench{lanes}", config.validate(settings))
            rig = ledger.create_rig(town, f"bench{lanes}", "/none.git", "main")
            for n in range(ENTRIES):
                head, target = f"{n + 1:040x}", f"t{n % lanes}"
                entries.submit(
                    rig, entries.NewEntry(branch=f"b{n}", head=head, target=target, title=f"b{n}", author="bench")
                )
            reconciler.settle(town)  # the first cars get on, and wait for builds that nobody makes here
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                reconciler.tick(town)
                times.append((time.perf_counter() - began) * 1000)
            took = statistics.median(times)
            first = first or took
            print(f"{ENTRIES} entries in {lanes:3} lanes: {took:6.1f} ms   {took / first:.2f} × one lane")
